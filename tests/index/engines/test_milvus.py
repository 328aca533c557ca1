"""Milvus behind the same interface, against Milvus Lite: in a file, and as a server over gRPC."""

import logging
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.engines import milvus_collections, milvus_server
from index.engines.milvus import MilvusSearch, open_collection
from index.engines.milvus_address import parse_milvus_url
from index.engines.protocol import RowFilter, SearchError
from index.id_map import IdMap
from index.manifest import StoreError
from index.vectors import Floats, Vectors, write_shard
from model.network.config import FEATURES

NAME = "20260101T000000000000Z-0123abcd"
EVERYTHING = RowFilter()
DEAD = 7
"""A row that no image points to."""


@dataclass(frozen=True)
class Version:
    """A version's vectors on disk, its images, and the same vectors in memory."""

    vectors: Vectors
    members: IdMap
    values: Floats

    def nearest(self, queries: Floats, count: int, classes: tuple[int, ...] | None = None) -> Any:
        """The rows nearest to each query, by comparing with every vector in float64."""
        images = self.members if classes is None else self.members.filter_by_class(classes)
        rows = images.live_rows
        apart = queries[:, None, :].astype(np.float64) - self.values[rows]
        return rows[np.argsort(np.square(apart).sum(axis=2), axis=1, kind="stable")[:, :count]]


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Version:
    """60 rows in two shards, float16: row i has class i mod 5, and row 3 has class 9 as well."""
    folder = tmp_path_factory.mktemp("version")
    rng = np.random.default_rng(5)
    values = np.maximum(rng.normal(size=(60, FEATURES)), 0).astype(np.float16).astype(np.float32)
    shards = [
        write_shard(folder / "vectors-0.npy", [values[:40]], "float16"),
        write_shard(folder / "vectors-1.npy", [values[40:]], "float16"),
    ]
    rows = np.array([*(row for row in range(60) if row != DEAD), 3, 3], np.int64)
    classes = np.array([*(rows[:-2] % 5), 9, 9], np.int32)
    vectors = Vectors(folder, shards, "float16")
    return Version(vectors, IdMap(np.arange(1, len(rows) + 1), rows, classes), values)


@pytest.fixture(scope="module")
def queries(version: Version) -> Floats:
    """Vectors near those of the version, and one of them itself."""
    noise = np.random.default_rng(6).normal(scale=0.1, size=(5, FEATURES)).astype(np.float32)
    return np.concatenate([version.values[10:11], version.values[:5] + noise])


@pytest.fixture(scope="module")
def lite() -> Any:
    """Milvus Lite, where it is installed."""
    pytest.importorskip("pymilvus", reason="pymilvus is not installed")
    return pytest.importorskip("milvus_lite.server_manager", reason="milvus-lite is not installed")


@pytest.fixture(scope="module")
def url(lite: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A file of Milvus Lite."""
    file = str(tmp_path_factory.mktemp("lite") / "features.db")
    yield file
    lite.server_manager_instance.release_server(file)


@pytest.fixture(scope="module")
def filled(url: str, version: Version) -> dict[str, Any]:
    """The parameters of the version, which is in Milvus."""
    told: list[int] = []
    parameters = milvus_collections.fill_collection(
        url, NAME, version.vectors, version.members, told.append
    )
    assert told == [39, 59]
    return parameters


@pytest.fixture
def engine(url: str, filled: dict[str, Any]) -> Iterator[MilvusSearch]:
    """The version in Milvus, opened."""
    engine = open_collection(url, NAME, filled)
    yield engine
    engine.close()


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize(
    ("text", "uri", "database"),
    [
        ("http://host:19530", "http://host:19530", ""),
        ("http://host", "http://host:19530", ""),
        ("https://cloud.example.com", "https://cloud.example.com:443", ""),
        ("https://cloud.example.com:19540/photographs", "https://cloud.example.com:19540", None),
        ("var/features.db", "var/features.db", ""),
    ],
)
def test_an_address_is_read(text: str, uri: str, database: str | None) -> None:
    address = parse_milvus_url(text)
    assert address.uri == uri
    assert address.database == ("photographs" if database is None else database)
    assert address.is_file == text.endswith(".db")


def test_a_password_is_read_and_never_shown() -> None:
    address = parse_milvus_url("http://root:p%40ss@host:19530/db1")
    assert (address.user, address.password) == ("root", "p@ss")
    assert "p@ss" not in f"{address} {address!r}"
    assert str(address) == "http://host:19530/db1"
    assert "p@ss" not in milvus_server.format_milvus_error(
        address, "token root:p@ss is wrong", 65535
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".db",
        "features.sqlite",
        "ftp://host:19530",
        "tcp://host:19530",
        "http://",
        "http://host:port",
        "http://host:99999",
        "http://host:19530/a/b",
        "http://host:19530/a.db",
        "http://host:19530?x=1",
        "http://us er@host:19530",
        "http://root:secret@:19530",
        "http://root@host:19530",
    ],
)
def test_a_wrong_address_is_told_without_its_password(text: str) -> None:
    with pytest.raises(ValueError, match="must be http://HOST:PORT") as told:
        parse_milvus_url(text)
    assert "secret" not in str(told.value)


@pytest.mark.parametrize("count", [1, 6, 59, 200])
def test_the_nearest_rows_are_those_of_brute_force(
    engine: MilvusSearch, version: Version, queries: Floats, count: int
) -> None:
    rows = engine.propose(queries, count, EVERYTHING, 0)
    assert rows.shape == (len(queries), count)
    assert rows.dtype == np.int64
    truth = version.nearest(queries, count)
    there = truth.shape[1]
    assert np.array_equal(np.sort(rows[:, :there]), np.sort(truth))
    assert (rows[:, there:] == -1).all()
    assert DEAD not in rows
    assert rows[0, 0] == 10


@pytest.mark.parametrize("classes", [(2,), (9,), (0, 4, 9), (77,), ()])
def test_only_rows_of_the_classes_are_proposed(
    engine: MilvusSearch, version: Version, queries: Floats, classes: tuple[int, ...]
) -> None:
    rows = engine.propose(queries, 8, RowFilter(classes=classes), 0)
    truth = version.nearest(queries, 8, classes)
    for found, wanted in zip(rows, truth, strict=True):
        assert sorted(found[found >= 0]) == sorted(wanted)


def test_a_large_batch_is_each_query_alone(engine: MilvusSearch, version: Version) -> None:
    queries = np.tile(version.values[:50], (3, 1))
    rows = engine.propose(queries, 4, EVERYTHING, 0)
    assert np.array_equal(rows[:50, 0], [r if r != DEAD else rows[DEAD, 0] for r in range(50)])
    assert np.array_equal(rows[:50], rows[100:])


def test_a_graph_proposes_nearly_all_of_the_nearest(
    url: str, version: Version, queries: Floats
) -> None:
    parameters = milvus_collections.fill_collection(
        url, "graph", version.vectors, version.members, kind="HNSW"
    )
    engine = open_collection(url, "graph", parameters)
    assert engine.levels > 1
    truth = version.nearest(queries, 6)
    for effort in (0, engine.levels - 1):
        rows = engine.propose(queries, 6, EVERYTHING, effort)
        shares = [len(np.intersect1d(a, b)) / 6 for a, b in zip(rows, truth, strict=True)]
        assert np.mean(shares) >= 0.9
    engine.close()
    milvus_collections.drop_collections(url, ["graph"])


def test_vectors_come_back_as_the_shards_hold_them(engine: MilvusSearch, version: Version) -> None:
    rows = [59, 0, 3, 3, 41, 12]
    taken = engine.take(rows)
    assert taken.dtype == np.float32
    assert np.array_equal(taken, version.vectors.take(rows))
    assert engine.take([]).shape == (0, FEATURES)
    with pytest.raises(SearchError, match="lacks rows"):
        engine.take([1, DEAD])


def test_threads_share_a_connection(
    engine: MilvusSearch, version: Version, queries: Floats
) -> None:
    alone = engine.propose(queries, 6, EVERYTHING, 0)
    with ThreadPoolExecutor(4) as pool:
        for rows in pool.map(lambda _: engine.propose(queries, 6, EVERYTHING, 0), range(12)):
            assert np.array_equal(rows, alone)


def test_filling_twice_is_whole(url: str, version: Version) -> None:
    for _ in range(2):
        milvus_collections.fill_collection(url, "twice", version.vectors, version.members)
        assert milvus_collections.count_version_rows(url, "twice") == 59
        milvus_collections.verify_collection(url, "twice", version.vectors, version.members)
    milvus_collections.drop_collections(url, ["twice"])


def test_a_fill_that_fails_leaves_nothing(url: str, filled: object, version: Version) -> None:
    def stop(rows: int) -> None:
        raise KeyboardInterrupt

    before = milvus_collections.list_collections(url)
    with pytest.raises(KeyboardInterrupt):
        milvus_collections.fill_collection(url, "stopped", version.vectors, version.members, stop)
    assert milvus_collections.list_collections(url) == before


def test_a_difference_from_the_version_is_found(url: str, filled: object, version: Version) -> None:
    images = version.members
    milvus_collections.verify_collection(url, NAME, version.vectors, images)
    fewer = IdMap(images.ids[5:], images.rows[5:], images.classes[5:])
    with pytest.raises(StoreError, match="holds 59 rows"):
        milvus_collections.verify_collection(url, NAME, version.vectors, fewer)
    with pytest.raises(StoreError, match="other classes"):
        milvus_collections.verify_collection(
            url, NAME, version.vectors, IdMap(images.ids, images.rows, images.classes + 1)
        )
    with pytest.raises(StoreError, match="other vectors"):
        milvus_collections.verify_collection(url, NAME, Swapped(version.vectors), images)  # type: ignore[arg-type]


class Swapped:
    """The shards with the numbers of each vector in another order."""

    def __init__(self, vectors: Vectors) -> None:
        self.vectors = vectors

    def take(self, rows: Any) -> Floats:
        """Vectors that are not those of the rows."""
        return self.vectors.take(rows)[:, ::-1]


def test_a_version_that_was_dropped_is_an_error(
    url: str, version: Version, queries: Floats
) -> None:
    parameters = milvus_collections.fill_collection(url, "old", version.vectors, version.members)
    engine = open_collection(url, "old", parameters)
    engine.propose(queries, 1, EVERYTHING, 0)
    milvus_collections.drop_collections(url, ["old", "never-there"])
    assert milvus_server.name_collection("old") not in milvus_collections.list_collections(url)
    for _ in range(2):
        with pytest.raises(SearchError, match="alexnet_old"):
            engine.propose(queries, 1, EVERYTHING, 0)
    engine.close()


def test_a_file_that_another_process_has_is_told(lite: object, tmp_path: Path) -> None:
    file = str(tmp_path / "features.db")
    holding = (
        "import sys; from milvus_lite.db import MilvusLite; "
        "held = MilvusLite(sys.argv[1]); print('open', flush=True); input()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", holding, file], text=True, **pipes) as other:
        assert other.stdout
        assert other.stdout.readline() == "open\n"
        with pytest.raises(SearchError, match="one process at a time"):
            milvus_collections.list_collections(file)
        other.communicate("\n")


def test_nobody_listening_is_told_at_once(lite: object, queries: Floats) -> None:
    url = f"http://root:secret@127.0.0.1:{free_port()}"
    engine = open_collection(url, NAME, {})
    start = time.monotonic()
    for _ in range(3):
        with pytest.raises(SearchError, match=r"Milvus at http://127\.0\.0\.1:\d+") as told:
            engine.propose(queries, 6, EVERYTHING, 0)
        assert "secret" not in str(told.value)
        assert "\n" not in str(told.value)
    with pytest.raises(SearchError, match="Milvus at"):
        milvus_collections.drop_collections(url, [NAME])
    assert time.monotonic() - start < 6 * milvus_server.CONNECT_TIMEOUT


def test_a_server_that_never_answers_is_given_up(
    lite: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milvus_server, "CONNECT_TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        with pytest.raises(SearchError, match="Milvus at"):
            milvus_collections.count_version_rows(
                f"http://127.0.0.1:{silent.getsockname()[1]}", NAME
            )
        assert time.monotonic() - start < 30


def test_a_server_that_was_away_is_found_again(
    lite: object, version: Version, queries: Floats, tmp_path: Path
) -> None:
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    server, kept, port = start_server_in_thread(str(tmp_path / "data"))
    url = f"http://127.0.0.1:{port}"
    engine = open_collection(url, NAME, {})
    # Lite has no float16.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(version.vectors, "dtype", "float32")
        milvus_collections.fill_collection(url, NAME, version.vectors, version.members)
    before = engine.propose(queries, 6, EVERYTHING, 0)
    server.stop(0).wait()
    kept.close()
    for _ in range(2):
        with pytest.raises(SearchError, match=url):
            engine.propose(queries, 6, EVERYTHING, 0)
    server, kept, _ = start_server_in_thread(str(tmp_path / "data"), port=port)
    until = time.monotonic() + 60
    while True:
        try:
            after = engine.propose(queries, 6, EVERYTHING, 0)
            break
        except SearchError:
            assert time.monotonic() < until
            time.sleep(0.2)
    assert np.array_equal(after, before)
    engine.close()
    server.stop(0).wait()
    kept.close()


def test_without_pymilvus_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(SearchError, match="pip install pymilvus"):
        milvus_collections.list_collections("http://127.0.0.1:1")


def test_without_milvus_lite_the_command_is_named(
    lite: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "milvus_lite", None)
    with pytest.raises(SearchError, match="pip install --no-deps milvus-lite"):
        milvus_collections.list_collections(str(tmp_path / "features.db"))


def test_pymilvus_is_quiet(engine: MilvusSearch, queries: Floats, capfd: Any) -> None:
    with pytest.raises(SearchError):
        engine.propose(queries[:, :5], 6, EVERYTHING, 0)
    assert logging.getLogger("pymilvus").getEffectiveLevel() == logging.CRITICAL
    assert "Traceback" not in capfd.readouterr().err
    assert (engine.propose(queries, 6, EVERYTHING, 0) >= 0).all()
