"""Codes of an autoencoder: what they propose is what comparing all codes gives."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from index.damage import DamageError
from index.engines import autoencoder
from index.engines.autoencoder import load_encoder
from index.engines.binary import (
    CODES_FILE,
    ENCODER_FILE,
    BinaryCodeSearch,
    open_binary,
    train_binary,
    update_binary,
    write_codes,
)
from index.engines.options import EngineOptions
from index.engines.protocol import EarlierEngine, RowFilter, VersionData
from index.manifest import StoreError
from index.vectors import Vectors, write_shard
from model.network.config import FEATURES
from storage.progress import ignore_progress

Floats = npt.NDArray[np.float32]
Open = Callable[..., Vectors]
VersionOf = Callable[..., VersionData]
COUNT = 400
LIVE = np.flatnonzero(np.arange(COUNT) % 7 != 3)
OPTIONS = EngineOptions(bits=64, seed=1)


def fc7_like(count: int, seed: int) -> Floats:
    """Vectors in eight clusters, spread along 20 directions."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(8, FEATURES))
    along = np.random.default_rng(1).normal(size=(20, FEATURES))
    places = centres[np.arange(count) % 8] + 0.3 * rng.normal(size=(count, 20)) @ along
    return np.maximum(places, 0).astype(np.float32)


@dataclass(frozen=True)
class Trained:
    """Codes that were trained for a version."""

    version: VersionData
    parameters: dict[str, Any]

    def open(self) -> BinaryCodeSearch:
        return open_binary(self.version, self.parameters)


@pytest.fixture(autouse=True, scope="module")
def _few_steps() -> Any:
    """Training in as few steps as there may be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(autoencoder, "MIN_MAX_STEPS", (40, 40))
        yield


@pytest.fixture(scope="module")
def trained(
    open_vectors: Open, version_of: VersionOf, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    folder = tmp_path_factory.mktemp("binary")
    version = version_of(folder, open_vectors(folder, fc7_like(COUNT, 2)), LIVE)
    return Trained(version, train_binary(version, OPTIONS, ignore_progress))


def differing_bits(trained: Trained, queries: Floats) -> npt.NDArray[np.int64]:
    """How many bits differ, by counting them: [queries, rows]."""
    encoder = load_encoder(trained.version.folder / ENCODER_FILE)
    rows = trained.version.vectors.take(np.arange(COUNT))
    apart = encoder.encode(queries)[:, None] ^ encoder.encode(rows)[None]
    return np.unpackbits(apart, axis=2).sum(axis=2, dtype=np.int64)


def test_the_rows_with_the_fewest_differing_bits_are_proposed(trained: Trained) -> None:
    queries = fc7_like(20, 3)
    proposed = trained.open().propose(queries, 30, RowFilter())
    assert (proposed.shape, proposed.dtype) == ((20, 30), np.int64)
    for apart, found in zip(differing_bits(trained, queries), proposed, strict=True):
        assert len(set(found)) == 30
        assert np.isin(found, LIVE).all()
        # Which rows at the last distance are proposed is open.
        assert sorted(apart[found]) == sorted(apart[LIVE])[:30]


def test_too_few_rows_are_padded(trained: Trained) -> None:
    engine, queries = trained.open(), fc7_like(2, 3)
    assert all(set(r) == {-1, *LIVE} for r in engine.propose(queries, COUNT, RowFilter()))


def test_the_nearest_are_among_those_proposed(trained: Trained) -> None:
    queries = fc7_like(40, 4)
    rows = trained.version.vectors.take(LIVE).astype(np.float64)
    squared = np.square(rows).sum(axis=1) - 2 * queries.astype(np.float64) @ rows.T
    truth = LIVE[squared.argsort(axis=1)[:, :6]]
    proposed = trained.open().propose(queries, 100, RowFilter())
    shares = [np.isin(t, p).mean() for t, p in zip(truth, proposed, strict=True)]
    assert np.mean(shares) > 0.9  # By chance: 0.29.


def test_a_seed_gives_the_same_codes(trained: Trained, tmp_path: Path) -> None:
    train_binary(replace(trained.version, folder=tmp_path), OPTIONS, ignore_progress)
    for name in (CODES_FILE, ENCODER_FILE):
        assert (tmp_path / name).read_bytes() == (trained.version.folder / name).read_bytes()


def test_threads_get_the_same_answers(trained: Trained) -> None:
    engine, queries = trained.open(), fc7_like(8, 5)
    queries.flags.writeable = False
    alone = engine.propose(queries, 20, RowFilter())
    with ThreadPoolExecutor(4) as pool:
        for proposed in pool.map(lambda _: engine.propose(queries, 20, RowFilter()), range(20)):
            np.testing.assert_array_equal(proposed, alone)


def test_an_update_encodes_new_rows_with_the_same_encoder(
    trained: Trained, version_of: VersionOf, tmp_path: Path
) -> None:
    vectors, before = trained.version.vectors, trained.version.folder
    shard = write_shard(before / "added.npy", [fc7_like(50, 7)], "float16")
    # Ten have gone, and those that had no code come to life.
    live = np.arange(10, COUNT + 50)
    folder = tmp_path / "new"
    version = version_of(folder, Vectors(before, [*vectors.shards, shard], "float16"), live)
    reported: dict[str, list[int]] = {}

    def report(name: str, total: int) -> Callable[[int], None]:
        return reported.setdefault(name, [total]).append

    earlier = EarlierEngine(folder=before, shards=vectors.shards, parameters=trained.parameters)
    parameters = update_binary(version, earlier, report)
    assert (folder / ENCODER_FILE).read_bytes() == (before / ENCODER_FILE).read_bytes()
    ((total, *done),) = reported.values()
    assert done[-1] == total == len(np.setdiff1d(live, LIVE))

    # The codes are those that the encoder gives for all rows.
    codes = load_encoder(folder / ENCODER_FILE).encode(version.vectors.take(live))
    write_codes(codes, live, tmp_path / "expected")
    assert (folder / CODES_FILE).read_bytes() == (tmp_path / "expected").read_bytes()
    assert open_binary(version, parameters).codes.ntotal == len(live)


@pytest.mark.parametrize(("count", "equal"), [(1, False), (30, True)])
def test_very_few_and_equal_rows_are_encoded(
    count: int, equal: bool, open_vectors: Open, version_of: VersionOf, tmp_path: Path
) -> None:
    rows = fc7_like(1, 1).repeat(count, axis=0) if equal else fc7_like(count, 1)
    version = version_of(tmp_path, open_vectors(tmp_path, rows))
    engine = open_binary(version, train_binary(version, OPTIONS, ignore_progress))
    assert sorted(engine.propose(rows[:1], count, RowFilter())[0]) == list(range(count))


@pytest.mark.parametrize("name", [CODES_FILE, ENCODER_FILE])
def test_damaged_files_are_refused(trained: Trained, tmp_path: Path, name: str) -> None:
    for file in (CODES_FILE, ENCODER_FILE):
        (tmp_path / file).write_bytes((trained.version.folder / file).read_bytes())
    whole = (tmp_path / name).read_bytes()
    version = replace(trained.version, folder=tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(StoreError, match=name):
        open_binary(version, trained.parameters)
    for damaged in (b"", whole[: len(whole) // 2], b"x" * len(whole)):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(StoreError, match=name):
            open_binary(version, trained.parameters)


def test_codes_that_were_cut_short_are_not_touched(trained: Trained, tmp_path: Path) -> None:
    for file in (CODES_FILE, ENCODER_FILE):
        (tmp_path / file).write_bytes((trained.version.folder / file).read_bytes())
    engine = open_binary(replace(trained.version, folder=tmp_path), trained.parameters)
    os.truncate(tmp_path / CODES_FILE, 10)
    with pytest.raises(DamageError, match=CODES_FILE):
        engine.propose(fc7_like(1, 3), 5, RowFilter())


def test_files_of_another_training_are_refused(trained: Trained) -> None:
    with pytest.raises(StoreError, match=str(trained.version.folder)):
        open_binary(trained.version, {**trained.parameters, "coded": 5})


def test_a_full_disk_is_an_os_error(trained: Trained) -> None:
    codes = np.zeros((len(LIVE), 8), np.uint8)
    with pytest.raises(OSError, match="No space left"):
        write_codes(codes, LIVE, Path("/dev/full"))


def test_an_unsupported_number_of_bits_is_refused(trained: Trained) -> None:
    with pytest.raises(StoreError, match="64, 128, 256, not 100"):
        train_binary(trained.version, EngineOptions(bits=100), ignore_progress)
