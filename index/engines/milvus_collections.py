"""Fills, verifies and drops collections in Milvus.

Each version has its own collection, which does not change once filled. It holds each live row's
number, vector, and the classes of the images that point to it.
"""

from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from typing import Any

import numpy as np

from index.engines.milvus import open_collection
from index.engines.milvus_address import parse_milvus_url
from index.engines.milvus_server import (
    CLASSES_FIELD,
    COLLECTION_PREFIX,
    CONNECT_TIMEOUT,
    ROW_FIELD,
    SEARCH_TIMEOUT,
    VECTOR_FIELD,
    WRITE_TIMEOUT,
    connect,
    count_rows,
    import_pymilvus,
    name_collection,
    translate_milvus_errors,
)
from index.engines.options import EngineOptions
from index.engines.protocol import VersionData
from index.id_map import IdMap
from index.manifest import REBUILD_HINT, StoreError
from index.vectors import Ids, Vectors
from model.network.config import FEATURES
from storage.progress import Report

ROWS_PER_INSERT = 1000
"""16 MB, a quarter of what Milvus accepts in one message."""
MAX_CLASSES_PER_ROW = 4096
"""The longest array that Milvus stores in a row."""
MAX_FLAT_ROWS = 10_000
"""Rows up to which the collection gets a flat index; beyond that, an HNSW graph."""
HNSW_PARAMETERS = {"M": 32, "efConstruction": 200}


def train_milvus(version: VersionData, _options: EngineOptions, report: Report) -> dict[str, Any]:
    """Send a version's vectors to Milvus; return its parameters. Raises as `fill_collection`."""
    vectors, id_map = version.vectors, version.id_map
    done = report("Sending the vectors to Milvus", len(id_map.live_rows))
    return fill_collection(version.device.url, version.name, vectors, id_map, done)


def fill_collection(
    url: str,
    name: str,
    vectors: Vectors,
    id_map: IdMap,
    done: Callable[[int], None] = lambda rows: None,
    *,
    kind: str = "",
) -> dict[str, Any]:
    """Fill a version's collection; return the manifest's parameters.

    Drops a collection of the same name first. done: called with the number of rows sent so far.
    kind: FLAT or HNSW; empty to choose by the number of rows.

    Raises SearchError if Milvus cannot be reached or refuses, and StoreError if rows are missing in
    the end. A failure drops the collection, unless Milvus cannot be reached or this process is
    killed; then drop it by its name, or fill it again.
    """
    collection, count, address = name_collection(name), len(id_map.live_rows), parse_milvus_url(url)
    # Milvus Lite stores float32 only.
    half = vectors.dtype == "float16" and not address.is_file
    parameters: dict[str, Any] = {
        "index": kind or ("FLAT" if count <= MAX_FLAT_ROWS or address.is_file else "HNSW"),
        "dtype": "float16" if half else "float32",
        "rows": count,
    }
    with closing(connect(address)) as client, translate_milvus_errors(address):
        client.drop_collection(collection, timeout=WRITE_TIMEOUT)
        try:
            create_collection(client, collection, id_map, half)
            insert_vectors(client, collection, vectors, id_map, half, done)
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


def create_collection(client: Any, collection: str, id_map: IdMap, half: bool) -> None:
    """Create an empty collection. half: whether vectors are float16."""
    types = import_pymilvus().DataType
    most_images = int(np.unique(id_map.rows, return_counts=True)[1].max(initial=1))
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field(ROW_FIELD, types.INT64, is_primary=True)
    schema.add_field(
        VECTOR_FIELD, types.FLOAT16_VECTOR if half else types.FLOAT_VECTOR, dim=FEATURES
    )
    schema.add_field(
        CLASSES_FIELD,
        types.ARRAY,
        element_type=types.INT64,
        max_capacity=min(most_images, MAX_CLASSES_PER_ROW),
    )
    client.create_collection(
        collection, schema=schema, consistency_level="Strong", timeout=WRITE_TIMEOUT
    )


def insert_vectors(
    client: Any,
    collection: str,
    vectors: Vectors,
    id_map: IdMap,
    half: bool,
    report_done: Callable[[int], None],
) -> None:
    """Send the live rows in batches."""
    done = 0
    for start, values in vectors.read_chunks(ROWS_PER_INSERT):
        first, end = np.searchsorted(id_map.live_rows, [start, start + len(values)])
        rows = id_map.live_rows[first:end]
        if not len(rows):
            continue
        sent = values[rows - start].astype(np.float16 if half else np.float32, copy=False)
        classes = list_row_classes(id_map, rows)
        records = [
            {ROW_FIELD: row, VECTOR_FIELD: vector, CLASSES_FIELD: own}
            for row, vector, own in zip(rows.tolist(), sent, classes, strict=True)
        ]
        client.insert(collection, records, timeout=WRITE_TIMEOUT)
        done += len(rows)
        report_done(done)


def list_row_classes(id_map: IdMap, rows: Ids) -> list[list[int]]:
    """List the classes of the images that point to each row, ascending."""
    first = np.searchsorted(id_map.rows, rows, side="left").tolist()
    end = np.searchsorted(id_map.rows, rows, side="right").tolist()
    return [np.unique(id_map.classes[a:b]).tolist() for a, b in zip(first, end, strict=True)]


def build_vector_index(client: Any, collection: str, kind: str) -> None:
    """Build the vectors' index, and wait until it is ready."""
    index = client.prepare_index_params()
    settings = HNSW_PARAMETERS if kind == "HNSW" else {}
    index.add_index(VECTOR_FIELD, index_type=kind, metric_type="L2", params=settings)
    client.create_index(collection, index)


def drop_collections(url: str, names: Iterable[str]) -> None:
    """Drop the collections of the named versions, if they exist. Raises SearchError."""
    address = parse_milvus_url(url)
    with closing(connect(address)) as client, translate_milvus_errors(address):
        for name in names:
            client.drop_collection(name_collection(name), timeout=WRITE_TIMEOUT)


def list_collections(url: str) -> list[str]:
    """List the names of all versions' collections, sorted. Raises SearchError."""
    address = parse_milvus_url(url)
    with closing(connect(address)) as client, translate_milvus_errors(address):
        found = client.list_collections(timeout=SEARCH_TIMEOUT)
    return sorted(name for name in found if name.startswith(COLLECTION_PREFIX))


def count_version_rows(url: str, name: str) -> int:
    """Count the rows of a version's collection. Raises SearchError."""
    with closing(open_collection(url, name, {})) as search:
        return search.count_rows()


def verify_collection(
    url: str, name: str, vectors: Vectors, id_map: IdMap, sample: int = 64
) -> None:
    """Check that a collection has a version's number of rows and equal values in a sample of them.

    Raises StoreError if they differ, and SearchError.
    """
    place = f"Milvus at {parse_milvus_url(url)}: {name_collection(name)}"
    rows = id_map.live_rows
    with closing(open_collection(url, name, {})) as search:
        if (found := search.count_rows()) != len(rows):
            raise StoreError(f"{place} holds {found:,} rows, not {len(rows):,}; {REBUILD_HINT}")
        some = rows[np.unique(np.linspace(0, len(rows) - 1, min(sample, len(rows)), dtype=int))]
        if not np.array_equal(search.take(some), vectors.take(some)):
            raise StoreError(f"{place} holds other vectors than the shards; {REBUILD_HINT}")
        records = search.fetch_records(some, CLASSES_FIELD)
        if [sorted(record[CLASSES_FIELD]) for record in records] != list_row_classes(id_map, some):
            raise StoreError(f"{place} holds other classes than the version; {REBUILD_HINT}")
