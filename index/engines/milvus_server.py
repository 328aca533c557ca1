"""Milvus's address, connections to it, and its errors.

The address is a server's, or a file ending in .db, which runs Milvus Lite inside this process. Lite
is for trying things out and for tests: only one process at a time can open its file, so the
application and `flask index build` cannot run at once; it stores only float32 and has no password.
"""

import importlib.util
import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from index.engines.protocol import SearchError

URL_FORM = (
    "must be http://HOST:PORT of a Milvus server, with USER:PASSWORD@ before the host and "
    "/DATABASE at the end if it needs them and https:// if it uses TLS, or a file of Milvus Lite "
    "ending in .db"
)
COLLECTION_PREFIX = "alexnet_"
ROW_FIELD, VECTOR_FIELD, CLASSES_FIELD = "row", "vector", "classes"
CONNECT_TIMEOUT, SEARCH_TIMEOUT, WRITE_TIMEOUT = 5.0, 15.0, 120.0
"""Seconds after which connecting, a search, and sending a batch count as failed."""
OPEN_FILE_LOCK = threading.Lock()
"""Held while a file is opened: Milvus Lite fails if two threads open the same one."""


@dataclass(frozen=True, kw_only=True)
class MilvusAddress:
    """The address of Milvus. `str()` leaves out the user and the password."""

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


def parse_milvus_url(text: str) -> MilvusAddress:
    """Parse `INDEX_URL`. Raises ValueError; its message reads on after the setting's name."""
    if "://" not in text:
        if not re.search(r"[^/]\.db$", text):
            raise ValueError(URL_FORM)
        return MilvusAddress(uri=text)
    try:
        parts = urlsplit(text)
        port = parts.port or (443 if parts.scheme == "https" else 19530)
    except ValueError:
        raise ValueError(URL_FORM) from None
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if (
        parts.scheme not in ("http", "https")
        or not re.fullmatch(r"[A-Za-z0-9._-]+", parts.hostname or "")
        or not re.fullmatch(r"/?[A-Za-z0-9_]*", parts.path)
        or parts.query
        or parts.fragment
        or bool(user) != bool(password)
    ):
        raise ValueError(URL_FORM)
    return MilvusAddress(
        uri=f"{parts.scheme}://{parts.hostname}:{port}",
        user=user,
        password=password,
        database=parts.path.strip("/"),
    )


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
