"""Tar shards in webdataset's layout, on a disk or behind URLs: `key.jpg` with `key.cls` beside it.

They are read once, into the same store as a folder's photographs, so that training can take any
image at any time. A shard counts whole or not at all: what webdataset would warn about or what
looks like an early end is an error here.
"""

import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

import webdataset
from webdataset.tariterators import group_by_keys, tar_file_expander

from model.dataset import (
    CLASSES_FILE,
    SUFFIXES,
    ClassName,
    Photograph,
    digest_listing,
    read_wordnet_labels,
)
from training.dataset.source import DataError, Sample, SplitName, UnfinishedError

PICTURE_SUFFIXES = tuple(suffix.removeprefix(".") for suffix in SUFFIXES)


@dataclass(frozen=True)
class Shards:
    """Tar files of a training and a validation set. `root`: the folder, or the URL pattern."""

    root: Path | str
    train: tuple[str, ...]
    val: tuple[str, ...]

    @cached_property
    def classes(self) -> tuple[ClassName, ...]:
        """Those of classes.txt beside the shards; none where there is no such file.

        Raises DataError: it cannot be read, names a class twice or fewer than two.
        """
        text = read_text(self.classes_file())
        return parse_classes(text, self.classes_file()) if text is not None else ()

    @cached_property
    def folders(self) -> frozenset[str]:
        """The classes' names."""
        return frozenset(name.folder for name in self.classes)

    def classes_file(self) -> str:
        """Where classes.txt would be."""
        return f"{self.train[0].rpartition('/')[0]}/{CLASSES_FILE}"

    def listing(self) -> str:
        """By files' names, sizes and times; a URL stands for what it gave the first time."""
        if is_url(self.train[0]):
            return " ".join((*self.train, "|", *self.val))
        files = (*self.train, *self.val, self.classes_file())
        return digest_listing(Path("/"), [Photograph(file, 0) for file in files])

    def images(self) -> int:
        """About so many, by the first shard."""
        first = sum(1 for sample in read_shard(self.train[0]) if find_picture(sample) is not None)
        return first * (len(self.train) + len(self.val))

    def chunks(self, split: SplitName) -> int:
        """A shard is a chunk."""
        return len(self.shards(split))

    def samples(self, split: SplitName, chunk: int) -> Iterator[Sample]:
        """The photographs of one shard. Raises DataError."""
        url = self.shards(split)[chunk]
        for found in read_shard(url):
            where = f"{url}: {found['__key__']}"
            picture = find_picture(found)
            if picture is not None:
                yield Sample(where, self.read_label(found, where), picture)
            elif "cls" in found:
                yield Sample(
                    f"{where} has no {', '.join(SUFFIXES)}", self.read_label(found, where), b""
                )

    def shards(self, split: SplitName) -> tuple[str, ...]:
        """One split's files or URLs."""
        return self.train if split == "train" else self.val

    def read_label(self, sample: dict[str, Any], where: str) -> str:
        """A sample's class: its name in classes.txt, or what the sample says."""
        suffix = "cls" if "cls" in sample else "txt"
        try:
            said = sample.get(suffix, b"").decode().strip()
        except UnicodeDecodeError as error:
            raise DataError(f"{where}.{suffix} is not UTF-8 text") from error
        if not said:
            raise DataError(
                f"{where} has no class; its index or its name must stand beside it in {where}.cls"
            )
        number = int(said) if said.lstrip("-").isdecimal() else None
        if number is not None and number < 0:
            raise DataError(f"{where} has the class index {number}; the first is 0")
        if not self.classes:
            return said if number is None else str(number)
        return self.resolve_class(said, number, where)

    def resolve_class(self, said: str, number: int | None, where: str) -> str:
        """A class that classes.txt has."""
        if number is not None and number < len(self.classes):
            return self.classes[number].folder
        if said in self.folders:
            return said
        raise DataError(
            f"{where} has the class {said}, but {CLASSES_FILE} beside the shards names "
            f"{len(self.classes)} classes, 0 to {len(self.classes) - 1}"
        )


def is_url(name: str) -> bool:
    """Whether a name is a URL and not a path."""
    return "://" in name


def read_text(name: str) -> str | None:
    """The text of a small file; None where there is none."""
    try:
        if not is_url(name):
            return Path(name).read_text(encoding="utf-8-sig")
        if urlsplit(name).scheme not in {"http", "https"}:
            return None
        with closing(urlopen(name, timeout=30)) as answer:
            return str(answer.read().decode("utf-8-sig"))
    except FileNotFoundError:
        return None
    except HTTPError as error:
        with error:
            if error.code in {403, 404, 410}:  # 403: a bucket that may not be listed
                return None
        raise UnfinishedError(f"{name} cannot be read: {error}") from error
    except (URLError, OSError) as error:
        raise UnfinishedError(f"{name} cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{name} cannot be read as UTF-8 text: {error}") from error


def parse_classes(text: str, where: str) -> tuple[ClassName, ...]:
    """A class a line, in the order of their indices: its folder's name, then its label."""
    lines = (line.split(maxsplit=1) for line in text.splitlines() if line.strip())
    pairs = [(p[0].rstrip(",:"), "".join(p[1:]).strip()) for p in lines if p[0][0] != "#"]
    folders = [folder for folder, _ in pairs]
    twice = next((folder for folder in folders if folders.count(folder) > 1), None)
    if twice is not None:
        raise DataError(f"{where} names the class {twice} twice")
    if len(folders) < 2:
        raise DataError(f"{where} names {len(folders)} classes; at least two are needed")
    labels = read_wordnet_labels() if any(not label for _, label in pairs) else {}
    return tuple(ClassName(name, label or labels.get(name, name)) for name, label in pairs)


def find_picture(sample: dict[str, Any]) -> bytes | None:
    """The bytes of a sample's picture, if it has one."""
    return next((sample[suffix] for suffix in PICTURE_SUFFIXES if suffix in sample), None)


def read_shard(url: str) -> Iterator[dict[str, Any]]:
    """The samples of one tar file by webdataset, to the file's very end. Raises DataError."""
    try:
        stream = ShardStream(webdataset.gopen(url))
    except (OSError, ValueError) as error:
        raise explain_error(url, error) from error
    try:
        yield from group_by_keys(tar_file_expander([{"url": url, "stream": stream}]))
        while stream.read(2**20):
            pass
        ended = stream.close_and_check()
        if urlsplit(url).path.endswith(".tar") and stream.tail != bytes(TAR_END_BYTES):
            ended = ended or tarfile.ReadError("it has no end, so it was cut short")
        if ended:
            raise ended
    except READ_ERRORS as error:
        # Where a transfer failed, its own error says more than the tar that it cut short.
        raise explain_error(url, stream.close_and_check() or error) from error
    finally:
        stream.close()


READ_ERRORS = (tarfile.TarError, OSError, EOFError, ValueError, zlib.error)
TAR_END_BYTES = 1024
"""Zero bytes that end a tar file (POSIX)."""


class ShardStream:
    """A stream that keeps its last bytes and how it ended."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.tail = stream, b""
        self.failure: Exception | None = None

    def read(self, size: int = -1) -> bytes:
        """As the stream's."""
        data: bytes = self.stream.read(size)
        self.tail = (self.tail + data[-TAR_END_BYTES:])[-TAR_END_BYTES:]
        return data

    def close_and_check(self) -> Exception | None:
        """Close it; give what the process that fetched it failed of."""
        try:
            self.stream.close()
        except OSError as error:
            self.failure = self.failure or error
        return self.failure

    def close(self) -> None:
        """Close it, and end the process that fetches it, wanted no longer."""
        if not getattr(self.stream, "closed", False) and hasattr(self.stream, "proc"):
            self.stream.proc.terminate()
        self.close_and_check()


CURL_ERRORS = {
    6: "the host is not known",
    7: "the server cannot be reached",
    18: "the transfer broke off",
    22: "the server has no such file, or refuses it",
    28: "the server does not answer",
    56: "the transfer broke off",
}


def explain_error(url: str, error: Exception) -> DataError:
    """Say in one line what is wrong with a shard; it may be tried again unless it is damaged."""
    exited = re.search(r": exit (\d+) \(read\)", str(error))
    if exited:
        code = int(exited[1])
        what = CURL_ERRORS.get(code, f"what fetches it ended with code {code}")
        return UnfinishedError(f"shard {url} cannot be fetched: {what}; what was done is kept")
    if isinstance(error, FileNotFoundError) and is_url(url):
        return UnfinishedError(f"shard {url} cannot be fetched: {error.filename} is not installed")
    if isinstance(error, OSError):
        return UnfinishedError(f"shard {url} cannot be read: {error.strerror or error}")
    said = str(error.args[0] if error.args else error).splitlines()[0]
    kind = UnfinishedError if is_url(url) else DataError
    return kind(f"shard {url} is damaged: {said}")
