"""Connections to Milvus, and its errors."""

import importlib.util
import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from index.engines.milvus_address import MilvusAddress
from index.engines.protocol import SearchError

COLLECTION_PREFIX = "alexnet_"
ROW_FIELD, VECTOR_FIELD, CLASSES_FIELD = "row", "vector", "classes"
CONNECT_TIMEOUT, SEARCH_TIMEOUT, WRITE_TIMEOUT = 5.0, 15.0, 120.0
"""Seconds after which connecting, a search, and sending a batch count as failed."""
OPEN_FILE_LOCK = threading.Lock()
"""Held while a file is opened: Milvus Lite fails if two threads open the same one."""


def name_collection(name: str) -> str:
    """Name the collection of a version; Milvus allows only letters, digits and _."""
    return COLLECTION_PREFIX + re.sub(r"[^A-Za-z0-9]", "_", name)


def connect(address: MilvusAddress) -> Any:
    """Connect a client. Raises SearchError."""
    client = import_pymilvus().MilvusClient
    if address.is_file and not importlib.util.find_spec("milvus_lite"):
        # Without its dependencies: faiss-cpu would overwrite the files of faiss-gpu.
        raise SearchError(
            f"{address} is a file of Milvus Lite, which is not installed: "
            "`pip install pyarrow` and `pip install --no-deps milvus-lite`"
        )
    with translate_milvus_errors(address), OPEN_FILE_LOCK if address.is_file else nullcontext():
        return client(
            uri=address.uri,
            user=address.user,
            password=address.password,
            db_name=address.database,
            timeout=CONNECT_TIMEOUT,
            dedicated=True,
        )


def import_pymilvus() -> Any:
    """Import pymilvus, an optional dependency. Raises SearchError."""
    try:
        import pymilvus
    except ImportError as error:
        raise SearchError("INDEX_URL needs pymilvus: `pip install pymilvus`") from error
    # It logs a whole page for every error that it raises.
    for name in ("pymilvus", "pymilvus.milvus_client", "milvus_lite"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return pymilvus


@contextmanager
def translate_milvus_errors(address: MilvusAddress) -> Iterator[None]:
    """Turn errors of pymilvus and gRPC into one-line SearchErrors without the password."""
    import grpc
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except MilvusException as error:
        raise SearchError(format_milvus_error(address, str(error.message), error.code)) from error
    except grpc.RpcError as error:
        raise SearchError(format_milvus_error(address, str(error), "gRPC")) from error


def format_milvus_error(address: MilvusAddress, text: str, code: Any) -> str:
    """Describe an error in one line."""
    if address.is_file and "Open local milvus failed" in text:
        text = (
            "it cannot be opened. Only one process at a time can open it, and the application or a "
            "build may have done so; several can use `milvus-lite server` through http://"
        )
    text = " ".join(text.split())[:300]
    if address.password:
        text = text.replace(address.password, "***")
    return f"Milvus at {address}: {text} ({code})"


def count_rows(client: Any, collection: str) -> int:
    """Count the rows of a loaded collection."""
    found = client.query(
        collection, output_fields=["count(*)"], consistency_level="Strong", timeout=WRITE_TIMEOUT
    )
    return int(found[0]["count(*)"])
