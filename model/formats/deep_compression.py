"""Caffe's bvlc_alexnet in 8.9 MB, published by Han, Mao and Dally with *Deep Compression* (2016).

Its weights are pruned and share few values; Huffman coding, the paper's last step, is left out. The
authors measured a top-1 accuracy of 57.074 % and a top-5 accuracy of 80.254 % with it. The file,
little-endian, is made of

1. eight uint32: how many entries of conv1, …, conv5, fc6, fc7 and fc8 are stored;
2. for each of these layers a codebook of float32 (256 values for convolutional layers, 16 for fully
   connected ones), the biases (float32), the entries' codes (a byte each, or half a byte) and the
   gaps before them (half a byte each). Of two halves in a byte the lower one comes first.

An entry's place among the layer's weights, in the order of output, input, row and column, is the
running sum of its gap + 1, minus 1. Wider gaps are bridged by entries of code 0. All weights that
are not stored have code 0, whose value is zero.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.formats.network import FormatError

URL = "https://github.com/songhan/Deep-Compression-AlexNet/raw/master/AlexNet_compressed.net"
"""Where its authors publish it."""
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
"""bvlc_alexnet's weights, in the order of the file."""
HEADER_BYTES = 4 * len(SHAPES)
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


class Coding(NamedTuple):
    """How one layer is stored: bits of a code, entries, and outputs."""

    bits: int
    entries: int
    outputs: int

    @property
    def code_bytes(self) -> int:
        """Bytes that the codes take."""
        return (self.entries - 1) // (8 // self.bits) + 1

    @property
    def gap_bytes(self) -> int:
        """Bytes that the gaps take."""
        return (self.entries - 1) // 2 + 1


def read_counts(header: bytes) -> list[int] | None:
    """Return how many entries each layer has; None if a file that begins so is of another format.

    header: the file's first 32 bytes. No layer has more entries than weights, which hardly any
    other eight numbers satisfy.
    """
    if len(header) < HEADER_BYTES:
        return None
    counts = [int(count) for count in np.frombuffer(header[:HEADER_BYTES], "<u4")]
    sizes = map(math.prod, SHAPES.values())
    fits = all(1 <= count <= size for count, size in zip(counts, sizes, strict=True))
    return counts if fits else None


def read_deep_compression(path: Path) -> dict[str, Tensor]:
    """Read the tensors of bvlc_alexnet, as Caffe orders them: conv1 sees blue, green, red.

    Raises FormatError if the file is short, or is of another format.
    """
    reader = Reader(path, path.read_bytes())
    counts = read_counts(reader.take(HEADER_BYTES, "the header"))
    if counts is None:
        raise FormatError(
            f"{path} is not bvlc_alexnet as Deep Compression published it: it does not begin with "
            "the numbers of its layers' entries"
        )
    tensors: dict[str, Tensor] = {}
    for (layer, shape), entries in zip(SHAPES.items(), counts, strict=True):
        coding = Coding(8 if layer.startswith("conv") else 4, entries, shape[0])
        weights, biases = read_layer(reader, layer, coding, math.prod(shape))
        tensors[f"{layer}.weight"] = torch.from_numpy(weights.reshape(shape))
        tensors[f"{layer}.bias"] = torch.from_numpy(biases)
    return tensors


class Reader:
    """Takes one part after another from a file's bytes."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path, self.data, self.at = path, data, 0

    def take(self, count: int, part: str) -> bytes:
        """Return the next bytes. Raises FormatError, naming the part, if the file has fewer."""
        end = self.at + count
        if end > len(self.data):
            raise FormatError(
                f"{self.path} ends within {part}: it has {len(self.data):,} bytes, and at least "
                f"{end:,} are needed; it may not be downloaded completely"
            )
        start, self.at = self.at, end
        return self.data[start:end]

    def take_floats(self, count: int, part: str) -> Floats:
        """Return the next numbers. Raises FormatError as `take`, or if one is not finite."""
        numbers = np.frombuffer(self.take(4 * count, part), "<f4").astype(np.float32)
        if not np.isfinite(numbers).all():
            raise FormatError(f"{self.path} is damaged: {part} holds NaN or infinity")
        return numbers


def read_layer(reader: Reader, layer: str, coding: Coding, size: int) -> tuple[Floats, Floats]:
    """Read a layer's weights, float32 [size], and its biases. Raises FormatError."""
    codebook = reader.take_floats(2**coding.bits, f"the codebook of {layer}")
    if codebook[0] != 0:
        raise FormatError(
            f"{reader.path} is not bvlc_alexnet as Deep Compression published it: the first value "
            f"of the codebook of {layer} is {codebook[0]:g}, not zero"
        )
    biases = reader.take_floats(coding.outputs, f"the biases of {layer}")
    codes = unpack(reader.take(coding.code_bytes, f"the codes of {layer}"), coding.bits)
    gaps = unpack(reader.take(coding.gap_bytes, f"the gaps of {layer}"), 4)
    places = np.cumsum(gaps[: coding.entries].astype(np.int64) + 1) - 1
    if places[-1] >= size:
        raise FormatError(
            f"{reader.path} is damaged: the entries of {layer} run past its {size:,} weights"
        )
    weights = np.zeros(size, np.float32)
    weights[places] = codebook[codes[: coding.entries]]
    return weights, biases


def unpack(data: bytes, bits: int) -> Bytes:
    """Return numbers of eight or four bits; of two in a byte the lower half comes first."""
    whole = np.frombuffer(data, np.uint8)
    return whole if bits == 8 else np.stack([whole & 15, whole >> 4], axis=1).ravel()
