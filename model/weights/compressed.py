"""Tensors in few bytes, without loss: Huffman coding after Han, Mao and Dally, *Deep Compression*.

Most weights of a pruned layer are zero, and the others share a few values. Such a tensor becomes
three parts: a codebook of its values; for each weight that is not zero the number of its value;
and the gaps, the numbers of zeros before each. Numbers and gaps are bytes, Huffman-coded by zlib,
so that any language can read them. Tensors of more values than a byte can number, such as biases
and the mean image, become the differences of neighbouring numbers, split into byte planes and
coded alike.
"""

import math
import zlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

GAPS, CODES, CODEBOOK, PLANES = "gaps", "codes", "codebook", "planes"
"""Suffixes of the parts' names: `fc6.weight.gaps`."""
MAX_VALUES = 256
"""Different values, zero apart, that a codebook can hold: a code is one byte."""
LONG_GAP = 255
"""The byte that stands for 255 zeros with no weight after them; smaller bytes are whole gaps."""
MAX_PARAMETERS = 2**30
"""Numbers that a compressed file may hold: seven times AlexNet with ImageNet's 21,841 classes. A
short file can describe many zeros; this limits the memory that it takes."""
MEMORY_LEVEL = 9
"""zlib's highest: the longest blocks, so that the fewest code tables are stored."""
BLOCK = 1 << 18
"""Gaps decoded at a time, so that their positions stay in the processor's cache."""
STRATEGIES = (zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE)
"""zlib's strategies, of which the one with the shorter result is taken: Huffman coding alone, and
run lengths as well, which are for layers that are hardly pruned. Longer matches only cost bytes."""

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


class CodingError(ValueError):
    """Parts of a compressed file that do not fit together, or are damaged."""


def compress_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Code float32 tensors of any shapes; return their parts by name."""
    parts: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        values = tensor.detach().contiguous().flatten().numpy()
        coded = encode_sparse(values) or {PLANES: encode_planes(values)}
        parts |= {f"{name}.{kind}": torch.from_numpy(part) for kind, part in coded.items()}
    return parts


def decompress_tensors(
    parts: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """Decode the tensors of these names and shapes from their parts, to the same bits.

    A damaged or hostile file cannot make it take more memory than decoding whole tensors does.

    Raises CodingError, naming the tensor, for a part that is missing, damaged or superfluous.
    """
    if sum(math.prod(shape) for shape in shapes.values()) > MAX_PARAMETERS:
        raise CodingError(f"a compressed network may have {MAX_PARAMETERS:,} parameters at most")
    known = {f"{name}.{kind}" for name in shapes for kind in (GAPS, CODES, CODEBOOK, PLANES)}
    for part in sorted(set(parts) - known):
        raise CodingError(f"tensor {part} is unexpected")
    tensors = {}
    for name, shape in shapes.items():
        try:
            values = decode_tensor(parts, name, math.prod(shape))
        except CodingError as error:
            raise CodingError(f"tensor {name} is damaged: {error}") from error
        tensors[name] = torch.from_numpy(values.reshape(shape))
    return tensors


def decode_tensor(parts: Mapping[str, Tensor], name: str, size: int) -> Floats:
    """Decode one tensor as float32 [size]. Raises CodingError."""

    def part(kind: str, dtype: torch.dtype) -> npt.NDArray[np.generic]:
        tensor = parts.get(f"{name}.{kind}")
        if tensor is None:
            raise CodingError(f"its {kind} are missing")
        if tensor.dtype != dtype or tensor.ndim != 1:
            given = f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
            raise CodingError(f"its {kind} are {given}")
        return tensor.numpy()

    if f"{name}.{PLANES}" in parts:
        return decode_planes(part(PLANES, torch.uint8).tobytes(), size)
    codebook = part(CODEBOOK, torch.float32).astype(np.float32, copy=False)
    gaps, codes = (part(kind, torch.uint8).tobytes() for kind in (GAPS, CODES))
    return decode_sparse(gaps, codes, codebook, size)


def encode_sparse(values: Floats) -> dict[str, npt.NDArray[np.generic]] | None:
    """Code float32 [N] as gaps, codes and a codebook; None if there are more than 256 values."""
    # As bits, so that NaN and negative zero come back, too.
    bits = values.view(np.uint32)
    places = np.flatnonzero(bits)
    kept = bits[places]
    if len(np.unique(kept[:10_000])) > MAX_VALUES:
        return None
    codebook, codes = np.unique(kept, return_inverse=True)
    if len(codebook) > MAX_VALUES:
        return None
    return {
        GAPS: deflate(encode_gaps(places)),
        CODES: deflate(codes.astype(np.uint8)),
        CODEBOOK: codebook.view(np.float32),
    }


def encode_gaps(places: npt.NDArray[np.int64]) -> Bytes:
    """Code ascending positions, int64 [K], as the numbers of positions left out before each."""
    long, rest = np.divmod(np.diff(places, prepend=-1) - 1, LONG_GAP)
    ends = np.arange(len(places)) + np.cumsum(long)
    gaps = np.full(len(places) + int(long.sum()), LONG_GAP, np.uint8)
    gaps[ends] = rest
    return gaps


def decode_sparse(gap_stream: bytes, code_stream: bytes, codebook: Floats, size: int) -> Floats:
    """Decode what `encode_sparse` coded, as float32 [size]. Raises CodingError."""
    if len(codebook) > MAX_VALUES or not np.isfinite(codebook).all():
        raise CodingError("its codebook is not up to 256 finite numbers")
    gaps = inflate(gap_stream, size)
    codes = inflate(code_stream, size)
    if np.count_nonzero(gaps != LONG_GAP) != len(codes):
        raise CodingError("it has not as many codes as gaps")
    if len(codes) and codes.max() >= len(codebook):
        raise CodingError("a code is outside its codebook")
    values = np.zeros(size, np.float32)
    last, done = -1, 0
    for start in range(0, len(gaps), BLOCK):
        block = gaps[start : start + BLOCK]
        ends_in_weight = block != LONG_GAP
        ends = last + np.cumsum(block + ends_in_weight.astype(np.int64))
        last = int(ends[-1])
        if last >= size:
            raise CodingError("its gaps run past its end")
        places = ends[ends_in_weight]
        values[places] = codebook[codes[done : done + len(places)]]
        done += len(places)
    return values


def encode_planes(values: Floats) -> Bytes:
    """Code float32 [N] without loss: the bits' differences, byte plane by byte plane."""
    bits = values.view(np.uint32)
    steps = np.diff(bits, prepend=np.uint32(0))
    # The sign goes into the lowest bit, so that small steps down are small numbers, too.
    folded = (steps << 1) ^ -(steps >> 31)
    return deflate(folded.astype("<u4").view(np.uint8).reshape(-1, 4).T.ravel())


def decode_planes(stream: bytes, size: int) -> Floats:
    """Decode what `encode_planes` coded, as float32 [size]. Raises CodingError."""
    planes = inflate(stream, 4 * size)
    if len(planes) != 4 * size:
        raise CodingError(f"it holds {len(planes)} bytes, expected {4 * size}")
    folded = np.ascontiguousarray(planes.reshape(4, -1).T).view("<u4").ravel()
    steps = (folded >> 1) ^ -(folded & 1)
    return np.cumsum(steps, dtype=np.uint32).view(np.float32)


def deflate(data: Bytes) -> Bytes:
    """Compress bytes in zlib's format."""
    streams = []
    for strategy in STRATEGIES:
        coder = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, MEMORY_LEVEL, strategy)
        streams.append(coder.compress(data.data) + coder.flush())
    # A copy, since torch wants arrays that can be written to.
    return np.frombuffer(min(streams, key=len), np.uint8).copy()


def inflate(stream: bytes, limit: int) -> Bytes:
    """Decompress at most `limit` bytes in zlib's format. Raises CodingError."""
    decoder = zlib.decompressobj()
    try:
        data = decoder.decompress(stream, limit + 1)
    except zlib.error as error:
        raise CodingError(str(error)) from error
    if len(data) > limit:
        raise CodingError(f"it holds more than {limit} bytes")
    if not decoder.eof or decoder.unused_data:
        raise CodingError("its bytes end too early, or too late")
    return np.frombuffer(data, np.uint8)
