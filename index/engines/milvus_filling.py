"""A version's vectors sent to Milvus, checked there, and dropped.

Every version has a collection of its own, which never changes once it is filled. A row of it is a
row of the version: its number, its vector and the classes of the images that point to it.
"""

from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from typing import Any

import numpy as np

from index.engines.milvus import open_milvus
from index.engines.milvus_server import (
    CLASSES_FIELD,
    COLLECTION_PREFIX,
    CONNECT_TIMEOUT,
    ROW_FIELD,
    SEARCH_TIMEOUT,
    VECTOR_FIELD,
    WRITE_TIMEOUT,
    collection_name,
    connect,
    count_rows,
    import_pymilvus,
    milvus_errors,
    parse_milvus_url,
)
from index.id_map import IdMap
from index.manifest import REBUILD_HINT, StoreError
from index.vectors import Ids, Vectors
from model.config import FEATURES

ROWS_PER_INSERT = 1000
"""Rows sent or fetched at a time: 16 MB, a quarter of what Milvus takes in one message."""
MAX_CLASSES_PER_ROW = 4096
"""The longest array Milvus keeps in a row."""
MAX_FLAT_ROWS = 10_000
"""Rows that Milvus compares one by one; beyond them it builds a graph."""
HNSW_PARAMETERS = {"M": 32, "efConstruction": 200}


def fill_collection(
    url: str,
    name: str,
    vectors: Vectors,
    members: IdMap,
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
    collection, count, address = (
        collection_name(name),
        len(members.live_rows),
        parse_milvus_url(url),
    )
    # Lite keeps float32 only.
    half = vectors.dtype == "float16" and not address.is_file
    parameters: dict[str, Any] = {
        "index": kind or ("FLAT" if count <= MAX_FLAT_ROWS or address.is_file else "HNSW"),
        "dtype": "float16" if half else "float32",
        "rows": count,
    }
    with closing(connect(address)) as client, milvus_errors(address):
        client.drop_collection(collection, timeout=WRITE_TIMEOUT)
        try:
            create_collection(client, collection, members, half)
            insert_vectors(
                client, collection, vectors, members, half, report or (lambda rows: None)
            )
            client.flush(collection)
            build_vector_index(client, collection, parameters["index"])
            client.load_collection(collection)
            if (found := count_rows(client, collection)) != count:
                raise StoreError(f"{address} holds {found:,} of {count:,} rows; {REBUILD_HINT}")
        except BaseException:
            with suppress(Exception):
                client.drop_collection(collection, timeout=CONNECT_TIMEOUT)
            raise
    return parameters


def create_collection(client: Any, collection: str, members: IdMap, half: bool) -> None:
    """Make an empty collection."""
    kinds = import_pymilvus().DataType
    shared = int(np.unique(members.rows, return_counts=True)[1].max(initial=1))
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field(ROW_FIELD, kinds.INT64, is_primary=True)
    schema.add_field(
        VECTOR_FIELD, kinds.FLOAT16_VECTOR if half else kinds.FLOAT_VECTOR, dim=FEATURES
    )
    schema.add_field(
        CLASSES_FIELD,
        kinds.ARRAY,
        element_type=kinds.INT64,
        max_capacity=min(shared, MAX_CLASSES_PER_ROW),
    )
    client.create_collection(
        collection, schema=schema, consistency_level="Strong", timeout=WRITE_TIMEOUT
    )


def insert_vectors(
    client: Any,
    collection: str,
    vectors: Vectors,
    members: IdMap,
    half: bool,
    report: Callable[[int], None],
) -> None:
    """Send the rows that an image points to, a batch at a time."""
    done = 0
    for start, values in vectors.chunks(ROWS_PER_INSERT):
        first, end = np.searchsorted(members.live_rows, [start, start + len(values)])
        rows = members.live_rows[first:end]
        if not len(rows):
            continue
        sent = values[rows - start].astype(np.float16 if half else np.float32, copy=False)
        classes = classes_of_rows(members, rows)
        records = [
            {ROW_FIELD: row, VECTOR_FIELD: vector, CLASSES_FIELD: own}
            for row, vector, own in zip(rows.tolist(), sent, classes, strict=True)
        ]
        client.insert(collection, records, timeout=WRITE_TIMEOUT)
        done += len(rows)
        report(done)


def classes_of_rows(members: IdMap, rows: Ids) -> list[list[int]]:
    """The classes of the images that point to each row, rising."""
    first = np.searchsorted(members.rows, rows, side="left").tolist()
    end = np.searchsorted(members.rows, rows, side="right").tolist()
    return [np.unique(members.classes[a:b]).tolist() for a, b in zip(first, end, strict=True)]


def build_vector_index(client: Any, collection: str, kind: str) -> None:
    """Build the index over the vectors and wait for it."""
    wanted = client.prepare_index_params()
    settings = HNSW_PARAMETERS if kind == "HNSW" else {}
    wanted.add_index(VECTOR_FIELD, index_type=kind, metric_type="L2", params=settings)
    client.create_index(collection, wanted)


def drop_collections(url: str, names: Iterable[str]) -> None:
    """Delete the collections of versions, as far as they are there. Raises SearchError."""
    address = parse_milvus_url(url)
    with closing(connect(address)) as client, milvus_errors(address):
        for name in names:
            client.drop_collection(collection_name(name), timeout=WRITE_TIMEOUT)


def list_collections(url: str) -> list[str]:
    """The collections of versions that are there, by name. Raises SearchError."""
    address = parse_milvus_url(url)
    with closing(connect(address)) as client, milvus_errors(address):
        found = client.list_collections(timeout=SEARCH_TIMEOUT)
    return sorted(name for name in found if name.startswith(COLLECTION_PREFIX))


def count_version_rows(url: str, name: str) -> int:
    """How many rows a version's collection holds. Raises SearchError."""
    with closing(open_milvus(url, name, {})) as engine:
        return engine.count()


def verify_collection(
    url: str, name: str, vectors: Vectors, members: IdMap, sample: int = 64
) -> None:
    """See that a collection holds a version's rows, and a sample of them equal to the shards'.

    Raises StoreError where they differ, and SearchError.
    """
    mend = f"Milvus at {parse_milvus_url(url)}: {collection_name(name)}"
    rows = members.live_rows
    with closing(open_milvus(url, name, {})) as engine:
        if (found := engine.count()) != len(rows):
            raise StoreError(f"{mend} holds {found:,} rows and not {len(rows):,}; {REBUILD_HINT}")
        some = rows[np.unique(np.linspace(0, len(rows) - 1, min(sample, len(rows)), dtype=int))]
        if not np.array_equal(engine.take(some), vectors.take(some)):
            raise StoreError(f"{mend} holds other vectors than the shards; {REBUILD_HINT}")
        found_classes = [
            sorted(record[CLASSES_FIELD]) for record in engine.records(some, CLASSES_FIELD)
        ]
        if found_classes != classes_of_rows(members, some):
            raise StoreError(f"{mend} holds other classes than the version; {REBUILD_HINT}")
