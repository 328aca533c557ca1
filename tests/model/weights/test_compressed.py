"""Coding tensors in few bytes: without loss, near the entropy, and safe to decode."""

import math
import tracemalloc
import zlib
from collections.abc import Mapping
from contextlib import suppress

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.weights.compressed import CodingError, compress_tensors, decompress_tensors

Parts = dict[str, Tensor]


def draw_sparse(
    seed: int, shape: tuple[int, ...], density: float, values: int
) -> npt.NDArray[np.float32]:
    """Draw a tensor of which a share is one of so many values, and the rest zero."""
    random = np.random.default_rng(seed)
    codebook = random.standard_normal(values).astype(np.float32)
    tensor = codebook[random.integers(0, values, shape)]
    tensor[random.random(shape) >= density] = 0
    return tensor


def round_trip(tensor: npt.NDArray[np.float32]) -> tuple[Parts, npt.NDArray[np.float32]]:
    """A tensor's parts, and what is decoded from them."""
    parts = compress_tensors({"x": torch.from_numpy(tensor)})
    return parts, decompress_tensors(parts, {"x": tensor.shape})["x"].numpy()


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    shape=st.lists(st.integers(0, 40), min_size=1, max_size=3).map(tuple),
    density=st.sampled_from([0.0, 0.001, 0.1, 0.9, 1.0]),
    values=st.sampled_from([1, 2, 32, 256, 257, 5000]),
)
def test_every_bit_comes_back(
    seed: int, shape: tuple[int, ...], density: float, values: int
) -> None:
    tensor = draw_sparse(seed, shape, density, values)
    _, read = round_trip(tensor)
    assert read.shape == tensor.shape
    assert read.tobytes() == tensor.tobytes()


@pytest.mark.parametrize("gap", [0, 253, 254, 255, 256, 509, 510, 511, 300_000])
def test_gaps_of_any_length_come_back(gap: int) -> None:
    tensor = np.zeros(2 * gap + 5, np.float32)
    tensor[[gap, 2 * gap + 1]] = 1.5, -2.5
    assert np.array_equal(round_trip(tensor)[1], tensor)


def test_negative_zeros_are_not_lost() -> None:
    tensor = np.array([0.0, -0.0, 1.0], np.float32)
    assert np.signbit(round_trip(tensor)[1]).tolist() == [False, True, False]


def test_a_tensor_in_another_memory_format_comes_back() -> None:
    tensor = torch.from_numpy(draw_sparse(0, (8, 6, 5, 5), 0.5, 16))
    parts = compress_tensors({"x": tensor.to(memory_format=torch.channels_last)})
    assert torch.equal(decompress_tensors(parts, {"x": tensor.shape})["x"], tensor)


@pytest.mark.parametrize("density", [0.05, 0.12, 0.4])
@pytest.mark.parametrize("values", [16, 256])
def test_the_size_is_near_the_entropy(density: float, values: int) -> None:
    size = 1_000_000
    random = np.random.default_rng(1)
    # A few values are frequent, most are rare, as in a layer.
    frequency = random.dirichlet(np.full(values, 0.5))
    kept = random.random(size) < density
    tensor = np.zeros(size, np.float32)
    tensor[kept] = 1 + random.choice(values, int(kept.sum()), p=frequency)
    position_bits = -size * (density * math.log2(density) + (1 - density) * math.log2(1 - density))
    likely = frequency[frequency > 0]
    value_bits = -kept.sum() * float((likely * np.log2(likely)).sum())
    parts, _ = round_trip(tensor)
    measured = 8 * sum(part.nbytes for part in parts.values())
    # Huffman codes have whole bits; their tables and the codebook take a few kilobytes.
    assert measured <= 1.03 * (position_bits + value_bits) + 8 * 4 * values + 8 * 4000


def test_a_smooth_image_takes_less_than_its_floats() -> None:
    x, y = np.meshgrid(np.arange(256), np.arange(256))
    image = (120 + 40 * np.sin(x / 50) * np.cos(y / 70)).astype(np.float32)
    parts, read = round_trip(image)
    assert read.tobytes() == image.tobytes()
    assert sum(part.nbytes for part in parts.values()) < 0.7 * image.nbytes


SHAPES = {"s": (50, 70), "d": (30, 20)}


@pytest.fixture
def parts() -> Parts:
    """The parts of a sparse tensor and of a dense one."""
    sparse, dense = draw_sparse(3, SHAPES["s"], 0.1, 5), draw_sparse(4, SHAPES["d"], 1.0, 5000)
    return compress_tensors({"s": torch.from_numpy(sparse), "d": torch.from_numpy(dense)})


def coded(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(zlib.compress(data)), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("s.gaps", None),
        ("s.codes", None),
        ("s.codebook", None),
        ("d.planes", None),
        ("s.gaps", lambda old: old[:-1]),
        ("s.gaps", lambda old: torch.cat([old, old])),
        ("s.gaps", lambda old: old[:0]),
        ("s.gaps", lambda old: old.float()),
        ("s.gaps", lambda old: old[None]),
        ("s.gaps", lambda _: coded(bytes([0] * 3501))),  # more weights than places
        ("s.gaps", lambda _: coded(bytes([20] * 300))),  # another number than codes
        ("s.codes", lambda _: coded(bytes([0] * 10))),
        ("s.codes", lambda _: coded(b"")),
        ("s.codes", lambda old: old.flip(0)),
        ("s.codebook", lambda old: old[:-1]),
        ("s.codebook", lambda old: old.double()),
        ("s.codebook", lambda old: old.clone().fill_(math.nan)),
        ("s.codebook", lambda old: old.clone().fill_(math.inf)),
        ("s.codebook", lambda _: torch.ones(257)),
        ("d.planes", lambda old: old[: len(old) // 2]),
        ("d.planes", lambda _: coded(bytes(4 * 600 - 1))),
        ("d.planes", lambda _: coded(bytes(4 * 600 + 1))),
        ("d.planes", lambda _: torch.zeros(9, dtype=torch.uint8)),
    ],
)
def test_damage_is_named(parts: Parts, name: str, damage: object) -> None:
    changed = {key: part for key, part in parts.items() if key != name}
    if callable(damage):
        changed[name] = damage(parts[name])
    with pytest.raises(CodingError, match=f"tensor {name[0]} is damaged"):
        decompress_tensors(changed, SHAPES)


def test_gaps_that_run_past_the_end_are_refused() -> None:
    inside = {
        "x.gaps": coded(bytes([99])),
        "x.codes": coded(bytes([0])),
        "x.codebook": torch.ones(1),
    }
    assert decompress_tensors(inside, {"x": (100,)})["x"].nonzero().tolist() == [[99]]
    for gaps in (bytes([100]), bytes([255, 0]), bytes([255])):
        codes = coded(bytes(gap != 255 for gap in gaps if gap != 255))
        outside = inside | {"x.gaps": coded(gaps), "x.codes": codes}
        outside["x.codebook"] = torch.ones(2)
        with pytest.raises(CodingError, match="past its end"):
            decompress_tensors(outside, {"x": (100,)})


def test_a_tensor_too_many_is_named(parts: Parts) -> None:
    with pytest.raises(CodingError, match=r"fc9\.weight\.gaps is unexpected"):
        decompress_tensors(parts | {"fc9.weight.gaps": parts["s.gaps"]}, SHAPES)


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_changed_bytes_raise_nothing_else(data: st.DataObject) -> None:
    sparse, dense = draw_sparse(3, SHAPES["s"], 0.1, 5), draw_sparse(4, SHAPES["d"], 1.0, 5000)
    parts = compress_tensors({"s": torch.from_numpy(sparse), "d": torch.from_numpy(dense)})
    stream = parts[data.draw(st.sampled_from(["s.gaps", "s.codes", "d.planes"]))]
    place = data.draw(st.integers(0, len(stream) - 1))
    stream[place:] = data.draw(st.integers(0, 255))
    with suppress(CodingError):
        decompress_tensors(parts, SHAPES)


@pytest.mark.parametrize("name", ["s.gaps", "s.codes", "d.planes"])
def test_a_bomb_takes_no_memory(parts: Parts, name: str) -> None:
    parts[name] = coded(bytes(50_000_000))
    assert peak_of(parts, SHAPES) < 2_000_000


def test_a_network_of_more_numbers_than_any_is_refused(parts: Parts) -> None:
    assert peak_of(parts, {"s": (1 << 20, 1 << 20), "d": SHAPES["d"]}) < 2_000_000


def peak_of(parts: Parts, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """The most memory taken while a damaged file is refused."""
    tracemalloc.start()
    try:
        with pytest.raises(CodingError):
            decompress_tensors(parts, shapes)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
