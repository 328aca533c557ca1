"""Files as others publish them, written here from the formats' descriptions, and what they compute.

Nothing of the code under test is used: protocol buffers are encoded byte by byte, and Caffe's
networks are computed with NumPy in float64.
"""

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Layers = Mapping[str, tuple[Floats, Floats]]
"""Weights and biases by layer, in Caffe's order: output, input within the group, row, column."""
SHAPES = {
    "conv1": (96, 3, 11, 11),
    "conv2": (256, 48, 5, 5),
    "conv3": (384, 256, 3, 3),
    "conv4": (384, 192, 3, 3),
    "conv5": (256, 192, 3, 3),
    "fc6": (4096, 9216),
    "fc7": (4096, 4096),
    "fc8": (1000, 4096),
}
DENSITY = {"conv1": 0.84, "fc6": 0.09, "fc7": 0.09, "fc8": 0.25}
"""Shares of weights that Deep Compression kept, roughly; the others: 0.38."""


def draw_layers(seed: int = 0) -> dict[str, tuple[Floats, Floats]]:
    """Draw bvlc_alexnet's layers, pruned and with few values, such that its responses stay alive.

    Of a convolutional layer 255 values besides zero, of a fully connected one 15.
    """
    random, layers = np.random.default_rng(seed), {}
    for name, shape in SHAPES.items():
        count = 255 if name.startswith("conv") else 15
        density = DENSITY.get(name, 0.38)
        deviation = np.sqrt(2 / (density * np.prod(shape[1:]))) / (60 if name == "conv1" else 1)
        values = np.append(np.float32(0), random.normal(0, deviation, count).astype(np.float32))
        codes = random.integers(1, count + 1, shape, np.uint8)
        codes[random.random(shape, np.float32) >= density] = 0
        biases = random.normal(0, 0.1, shape[0]).astype(np.float32)
        layers[name] = values[codes], biases
    return layers


# Protocol buffers


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, content: bytes | int | float) -> bytes:
    """A field of a message: bytes or a message, a whole number, or a float of 32 bits."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    if isinstance(content, float):
        return varint(number << 3 | 5) + struct.pack("<f", content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def blob(values: Floats, *, old: bool) -> bytes:
    """A BlobProto; in the old form with four dimensions, in the new one with a shape."""
    data = field(5, np.ascontiguousarray(values, "<f4").tobytes())
    if old:
        shape = (1, 1, 1, 1, *values.shape)[-4:]
        return b"".join(field(i, size) for i, size in enumerate(shape, 1)) + data
    return data + field(7, field(1, b"".join(map(varint, values.shape))))


def caffe_layer(
    name: str, bottom: str, blobs: Iterable[Floats] = (), norm: bytes = b"", *, old: bool
) -> bytes:
    """A layer in the old or the new form, as a field of the network."""
    numbers = {"name": 4, "bottom": 2, "blobs": 6, "norm": 18} if old else {}
    numbers = numbers or {"name": 1, "bottom": 3, "blobs": 7, "norm": 118}
    parts = [field(numbers["name"], name.encode()), field(numbers["bottom"], bottom.encode())]
    parts += [field(numbers["blobs"], blob(one, old=old)) for one in blobs]
    parts += [field(numbers["norm"], norm)] if norm else []
    return field(2 if old else 100, b"".join(parts))


def write_caffemodel(
    path: Path,
    layers: Layers,
    *,
    pool_first: bool = False,
    old: bool = True,
    alpha: float = 1e-4,
) -> Path:
    """Write a network as Caffe does: AlexNet, or with `pool_first` CaffeNet."""
    norm = field(1, 5) + field(2, alpha) + field(3, 0.75)
    parts = [field(1, b"CaffeNet" if pool_first else b"AlexNet")]
    for name, blobs in layers.items():
        parts.append(caffe_layer(name, "below", blobs, old=old))
        if name in ("conv1", "conv2"):
            n = name[-1]
            order = (f"pool{n}", f"norm{n}") if pool_first else (f"norm{n}", f"pool{n}")
            below = name
            for one in order:
                parts.append(caffe_layer(one, below, norm=norm if one[0] == "n" else b"", old=old))
                below = one
    path.write_bytes(b"".join(parts))
    return path


def write_mean(path: Path, image: Floats) -> Path:
    """Write a mean image, [3, height, width], blue first, as Caffe's compute_image_mean does."""
    path.write_bytes(blob(image[None], old=True))
    return path


# Deep Compression


def halves(numbers: npt.NDArray[np.integer]) -> bytes:
    """Numbers below sixteen, two in a byte, the first in the lower half."""
    padded = np.append(numbers, np.zeros(len(numbers) % 2, numbers.dtype)).astype(np.uint8)
    return (padded[::2] | padded[1::2] << 4).tobytes()


def encode_layer(weights: Floats, biases: Floats, bits: int) -> tuple[int, bytes]:
    """How many entries a layer has, and its part of the file."""
    flat = weights.ravel()
    values = np.unique(flat[flat != 0])
    codebook = np.zeros(2**bits, np.float32)
    codebook[1 : len(values) + 1] = values
    places = np.flatnonzero(flat)
    # A gap of sixteen or more takes entries of gap 15 and code 0, each sixteen places further on.
    fillers, rest = np.divmod(np.diff(places, prepend=-1) - 1, 16)
    ends = np.arange(len(places)) + np.cumsum(fillers)
    gaps, codes = np.full(ends[-1] + 1, 15), np.zeros(ends[-1] + 1, int)
    gaps[ends], codes[ends] = rest, np.searchsorted(values, flat[places]) + 1
    stream = codes.astype(np.uint8).tobytes() if bits == 8 else halves(codes)
    parts = (codebook.astype("<f4"), biases.astype("<f4"))
    return len(codes), b"".join(part.tobytes() for part in parts) + stream + halves(gaps)


def write_deep_compression(path: Path, layers: Layers) -> Path:
    """Write bvlc_alexnet as Han, Mao and Dally published it."""
    encoded = [
        encode_layer(*blobs, 8 if name.startswith("conv") else 4) for name, blobs in layers.items()
    ]
    header = struct.pack("<8I", *(count for count, _ in encoded))
    path.write_bytes(header + b"".join(part for _, part in encoded))
    return path


# Caffe's network


def caffe_forward(layers: Layers, image: Doubles, *, pool_first: bool = False) -> Doubles:
    """fc8 of [3, 227, 227], blue first, minus the mean: float64 [classes]."""
    x = image
    for name, stride, pad, groups in (
        ("conv1", 4, 0, 1),
        ("conv2", 1, 2, 2),
        ("conv3", 1, 1, 1),
        ("conv4", 1, 1, 2),
        ("conv5", 1, 1, 2),
    ):
        x = np.maximum(convolve(x, *layers[name], stride, pad, groups), 0)
        if name in ("conv1", "conv2"):
            x = normalise(pool(x)) if pool_first else pool(normalise(x))
    x = pool(x).ravel()
    for name in ("fc6", "fc7", "fc8"):
        weights, biases = layers[name]
        x = weights.astype(np.float64) @ x + biases
        x = x if name == "fc8" else np.maximum(x, 0)
    return x


def convolve(
    x: Doubles, weights: Floats, biases: Floats, stride: int, pad: int, groups: int
) -> Doubles:
    """A convolution in groups, as a matrix product over patches."""
    size = weights.shape[-1]
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
    windows = windows[:, ::stride, ::stride]
    outs = []
    for some, kernels in zip(
        np.split(windows, groups), np.split(weights.astype(np.float64), groups), strict=True
    ):
        outs.append(np.einsum("cyxij,ocij->oyx", some, kernels, optimize=True))
    return np.concatenate(outs) + biases[:, None, None].astype(np.float64)


def normalise(x: Doubles) -> Doubles:
    """Caffe's LRN over all channels: x / (1 + 1e-4 / 5 Σ x²)^0.75 over five of them."""
    squares = np.pad(x**2, ((2, 2), (0, 0), (0, 0)))
    sums = sum(squares[i : i + len(x)] for i in range(5))
    return x / (1 + 1e-4 / 5 * sums) ** 0.75


def pool(x: Doubles) -> Doubles:
    """Max pooling, 3 × 3 by 2, the last window reaching beyond the edge if one is left over."""
    side = -(-(x.shape[1] - 3) // 2) + 1
    rows = [
        [x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max(axis=(1, 2)) for j in range(side)]
        for i in range(side)
    ]
    return np.array(rows).transpose(2, 0, 1)
