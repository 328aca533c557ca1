"""Codes of an autoencoder: what they propose is what comparing all codes gives."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from index.candidates import RowFilter
from index.engines import binary
from index.engines.autoencoder import load_encoder
from index.engines.options import EngineOptions
from index.manifest import StoreError
from index.vectors import Vectors, write_shard
from model.config import FEATURES

Floats = npt.NDArray[np.float32]
COUNT = 400
ALIVE = np.arange(COUNT) % 7 != 3


SET = EngineOptions(bits=64, seed=1)


def quiet(_name: str, _total: int) -> Callable[[int], None]:
    return lambda _done: None


def fc7_like(count: int, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(8, FEATURES))
    along = np.random.default_rng(1).normal(size=(20, FEATURES))
    places = centres[np.arange(count) % 8] + 0.3 * rng.normal(size=(count, 20)) @ along
    return np.maximum(places, 0).astype(np.float32)


def shards(folder: Path, rows: Floats, dtype: str = "float16") -> Vectors:
    folder.mkdir(exist_ok=True)
    return Vectors(folder, [write_shard(folder / "vectors-0.npy", [rows], dtype)], dtype)


@dataclass(frozen=True)
class Made:
    """A trained kind: its folder, parameters and vectors."""

    folder: Path
    parameters: dict[str, Any]
    vectors: Vectors

    def open(self) -> binary.BinaryCodeSearch:
        return binary.open_binary(self.folder, self.parameters)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("binary")
    vectors = shards(folder, fc7_like(COUNT, 2))
    return Made(folder, binary.train_binary(vectors, ALIVE, folder, SET, quiet), vectors)


def differing(made: Made, queries: Floats) -> npt.NDArray[np.int64]:
    """How many bits differ, by counting them: [queries, rows]."""
    coder = load_encoder(made.folder / binary.ENCODER_FILE)
    rows = made.vectors.take(np.arange(COUNT))
    apart = coder.encode(queries)[:, None] ^ coder.encode(rows)[None]
    return np.unpackbits(apart, axis=2).sum(axis=2, dtype=np.int64)


@pytest.mark.parametrize("rows", [None, np.arange(5, COUNT, 3), np.flatnonzero(ALIVE)[:250]])
def test_proposes_the_rows_with_the_fewest_differing_bits(made: Made, rows: Any) -> None:
    queries = fc7_like(20, 3)
    allowed = ALIVE if rows is None else ALIVE & np.isin(np.arange(COUNT), rows)
    found = made.open().propose(queries, 30, RowFilter(rows=rows), 0)
    assert (found.shape, found.dtype) == ((20, 30), np.int64)
    for apart, some in zip(differing(made, queries), found, strict=True):
        assert len(set(some)) == 30
        assert allowed[some].all()
        # Which of those at the last distance come is open.
        assert sorted(apart[some]) == sorted(apart[allowed])[:30]


def test_gives_all_there_are_and_fills_up(made: Made) -> None:
    found = made.open().propose(fc7_like(2, 3), COUNT, RowFilter(), 0)
    assert all(set(row) == {-1, *np.flatnonzero(ALIVE)} for row in found)
    few = made.open().propose(fc7_like(2, 3), 5, RowFilter(rows=np.array([4, 8])), 0)
    assert few.tolist() == [[4, 8, -1, -1, -1]] * 2
    none = made.open().propose(fc7_like(2, 3), 2, RowFilter(rows=np.empty(0, np.int64)), 0)
    assert none.tolist() == [[-1, -1]] * 2


def test_the_nearest_are_among_those_proposed(made: Made) -> None:
    queries = fc7_like(40, 4)
    rows = made.vectors.take(np.flatnonzero(ALIVE)).astype(np.float64)
    exact = np.square(rows[None] - queries[:, None]).sum(axis=2).argsort(axis=1)[:, :6]
    found = made.open().propose(queries, 100, RowFilter(), 0)
    truth = np.flatnonzero(ALIVE)[exact]
    shares = [np.isin(t, f).mean() for t, f in zip(truth, found, strict=True)]
    assert np.mean(shares) > 0.9  # By chance: 0.29.


def test_a_seed_settles_the_codes(made: Made, tmp_path: Path) -> None:
    binary.train_binary(made.vectors, ALIVE, tmp_path, SET, quiet)
    for name in (binary.CODES_FILE, binary.ENCODER_FILE):
        assert (tmp_path / name).read_bytes() == (made.folder / name).read_bytes()


def test_answers_several_threads_alike(made: Made) -> None:
    candidates = made.open()
    queries = fc7_like(8, 5)
    queries.flags.writeable = False
    alone = candidates.propose(queries, 20, RowFilter(), 0)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: candidates.propose(queries, 20, RowFilter(), 0), range(20)):
            np.testing.assert_array_equal(found, alone)


def test_an_update_codes_anew_with_the_same_coder(made: Made, tmp_path: Path) -> None:
    more = shards(tmp_path / "new", fc7_like(COUNT + 50, 2))
    alive = np.ones(COUNT + 50, bool)
    new = tmp_path / "new"
    parameters = binary.update_binary(made.folder, more, alive, new, made.parameters, quiet)
    assert (new / binary.ENCODER_FILE).read_bytes() == (
        made.folder / binary.ENCODER_FILE
    ).read_bytes()
    candidates = binary.open_binary(new, parameters)
    query = more.take([COUNT + 20])
    assert COUNT + 20 in candidates.propose(query, 10, RowFilter(), 0)
    everything = candidates.propose(query, COUNT + 50, RowFilter(), 0)
    assert sorted(everything[0]) == list(range(COUNT + 50))


@pytest.mark.parametrize(("count", "equal"), [(1, False), (30, True)])
def test_very_few_and_equal_rows_are_coded(tmp_path: Path, count: int, equal: bool) -> None:
    rows = fc7_like(1, 1).repeat(count, axis=0) if equal else fc7_like(count, 1)
    vectors = shards(tmp_path, rows)
    parameters = binary.train_binary(vectors, None, tmp_path, SET, quiet)
    found = binary.open_binary(tmp_path, parameters).propose(rows[:1], count, RowFilter(), 0)
    assert sorted(found[0]) == list(range(count))


@pytest.mark.parametrize("name", [binary.CODES_FILE, binary.ENCODER_FILE])
@pytest.mark.parametrize("damage", ["missing", "empty", "half", "other"])
def test_damaged_files_are_refused(made: Made, tmp_path: Path, name: str, damage: str) -> None:
    for file in (binary.CODES_FILE, binary.ENCODER_FILE):
        (tmp_path / file).write_bytes((made.folder / file).read_bytes())
    whole = (tmp_path / name).read_bytes()
    if damage == "missing":
        (tmp_path / name).unlink()
    else:
        left = {"empty": b"", "half": whole[: len(whole) // 2], "other": b"x" * len(whole)}
        (tmp_path / name).write_bytes(left[damage])
    with pytest.raises(StoreError, match=name):
        binary.open_binary(tmp_path, made.parameters)


def test_files_of_another_training_are_refused(made: Made) -> None:
    with pytest.raises(StoreError, match="do not agree"):
        binary.open_binary(made.folder, {**made.parameters, "coded": 5})


def test_a_full_disk_is_told(made: Made, tmp_path: Path) -> None:
    coder = load_encoder(made.folder / binary.ENCODER_FILE)
    with pytest.raises(OSError, match="No space left"):
        binary.write_codes(coder, made.vectors, ALIVE, Path("/dev/full"), quiet)


def test_odd_wishes_are_refused(made: Made, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="64, 128, 256 bits, not 100"):
        binary.train_binary(made.vectors, ALIVE, tmp_path, EngineOptions(bits=100), quiet)
    with pytest.raises(StoreError, match="nothing to index"):
        binary.train_binary(made.vectors, np.zeros(COUNT, bool), tmp_path, SET, quiet)


def test_progress_is_told_to_its_end(made: Made, tmp_path: Path) -> None:
    told: dict[str, list[int]] = {}

    def report(name: str, total: int) -> Callable[[int], None]:
        told[name] = [total]
        return told[name].append

    binary.update_binary(made.folder, made.vectors, ALIVE, tmp_path, made.parameters, report)
    assert list(told) == ["Coding"]
    assert told["Coding"][-1] == told["Coding"][0] == COUNT
