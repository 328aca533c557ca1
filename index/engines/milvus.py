"""A version's vectors in Milvus, for what one machine cannot hold: proposes rows as FAISS does.

Every version has a collection of its own, which never changes once it is filled. A row of it is a
row of the version: its number, its vector and the classes of the images that point to it. Milvus
keeps collections by name, so whoever deletes a version drops its collection.

The address is a server's, or a file ending in .db: then Milvus Lite runs inside this process. Lite
is for trying out and for tests. One process at a time can open its file, so that the application
and `flask index build` cannot both be at work; it keeps float32, and no password protects it.
"""

import importlib.util
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import numpy as np

from index.candidates import SearchError, View
from index.manifest import MEND, StoreError
from index.members import Members
from index.vectors import Floats, Ids, Vectors
from model.alexnet import FEATURES

Answer = TypeVar("Answer")
FORM = (
    "must be http://HOST:PORT of a Milvus server, with USER:PASSWORD@ before the host and "
    "/DATABASE at the end where it needs them, https:// where it speaks TLS, or a file of Milvus "
    "Lite ending in .db"
)
PREFIX = "alexnet_"
ROW, VECTOR, CLASSES = "row", "vector", "classes"
BATCH = 1000
"""Rows sent or fetched at a time: 16 MB, a quarter of what Milvus takes in one message."""
QUERIES = 128
"""Queries sent at a time."""
MOST = 16384
"""The most rows Milvus answers a query with."""
MOST_CLASSES = 4096
"""The longest array Milvus keeps in a row."""
FLAT_UP_TO = 10_000
"""Rows that Milvus compares one by one; beyond them it builds a graph."""
GRAPH = {"M": 32, "efConstruction": 200}
NARROWEST, LEVELS = 64, 6
"""The graph's `ef` at effort 0, doubled with each effort: 64, 128 … 2048."""
CONNECTING, SEARCHING, WRITING = 5.0, 15.0, 120.0
"""Seconds until a connection, a search, and the sending of a batch count as failed."""
PAUSE = 1.0
"""Seconds in which a server that did not answer is not asked again: those who wait fail at once."""
OPENING = threading.Lock()
"""Held while a file is opened: Milvus Lite fails when two threads open the same one."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where Milvus is. As text it is without the user and the password."""

    uri: str
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    database: str = ""

    @property
    def is_file(self) -> bool:
        """Whether it is a file of Milvus Lite."""
        return "://" not in self.uri

    def __str__(self) -> str:
        return f"{self.uri}/{self.database}" if self.database else self.uri


def parse_url(text: str) -> Address:
    """Read `INDEX_URL`. Raises ValueError: what it must be, to be said after the setting's name."""
    if "://" not in text:
        if not re.search(r"[^/]\.db$", text):
            raise ValueError(FORM)
        return Address(uri=text)
    try:
        parts = urlsplit(text)
        port = parts.port or (443 if parts.scheme == "https" else 19530)
    except ValueError:
        raise ValueError(FORM) from None
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if (
        parts.scheme not in ("http", "https")
        or not re.fullmatch(r"[A-Za-z0-9._-]+", parts.hostname or "")
        or not re.fullmatch(r"/?[A-Za-z0-9_]*", parts.path)
        or parts.query
        or parts.fragment
        or bool(user) != bool(password)
    ):
        raise ValueError(FORM)
    return Address(
        uri=f"{parts.scheme}://{parts.hostname}:{port}",
        user=user,
        password=password,
        database=parts.path.strip("/"),
    )


def collection_of(name: str) -> str:
    """The collection of a version; Milvus allows letters, digits and _ only."""
    return PREFIX + re.sub(r"[^A-Za-z0-9]", "_", name)


def fill(
    url: str,
    name: str,
    vectors: Vectors,
    members: Members,
    report: Callable[[int], None] | None = None,
    *,
    kind: str = "",
) -> dict[str, Any]:
    """Put a version's vectors into a collection and give the parameters of its manifest.

    Whatever has the version's name there is dropped first. `report` is told how many rows are
    there. kind: FLAT or HNSW, by the number of rows when empty. Raises SearchError when Milvus
    cannot be reached or refuses, and StoreError when rows are missing at the end; then nothing
    stays, unless Milvus is gone or this process is killed: drop the name, or fill it again.
    """
    collection, count, address = collection_of(name), len(members.distinct), parse_url(url)
    # Lite keeps float32 only.
    half = vectors.dtype == "float16" and not address.is_file
    parameters: dict[str, Any] = {
        "index": kind or ("FLAT" if count <= FLAT_UP_TO or address.is_file else "HNSW"),
        "dtype": "float16" if half else "float32",
        "rows": count,
    }
    with closing(connect(address)) as client, told(address):
        client.drop_collection(collection, timeout=WRITING)
        try:
            create(client, collection, members, half)
            insert(client, collection, vectors, members, half, report or (lambda rows: None))
            client.flush(collection)
            make_index(client, collection, parameters["index"])
            client.load_collection(collection)
            if (found := counted(client, collection)) != count:
                raise StoreError(f"{address} holds {found:,} of {count:,} rows; {MEND}")
        except BaseException:
            with suppress(Exception):
                client.drop_collection(collection, timeout=CONNECTING)
            raise
    return parameters


def create(client: Any, collection: str, members: Members, half: bool) -> None:
    """Make an empty collection."""
    kinds = library().DataType
    shared = int(np.unique(members.rows, return_counts=True)[1].max(initial=1))
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field(ROW, kinds.INT64, is_primary=True)
    schema.add_field(VECTOR, kinds.FLOAT16_VECTOR if half else kinds.FLOAT_VECTOR, dim=FEATURES)
    schema.add_field(
        CLASSES, kinds.ARRAY, element_type=kinds.INT64, max_capacity=min(shared, MOST_CLASSES)
    )
    client.create_collection(collection, schema=schema, consistency_level="Strong", timeout=WRITING)


def insert(
    client: Any,
    collection: str,
    vectors: Vectors,
    members: Members,
    half: bool,
    report: Callable[[int], None],
) -> None:
    """Send the rows that an image points to, a batch at a time."""
    done = 0
    for start, values in vectors.chunks(BATCH):
        first, end = np.searchsorted(members.distinct, [start, start + len(values)])
        rows = members.distinct[first:end]
        if not len(rows):
            continue
        sent = values[rows - start].astype(np.float16 if half else np.float32, copy=False)
        classes = classes_of(members, rows)
        records = [
            {ROW: row, VECTOR: vector, CLASSES: own}
            for row, vector, own in zip(rows.tolist(), sent, classes, strict=True)
        ]
        client.insert(collection, records, timeout=WRITING)
        done += len(rows)
        report(done)


def classes_of(members: Members, rows: Ids) -> list[list[int]]:
    """The classes of the images that point to each row, rising."""
    first = np.searchsorted(members.rows, rows, side="left").tolist()
    end = np.searchsorted(members.rows, rows, side="right").tolist()
    return [np.unique(members.classes[a:b]).tolist() for a, b in zip(first, end, strict=True)]


def make_index(client: Any, collection: str, kind: str) -> None:
    """Build the index over the vectors and wait for it."""
    wanted = client.prepare_index_params()
    settings = GRAPH if kind == "HNSW" else {}
    wanted.add_index(VECTOR, index_type=kind, metric_type="L2", params=settings)
    client.create_index(collection, wanted)


def counted(client: Any, collection: str) -> int:
    """How many rows a loaded collection holds."""
    found = client.query(
        collection, output_fields=["count(*)"], consistency_level="Strong", timeout=WRITING
    )
    return int(found[0]["count(*)"])


class MilvusCandidates:
    """A version's collection, asked. Connects when it is first asked, and anew after a failure."""

    def __init__(self, address: Address, collection: str, parameters: dict[str, Any]) -> None:
        self.address, self.collection = address, collection
        self.graph = parameters.get("index") == "HNSW"
        self.kind = np.dtype(parameters.get("dtype", "float32"))
        self.levels, self.exhaustive = (LEVELS, False) if self.graph else (1, True)
        self.lock = threading.Lock()
        self.client: Any = None
        self.loaded = False
        self.asked_again_at = 0.0

    def propose(self, queries: Floats, count: int, view: View, effort: int) -> Ids:
        """Rows near each query: float32 [N, 4096] → int64 [N, count], −1 where there are fewer.

        Only rows of the view's classes; its rows and the image left out are the caller's to see to.
        Raises SearchError.
        """
        found = np.full((len(queries), count), -1, np.int64)
        limit = min(count, MOST)
        if limit < 1 or (view.classes is not None and not view.classes):
            return found
        settings = {"ef": max(NARROWEST << effort, limit)} if self.graph else {}
        for start in range(0, len(queries), QUERIES):
            part = list(np.ascontiguousarray(queries[start : start + QUERIES], self.kind))
            for place, rows in enumerate(self.search(part, limit, view.classes, settings), start):
                found[place, : len(rows)] = rows
        return found

    def search(
        self,
        queries: list[Any],
        limit: int,
        classes: tuple[int, ...] | None,
        settings: dict[str, int],
    ) -> list[Any]:
        """What Milvus finds: a list of rows for each query, nearest first. Raises SearchError."""

        def search(client: Any) -> list[Any]:
            hits = client.search(
                self.collection,
                data=queries,
                anns_field=VECTOR,
                limit=limit,
                filter=within(classes),
                output_fields=[ROW],
                search_params={"metric_type": "L2", "params": settings},
                consistency_level="Strong",
                timeout=SEARCHING,
            )
            return [hit.ids for hit in hits]

        return self.ask(search)

    def take(self, rows: Any) -> Floats:
        """The vectors of these rows, in this order: int64 [n] → float32 [n, 4096].

        Raises SearchError, also when a row is not there.
        """
        wanted = np.asarray(rows, np.int64)
        distinct, places = np.unique(wanted, return_inverse=True)
        values = np.empty((len(distinct), FEATURES), np.float32)
        for start in range(0, len(distinct), BATCH):
            records = self.records(distinct[start : start + BATCH], VECTOR)
            for place, record in enumerate(records, start):
                values[place] = as_vector(record[VECTOR])
        return values[places]

    def records(self, rows: Ids, *fields: str) -> list[dict[str, Any]]:
        """These fields of rows, distinct and rising. Raises SearchError."""
        found = self.ask(
            lambda client: client.query(
                self.collection,
                ids=rows.tolist(),
                output_fields=[ROW, *fields],
                consistency_level="Strong",
                timeout=SEARCHING,
            )
        )
        records = sorted(found, key=lambda record: int(record[ROW]))
        if [record[ROW] for record in records] != rows.tolist():
            raise SearchError(
                f"Milvus at {self.address}: {self.collection} lacks rows, "
                f"it gave {len(records):,} of {len(rows):,}"
            )
        return records

    def count(self) -> int:
        """How many rows the collection holds. Raises SearchError."""
        return self.ask(lambda client: counted(client, self.collection))

    def ask(self, question: Callable[[Any], Answer]) -> Answer:
        """Put a question to Milvus; after a failure the next one begins with connecting."""
        client = self.ready()
        try:
            with told(self.address):
                return question(client)
        except SearchError:
            self.loaded = False
            raise

    def ready(self) -> Any:
        """The connection, with the collection loaded. Raises SearchError."""
        with self.lock:
            if self.loaded:
                return self.client
            if time.monotonic() < self.asked_again_at:
                raise SearchError(f"Milvus at {self.address} did not answer a moment ago")
            try:
                self.client = self.client or connect(self.address)
                with told(self.address):
                    self.client.load_collection(self.collection, timeout=SEARCHING)
            except SearchError:
                self.asked_again_at = time.monotonic() + PAUSE
                raise
            self.loaded = True
            return self.client

    def close(self) -> None:
        """End the connection; a later question opens it again."""
        with self.lock:
            if self.client:
                self.client.close()
            self.client, self.loaded = None, False


def open_milvus(url: str, name: str, parameters: dict[str, Any]) -> MilvusCandidates:
    """A version's collection by its manifest's parameters; does not connect yet.

    Raises ValueError for a wrong address.
    """
    return MilvusCandidates(parse_url(url), collection_of(name), parameters)


def collections(url: str) -> list[str]:
    """The collections of versions that are there, by name. Raises SearchError."""
    address = parse_url(url)
    with closing(connect(address)) as client, told(address):
        found = client.list_collections(timeout=SEARCHING)
    return sorted(name for name in found if name.startswith(PREFIX))


def count(url: str, name: str) -> int:
    """How many rows a version's collection holds. Raises SearchError."""
    with closing(open_milvus(url, name, {})) as engine:
        return engine.count()


def drop(url: str, names: Iterable[str]) -> None:
    """Delete the collections of versions, as far as they are there. Raises SearchError."""
    address = parse_url(url)
    with closing(connect(address)) as client, told(address):
        for name in names:
            client.drop_collection(collection_of(name), timeout=WRITING)


def check(url: str, name: str, vectors: Vectors, members: Members, sample: int = 64) -> None:
    """See that a collection holds a version's rows, and a sample of them equal to the shards'.

    Raises StoreError where they differ, and SearchError.
    """
    mend = f"Milvus at {parse_url(url)}: {collection_of(name)}"
    rows = members.distinct
    with closing(open_milvus(url, name, {})) as engine:
        if (found := engine.count()) != len(rows):
            raise StoreError(f"{mend} holds {found:,} rows and not {len(rows):,}; {MEND}")
        some = rows[np.unique(np.linspace(0, len(rows) - 1, min(sample, len(rows)), dtype=int))]
        if not np.array_equal(engine.take(some), vectors.take(some)):
            raise StoreError(f"{mend} holds other vectors than the shards; {MEND}")
        found_classes = [sorted(record[CLASSES]) for record in engine.records(some, CLASSES)]
        if found_classes != classes_of(members, some):
            raise StoreError(f"{mend} holds other classes than the version; {MEND}")


def within(classes: tuple[int, ...] | None) -> str:
    """Milvus's expression for rows of one of these classes; empty for all rows."""
    if classes is None:
        return ""
    return f"array_contains_any({CLASSES}, {[int(number) for number in classes]})"


def as_vector(value: Any) -> Any:
    """A vector as Milvus gives it: float16 as bytes, float32 as a list of numbers."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return np.frombuffer(value, "<f2") if isinstance(value, bytes) else value


def connect(address: Address) -> Any:
    """A client that has reached Milvus. Raises SearchError."""
    client = library().MilvusClient
    if address.is_file and not importlib.util.find_spec("milvus_lite"):
        # Its faiss-cpu would overwrite the files of faiss-gpu.
        raise SearchError(
            f"{address} is a file of Milvus Lite, which is not installed: "
            "`pip install pyarrow` and `pip install --no-deps milvus-lite`"
        )
    with told(address), OPENING if address.is_file else nullcontext():
        return client(
            uri=address.uri,
            user=address.user,
            password=address.password,
            db_name=address.database,
            timeout=CONNECTING,
            dedicated=True,
        )


def library() -> Any:
    """Pymilvus, which is installed for this alone. Raises SearchError."""
    try:
        import pymilvus
    except ImportError as error:
        raise SearchError("INDEX_URL needs pymilvus: `pip install pymilvus`") from error
    # It prints a page for every error that it also raises.
    for name in ("pymilvus", "pymilvus.milvus_client", "milvus_lite"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return pymilvus


@contextmanager
def told(address: Address) -> Iterator[None]:
    """Turn the errors of pymilvus and of gRPC into a SearchError of one line, without password."""
    import grpc
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except MilvusException as error:
        raise SearchError(line(address, str(error.message), error.code)) from error
    except grpc.RpcError as error:
        raise SearchError(line(address, str(error), "gRPC")) from error


def line(address: Address, text: str, code: Any) -> str:
    """What went wrong in one line."""
    if address.is_file and "Open local milvus failed" in text:
        text = (
            "it cannot be opened. One process at a time can, so the application or a build may "
            "have it; with `milvus-lite server` several can, by http://"
        )
    text = " ".join(text.split())[:300]
    if address.password:
        text = text.replace(address.password, "***")
    return f"Milvus at {address}: {text} ({code})"
