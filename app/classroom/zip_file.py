"""Photographs in a zip file: a folder per class, with or without one around them.

Nothing is unpacked by its name: each photograph is read by itself, and its file gets a name of this
project's. A zip that tries to lead elsewhere is refused as a whole, since it was made to do harm.
"""

import re
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import PurePosixPath
from typing import IO

from app.classroom.datasets import (
    MAX_PHOTOGRAPHS,
    DatasetError,
    Incoming,
    IncomingPhotograph,
    PassedOver,
    Split,
    check_class_name,
)
from model.dataset.folder import UPLOAD_SUFFIXES as UPLOADS
from model.dataset.folder import is_ignored, is_photograph

ZIP_PATH = "/new/from/zip"
"""Where a zip is sent to; it may be larger than what is sent elsewhere."""
MAX_DIRECTORY_BYTES = 8 * 1024 * 1024
"""Of the zip's list of files, which is read as a whole: about 100,000 of them."""
MAX_ENTRIES = 2 * MAX_PHOTOGRAPHS
"""Files and folders of any kind."""
MAX_RATIO = 200
"""By which a file may be compressed; photographs are hardly compressed at all."""
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The methods of which no more is unpacked than is asked for."""
UTF8_NAME, ENCRYPTED = 0x800, 0x1
"""Flags of an entry."""
DRIVE = re.compile(r"[A-Za-z]:")
SPLITS: dict[str, Split] = {"train": "train", "val": "val"}
Entry = tuple[zipfile.ZipInfo, tuple[str, ...]]
"""A photograph, and the parts of its path."""


class BoundedFile:
    """A zip file as `zipfile` reads it, of which no part is read at once that is too large.

    `zipfile` reads the list of files as a whole, whose length a zip may choose.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, lambda: True

    def read(self, size: int = -1) -> bytes:
        """Read bytes. Raises DatasetError for too many."""
        if size > MAX_DIRECTORY_BYTES:
            raise DatasetError("The zip lists too many files.", 413)
        return self.file.read(size)


def read_zip(file: IO[bytes], *, max_bytes: int, max_file_bytes: int) -> Incoming:
    """List the photographs of a zip file, which is read while they are.

    max_bytes, max_file_bytes: unpacked, all together and each. Raises DatasetError; so does reading
    a photograph.
    """
    try:
        archive = zipfile.ZipFile(BoundedFile(file))
    except DatasetError:
        raise
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise DatasetError("This is not a zip file, or it is damaged.") from error
    check_entries(archive.infolist(), max_bytes, max_file_bytes)
    photographs, others = sort_entries(archive.infolist())
    return Incoming(
        photographs=[
            IncomingPhotograph(
                name="/".join(parts), label=label, split=split, read=EntryReader(archive, info)
            )
            for info, parts, split, label in find_classes(photographs)
        ],
        passed_over=PassedOver().add(others),
    )


def check_entries(entries: Sequence[zipfile.ZipInfo], max_bytes: int, max_file_bytes: int) -> None:
    """Raise DatasetError for a zip that is dangerous or too large, by what it says of itself."""
    if len(entries) > MAX_ENTRIES:
        raise DatasetError(f"The zip has more than {MAX_ENTRIES:,} files.", 413)
    for info in entries:
        check_path(info)
        shown = shorten_path(info.filename)
        if info.flag_bits & ENCRYPTED:
            raise DatasetError(f"The zip is encrypted: {shown} needs a password.")
        if info.is_dir():
            continue
        if info.compress_type not in METHODS:
            raise DatasetError(f"{shown} is packed by a method other than the usual one, deflate.")
        if (
            is_photograph(PurePosixPath(info.filename).name, UPLOADS)
            and info.file_size > max_file_bytes
        ):
            raise DatasetError(f"{shown} is larger than {max_file_bytes // 10**6:,} MB.", 413)
        if info.file_size > MAX_RATIO * max(info.compress_size, 1):
            raise DatasetError(f"{shown} unpacks to more than {MAX_RATIO} times its size.", 413)
    if sum(info.file_size for info in entries) > max_bytes:
        raise DatasetError(f"The zip unpacks to more than {max_bytes // 10**6:,} MB.", 413)


def check_path(info: zipfile.ZipInfo) -> None:
    """Raise DatasetError for a path that leads outside, or for anything but a file or folder."""
    # What the file says: Python's own name of it has been mended.
    path, shown = info.orig_filename, shorten_path(info.orig_filename)
    if "\0" in path or "\\" in path:
        raise DatasetError(f"{shown}: a path in the zip has a backslash or a null character.")
    if path.startswith("/") or DRIVE.match(path) or ".." in path.split("/"):
        raise DatasetError(f"{shown}: a path in the zip leads outside of it.")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        what = "a link" if kind == stat.S_IFLNK else "no ordinary file"
        raise DatasetError(f"{shown} in the zip is {what}.")


def sort_entries(entries: Sequence[zipfile.ZipInfo]) -> tuple[list[Entry], list[str]]:
    """Sort the files into photographs, in the order of their paths, and what is passed over."""
    photographs: list[Entry] = []
    others: list[str] = []
    for info in entries:
        parts = tuple(part for part in read_path(info).split("/") if part not in ("", "."))
        if info.is_dir() or not parts:
            continue
        if any(is_ignored(part) for part in parts) or not is_photograph(parts[-1], UPLOADS):
            others.append(shorten_path("/".join(parts)))
        else:
            photographs.append((info, parts))
    return sorted(photographs, key=lambda entry: entry[1]), others


def read_path(info: zipfile.ZipInfo) -> str:
    """Return an entry's path; macOS writes UTF-8 without saying so."""
    name = info.filename
    if not info.flag_bits & UTF8_NAME:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode()
    return unicodedata.normalize("NFC", name)


def find_classes(
    photographs: Sequence[Entry],
) -> list[tuple[zipfile.ZipInfo, tuple[str, ...], Split | None, str]]:
    """Return each photograph with its split, if the zip has splits, and its class.

    Raises DatasetError for a photograph that lies in no folder of a class.
    """
    firsts = {parts[0] for _, parts in photographs}
    outer = 1 if len(firsts) == 1 and all(len(parts) > 2 for _, parts in photographs) else 0
    has_splits = {parts[outer] for _, parts in photographs} == SPLITS.keys()
    found = []
    for info, parts in photographs:
        split = SPLITS[parts[outer]] if has_splits else None
        inner = parts[outer + has_splits :]
        if len(inner) < 2:
            raise DatasetError(
                f"{shorten_path('/'.join(parts))} lies in no folder of a class; expected "
                "CLASS/photograph.jpg."
            )
        found.append((info, parts, split, check_class_name(inner[0])))
    return found


class EntryReader:
    """Reads one file of a zip, no more of it than the zip's list says that it has."""

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
        self.archive, self.info = archive, info

    def __call__(self) -> bytes:
        """Return its bytes. Raises DatasetError."""
        try:
            with self.archive.open(self.info) as opened:
                return opened.read(self.info.file_size + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise DatasetError(
                f"{shorten_path(self.info.filename)} in the zip is damaged."
            ) from error


def shorten_path(path: str) -> str:
    """Return a path as it can be shown: without control characters, the end of a long one."""
    visible = "".join(c for c in path if unicodedata.category(c)[0] != "C")
    return visible if len(visible) <= 80 else f"…{visible[-79:]}"
