"""The kind `milvus`: a version's vectors in Milvus, for what one machine cannot hold."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from index.engines.milvus_address import MilvusAddress, parse_milvus_url
from index.engines.milvus_server import (
    CLASSES_FIELD,
    ROW_FIELD,
    SEARCH_TIMEOUT,
    VECTOR_FIELD,
    connect,
    count_rows,
    name_collection,
    translate_milvus_errors,
)
from index.engines.protocol import RowFilter, SearchError, VersionData
from index.manifest import StoreError
from index.vectors import Floats, Ids
from model.network.config import FEATURES

R = TypeVar("R")
ROWS_PER_FETCH = 1000
"""16 MB, a quarter of what Milvus sends in one message."""
QUERIES_PER_REQUEST = 128
MAX_MILVUS_ROWS = 16384
"""The most rows that Milvus returns for a query."""
MIN_EF, EF_LEVELS = 64, 6
"""HNSW's `ef` at effort 0, and the number of efforts; each doubles it: 64, 128 … 2048."""
RETRY_DELAY = 1.0
"""Seconds before trying an unresponsive server again; until then, searches fail at once."""


def open_milvus(version: VersionData, parameters: Mapping[str, Any]) -> "MilvusSearch":
    """Open the collection of a version, without connecting yet.

    Raises StoreError if no address is set, and ValueError for an invalid one.
    """
    if not version.device.url:
        raise StoreError(
            f"The vectors of {version.name} are in Milvus; set INDEX_URL to the server's address"
        )
    return open_collection(version.device.url, version.name, parameters)


def open_collection(url: str, name: str, parameters: Mapping[str, Any]) -> "MilvusSearch":
    """Open the collection of the version `name`, without connecting yet. Raises ValueError."""
    return MilvusSearch(parse_milvus_url(url), name_collection(name), parameters)


class MilvusSearch:
    """Searches a collection. Connects for the first search, and again after a failure."""

    def __init__(
        self, address: MilvusAddress, collection: str, parameters: Mapping[str, Any]
    ) -> None:
        self.address, self.collection = address, collection
        self.is_graph = parameters.get("index") == "HNSW"
        self.dtype = np.dtype(parameters.get("dtype", "float32"))
        self.levels, self.exhaustive = (EF_LEVELS, False) if self.is_graph else (1, True)
        self.filters = True
        self.lock = threading.Lock()
        self.client: Any = None
        self.loaded = False
        self.retry_at = 0.0

    def propose(self, queries: Floats, count: int, row_filter: RowFilter, effort: int) -> Ids:
        """As `SearchEngine.propose`, filtered by the filter's classes."""
        proposed = np.full((len(queries), count), -1, np.int64)
        limit = min(count, MAX_MILVUS_ROWS)
        classes = row_filter.classes
        if limit < 1 or (classes is not None and not classes):
            return proposed
        settings = {"ef": max(MIN_EF << effort, limit)} if self.is_graph else {}
        for start in range(0, len(queries), QUERIES_PER_REQUEST):
            part = queries[start : start + QUERIES_PER_REQUEST]
            batch = list(np.ascontiguousarray(part, self.dtype))
            for query, rows in enumerate(self.search(batch, limit, classes, settings), start):
                proposed[query, : len(rows)] = rows
        return proposed

    def search(
        self,
        queries: list[Any],
        limit: int,
        classes: tuple[int, ...] | None,
        settings: dict[str, int],
    ) -> list[Any]:
        """Send one search: a list of rows per query, nearest first. Raises SearchError."""

        def search(client: Any) -> list[Any]:
            hits = client.search(
                self.collection,
                data=queries,
                anns_field=VECTOR_FIELD,
                limit=limit,
                filter=make_class_expression(classes),
                output_fields=[ROW_FIELD],
                search_params={"metric_type": "L2", "params": settings},
                consistency_level="Strong",
                timeout=SEARCH_TIMEOUT,
            )
            return [hit.ids for hit in hits]

        return self.call(search)

    def take(self, rows: Any) -> Floats:
        """Fetch vectors by row, in this order: int64 [n] → float32 [n, 4096].

        Raises SearchError, also if the collection lacks a row.
        """
        distinct, places = np.unique(np.asarray(rows, np.int64), return_inverse=True)
        values = np.empty((len(distinct), FEATURES), np.float32)
        for start in range(0, len(distinct), ROWS_PER_FETCH):
            records = self.fetch_records(distinct[start : start + ROWS_PER_FETCH], VECTOR_FIELD)
            for place, record in enumerate(records, start):
                values[place] = decode_vector(record[VECTOR_FIELD])
        return values[places]

    def fetch_records(self, rows: Ids, *fields: str) -> list[dict[str, Any]]:
        """Fetch fields of rows, int64, distinct and ascending. Raises SearchError."""
        found = self.call(
            lambda client: client.query(
                self.collection,
                ids=rows.tolist(),
                output_fields=[ROW_FIELD, *fields],
                consistency_level="Strong",
                timeout=SEARCH_TIMEOUT,
            )
        )
        records = sorted(found, key=lambda record: int(record[ROW_FIELD]))
        if [record[ROW_FIELD] for record in records] != rows.tolist():
            raise SearchError(
                f"Milvus at {self.address}: {self.collection} lacks rows; "
                f"it gave {len(records):,} of {len(rows):,}"
            )
        return records

    def count_rows(self) -> int:
        """Count the rows of the collection. Raises SearchError."""
        return self.call(lambda client: count_rows(client, self.collection))

    def call(self, request: Callable[[Any], R]) -> R:
        """Make a request; after a failure, load the collection again before the next one.

        Raises SearchError.
        """
        client = self.get_connected_client()
        try:
            with translate_milvus_errors(self.address):
                return request(client)
        except SearchError:
            self.loaded = False
            raise

    def get_connected_client(self) -> Any:
        """Connect if needed, and load the collection. Raises SearchError."""
        with self.lock:
            if self.loaded:
                return self.client
            if time.monotonic() < self.retry_at:
                raise SearchError(f"Milvus at {self.address} did not answer a moment ago")
            try:
                self.client = self.client or connect(self.address)
                with translate_milvus_errors(self.address):
                    self.client.load_collection(self.collection, timeout=SEARCH_TIMEOUT)
            except SearchError:
                self.retry_at = time.monotonic() + RETRY_DELAY
                raise
            self.loaded = True
            return self.client

    def close(self) -> None:
        """Close the connection; a later search opens it again."""
        with self.lock:
            if self.client:
                self.client.close()
            self.client, self.loaded = None, False


def make_class_expression(classes: tuple[int, ...] | None) -> str:
    """Make Milvus's filter expression for rows of these classes; empty for all rows."""
    if classes is None:
        return ""
    return f"array_contains_any({CLASSES_FIELD}, {[int(number) for number in classes]})"


def decode_vector(value: Any) -> Any:
    """Decode a vector as Milvus gives it: float16 as bytes, float32 as a list of numbers."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return np.frombuffer(value, "<f2") if isinstance(value, bytes) else value
