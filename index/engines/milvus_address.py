"""Milvus's address.

It is a server's, or a file ending in .db, which runs Milvus Lite inside this process. Lite is for
trying things out and for tests: only one process at a time can open its file, so the application
and `flask index build` cannot run at once; it stores only float32 and has no password.
"""

import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

URL_FORM = (
    "must be http://HOST:PORT of a Milvus server, with USER:PASSWORD@ before the host and "
    "/DATABASE at the end if it needs them and https:// if it uses TLS, or a file of Milvus Lite "
    "ending in .db"
)


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
