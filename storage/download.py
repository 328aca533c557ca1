"""Download a file once: resumable, with progress, and the same bytes every time."""

import hashlib
import json
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError

from storage.files import fsync, lock_file, temporary_path, write_atomically
from storage.progress import Report, ignore_progress
from storage.tolerant_json import file_size

CHUNK_BYTES = 1 << 20
TIMEOUT_SECONDS = 30.0
MAX_TRIES = 5
"""Interruptions of the connection after which a download gives up; more bytes reset the count."""
PAUSE_SECONDS = 1.0
"""Pause after an interruption."""
USER_AGENT = "alexnet-two-towers"


class DownloadError(OSError):
    """A file that could not be downloaded. Its message says why."""


def download(
    url: str,
    target: Path,
    report: Report = ignore_progress,
    *,
    pause_seconds: float = PAUSE_SECONDS,
) -> Path:
    """Download a file to `target` unless it exists, and return `target`.

    It appears only when it is complete. An interrupted download continues where it stopped, also
    in another process, if the server's file is still the same. The SHA-256 of the first complete
    download is kept beside the file (`record_sha256`); if the file is deleted and fetched again,
    it has to be the same. If several processes call this, one downloads and the others wait.

    Raises DownloadError.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with lock_file(target.with_name(f".{target.name}.lock")):
            if not target.exists():
                part = fetch_part(url, target, report, pause_seconds)
                record_sha256(part, target, url)
                fsync(part)
                part.replace(target)
                fsync(target.parent)
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, DownloadError):
            raise
        raise DownloadError(describe_download_error(error, url)) from error
    return target


def fetch_part(url: str, target: Path, report: Report, pause_seconds: float) -> Path:
    """Download into the temporary file beside `target`, continuing it; return it when complete."""
    part, version = temporary_path(target), target.with_name(f".{target.name}.version")
    tries = 0
    while True:
        before = count_bytes(part)
        try:
            fetch_rest(url, part, version, report)
            version.unlink(missing_ok=True)
            return part
        except HTTPError as error:
            if error.code != 416 or not before:
                raise
            # The part is not the beginning of the server's file.
            part.unlink()
        except (OSError, HTTPException):
            after = count_bytes(part)
            tries = 0 if after > before else tries + 1
            # A server that has never sent anything will hardly do so in a moment.
            if (not before and not after) or tries == MAX_TRIES:
                raise
        time.sleep(pause_seconds)


def fetch_rest(url: str, part: Path, version: Path, report: Report) -> None:
    """Append to a partial file what is missing of it, or begin anew if the server's has changed.

    version: the file that names the server's version, its ETag or date. Raises OSError or
    HTTPException, the bytes received so far being kept.
    """
    request = urllib.request.Request(url, headers={"User-Agent": USER_AGENT})
    start, known = count_bytes(part), read_version(version)
    if start and known:
        request.add_header("Range", f"bytes={start}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        current = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        if response.status == 206 and current != known:
            part.unlink()
            raise ConnectionResetError("the server's file has changed")
        if response.status != 206:
            start = 0
            part.unlink(missing_ok=True)
            write_atomically(version, json.dumps(current))
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else 0
        receive(response, part, start, total, report(f"Downloading {name_file(url)}", total))


def receive(
    response: HTTPResponse, part: Path, start: int, total: int, advance: Callable[[int], None]
) -> None:
    """Append a response's body to a file. Raises OSError if it ends early."""
    done = start
    advance(done)
    with part.open("ab") as file:
        while data := response.read(CHUNK_BYTES):
            file.write(data)
            done += len(data)
            advance(done)
    if done < total:
        raise OSError(f"the connection was closed after {done:,} of {total:,} bytes")


def record_sha256(part: Path, target: Path, url: str) -> None:
    """Keep the SHA-256 of a file's first download; compare later ones with it.

    Raises DownloadError, and deletes what was downloaded, if it is another file.
    """
    record = target.with_name(f"{target.name}.sha256")
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not record.exists():
        write_atomically(record, f"{found}  {target.name}\n")
        return
    known = record.read_text().split()[0]
    if found != known:
        part.unlink()
        raise DownloadError(
            f"{url} is not the file that was downloaded before: its SHA-256 is {found}, it was "
            f"{known}. If it was changed on purpose, delete {record}"
        )


def read_version(version: Path) -> str:
    """Return what named the server's version of a partial file, or an empty string."""
    with suppress(OSError, ValueError):
        return str(json.loads(version.read_text()))
    return ""


def count_bytes(path: Path) -> int:
    """Return a file's size in bytes; 0 if there is none."""
    return file_size(path) or 0


def name_file(url: str) -> str:
    """Return the file's name at the end of a URL."""
    return url.rsplit("/", 1)[-1]


def describe_download_error(error: Exception, url: str) -> str:
    """Say why a file could not be downloaded."""
    reason = getattr(error, "reason", None) or error
    return f"{url} could not be downloaded: {reason}"
