"""A version's vectors in Milvus, for what one machine cannot hold: proposes rows as FAISS does."""

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from index.candidates import RowFilter, SearchError
from index.engines.milvus_server import (
    CLASSES_FIELD,
    ROW_FIELD,
    SEARCH_TIMEOUT,
    VECTOR_FIELD,
    MilvusAddress,
    collection_name,
    connect,
    count_rows,
    milvus_errors,
    parse_milvus_url,
)
from index.vectors import Floats, Ids
from model.config import FEATURES

T = TypeVar("T")
ROWS_PER_FETCH = 1000
"""Rows fetched at a time: 16 MB, a quarter of what Milvus sends in one message."""
QUERIES_PER_REQUEST = 128
"""Queries sent at a time."""
MAX_MILVUS_ROWS = 16384
"""The most rows Milvus answers a query with."""
MIN_EF, LEVELS = 64, 6
"""The graph's `ef` at effort 0, doubled with each effort: 64, 128 … 2048."""
RETRY_DELAY = 1.0
"""Seconds in which a server that did not answer is not asked again: those who wait fail at once."""


class MilvusSearch:
    """A version's collection, asked. Connects when it is first asked, and anew after a failure."""

    def __init__(self, address: MilvusAddress, collection: str, parameters: dict[str, Any]) -> None:
        self.address, self.collection = address, collection
        self.graph = parameters.get("index") == "HNSW"
        self.kind = np.dtype(parameters.get("dtype", "float32"))
        self.levels, self.exhaustive = (LEVELS, False) if self.graph else (1, True)
        self.lock = threading.Lock()
        self.client: Any = None
        self.loaded = False
        self.retry_at = 0.0

    def propose(self, queries: Floats, count: int, view: RowFilter, effort: int) -> Ids:
        """Rows near each query: float32 [N, 4096] → int64 [N, count], −1 where there are fewer.

        Only rows of the view's classes; its rows and the image left out are the caller's to see to.
        Raises SearchError.
        """
        found = np.full((len(queries), count), -1, np.int64)
        limit = min(count, MAX_MILVUS_ROWS)
        if limit < 1 or (view.classes is not None and not view.classes):
            return found
        settings = {"ef": max(MIN_EF << effort, limit)} if self.graph else {}
        for start in range(0, len(queries), QUERIES_PER_REQUEST):
            part = list(
                np.ascontiguousarray(queries[start : start + QUERIES_PER_REQUEST], self.kind)
            )
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
                anns_field=VECTOR_FIELD,
                limit=limit,
                filter=class_expression(classes),
                output_fields=[ROW_FIELD],
                search_params={"metric_type": "L2", "params": settings},
                consistency_level="Strong",
                timeout=SEARCH_TIMEOUT,
            )
            return [hit.ids for hit in hits]

        return self.call(search)

    def take(self, rows: Any) -> Floats:
        """The vectors of these rows, in this order: int64 [n] → float32 [n, 4096].

        Raises SearchError, also when a row is not there.
        """
        wanted = np.asarray(rows, np.int64)
        distinct, places = np.unique(wanted, return_inverse=True)
        values = np.empty((len(distinct), FEATURES), np.float32)
        for start in range(0, len(distinct), ROWS_PER_FETCH):
            records = self.records(distinct[start : start + ROWS_PER_FETCH], VECTOR_FIELD)
            for place, record in enumerate(records, start):
                values[place] = decode_vector(record[VECTOR_FIELD])
        return values[places]

    def records(self, rows: Ids, *fields: str) -> list[dict[str, Any]]:
        """These fields of rows, distinct and rising. Raises SearchError."""
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
                f"Milvus at {self.address}: {self.collection} lacks rows, "
                f"it gave {len(records):,} of {len(rows):,}"
            )
        return records

    def count(self) -> int:
        """How many rows the collection holds. Raises SearchError."""
        return self.call(lambda client: count_rows(client, self.collection))

    def call(self, question: Callable[[Any], T]) -> T:
        """Put a question to Milvus; after a failure the next one begins with connecting."""
        client = self.connected_client()
        try:
            with milvus_errors(self.address):
                return question(client)
        except SearchError:
            self.loaded = False
            raise

    def connected_client(self) -> Any:
        """The connection, with the collection loaded. Raises SearchError."""
        with self.lock:
            if self.loaded:
                return self.client
            if time.monotonic() < self.retry_at:
                raise SearchError(f"Milvus at {self.address} did not answer a moment ago")
            try:
                self.client = self.client or connect(self.address)
                with milvus_errors(self.address):
                    self.client.load_collection(self.collection, timeout=SEARCH_TIMEOUT)
            except SearchError:
                self.retry_at = time.monotonic() + RETRY_DELAY
                raise
            self.loaded = True
            return self.client

    def close(self) -> None:
        """End the connection; a later question opens it again."""
        with self.lock:
            if self.client:
                self.client.close()
            self.client, self.loaded = None, False


def open_milvus(url: str, name: str, parameters: dict[str, Any]) -> MilvusSearch:
    """A version's collection by its manifest's parameters; does not connect yet.

    Raises ValueError for a wrong address.
    """
    return MilvusSearch(parse_milvus_url(url), collection_name(name), parameters)


def class_expression(classes: tuple[int, ...] | None) -> str:
    """Milvus's expression for rows of one of these classes; empty for all rows."""
    if classes is None:
        return ""
    return f"array_contains_any({CLASSES_FIELD}, {[int(number) for number in classes]})"


def decode_vector(value: Any) -> Any:
    """A vector as Milvus gives it: float16 as bytes, float32 as a list of numbers."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return np.frombuffer(value, "<f2") if isinstance(value, bytes) else value
