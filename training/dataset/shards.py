"""Tar shards in webdataset's layout, on disk or at URLs: each `key.jpg` with its `key.cls`.

They are read once, into the same store as a folder's photographs, since training needs random
access. A shard counts as a whole or not at all: what webdataset only warns about, and what looks
like a truncated file, is an error here.
"""

import errno
import os
import re
import signal
import tarfile
import threading
import zlib
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

import webdataset
from webdataset.tariterators import group_by_keys, tar_file_expander

from model.dataset.folder import (
    CLASSES_FILE,
    SUFFIXES,
    ClassName,
    Photograph,
    digest_listing,
    find_wordnet_labels,
)
from training.dataset.source import DataError, Sample, SplitName, UnfinishedError

PICTURE_SUFFIXES = tuple(suffix.removeprefix(".") for suffix in SUFFIXES)


@dataclass(frozen=True)
class Shards:
    """Tar files of a training and a validation set, as a source; a shard is a chunk.

    root: the folder, or the URL pattern. train, val: paths or URLs.
    """

    root: Path | str
    train: tuple[str, ...]
    val: tuple[str, ...]

    @cached_property
    def classes(self) -> tuple[ClassName, ...]:
        """The classes that classes.txt beside the shards lists; empty if there is no such file.

        Raises DataError if it cannot be read, or lists a class twice or fewer than two classes.
        """
        text = read_text(self.classes_file())
        return parse_classes(text, self.classes_file()) if text is not None else ()

    @cached_property
    def folders(self) -> frozenset[str]:
        """The folder names of the classes."""
        return frozenset(name.folder for name in self.classes)

    def classes_file(self) -> str:
        """Return the path or URL where classes.txt is expected."""
        return f"{self.train[0].rpartition('/')[0]}/{CLASSES_FILE}"

    def fingerprint(self) -> str:
        """Return a digest of the files' names, sizes and times; URLs are taken as unchanging."""
        if is_url(self.train[0]):
            # Without the query, whose signature changes while the shards do not.
            return " ".join(url.partition("?")[0] for url in (*self.train, "|", *self.val))
        files = (*self.train, *self.val, self.classes_file())
        return digest_listing(Path("/"), [Photograph(file, 0) for file in files])

    def describe(self) -> str:
        """Describe what there is, without reading it."""
        return f"{len(self.train):,} tar shards, {len(self.val):,} for validation"

    def count_photographs(self) -> int:
        """Estimate the number of photographs from the first shard."""
        first = sum(1 for sample in read_shard(self.train[0]) if find_picture(sample) is not None)
        return first * (len(self.train) + len(self.val))

    def count_chunks(self, split: SplitName) -> int:
        """Return how many shards a split has."""
        return len(self.list_split(split))

    def read_samples(self, split: SplitName, chunk: int) -> Iterator[Sample]:
        """Yield the photographs of one shard. Raises DataError."""
        url = self.list_split(split)[chunk]
        shard = urlsplit(url).path.rpartition("/")[2] if is_url(url) else Path(url).name
        for sample in read_shard(url):
            where, name = f"{url}: {sample['__key__']}", f"{shard}/{sample['__key__']}"
            picture = find_picture(sample)
            if picture is not None:
                yield Sample(where, self.read_label(sample, where), picture, name)
            elif "cls" in sample:
                label = self.read_label(sample, where)
                yield Sample(f"{where} has no {', '.join(SUFFIXES)}", label, b"", name)

    def list_split(self, split: SplitName) -> tuple[str, ...]:
        """Return the paths or URLs of one split."""
        return self.train if split == "train" else self.val

    def read_label(self, sample: dict[str, Any], where: str) -> str:
        """Return a sample's class: its folder name in classes.txt, or else its own label.

        Raises DataError if the sample has no valid class.
        """
        suffix = "cls" if "cls" in sample else "txt"
        try:
            text = sample.get(suffix, b"").decode().strip()
        except UnicodeDecodeError as error:
            raise DataError(f"{where}.{suffix} is not UTF-8 text") from error
        if not text:
            raise DataError(
                f"{where} has no class: the shard must hold its index or name in {where}.cls"
            )
        number = int(text) if text.lstrip("-").isdecimal() else None
        if number is not None and number < 0:
            raise DataError(f"{where} has the class index {number}; the first is 0")
        if not self.classes:
            return text if number is None else str(number)
        return self.resolve_class(text, number, where)

    def resolve_class(self, text: str, number: int | None, where: str) -> str:
        """Return a class of classes.txt by index or name. Raises DataError if it is not there."""
        if number is not None and number < len(self.classes):
            return self.classes[number].folder
        if text in self.folders:
            return text
        raise DataError(
            f"{where} has the class {text}, but {CLASSES_FILE} beside the shards names "
            f"{len(self.classes)} classes, 0 to {len(self.classes) - 1}"
        )


def is_url(name: str) -> bool:
    """Return whether a name is a URL rather than a path."""
    return "://" in name


def read_text(name: str) -> str | None:
    """Read a small text file from a path or URL; None if it does not exist. Raises DataError."""
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
    """Parse classes.txt: one class per line, in index order, its folder name and then its label."""
    lines = (line.split(maxsplit=1) for line in text.splitlines() if line.strip())
    pairs = [(p[0].rstrip(",:"), "".join(p[1:]).strip()) for p in lines if p[0][0] != "#"]
    folders = [folder for folder, _ in pairs]
    twice = next((folder for folder in folders if folders.count(folder) > 1), None)
    if twice is not None:
        raise DataError(f"{where} names the class {twice} twice")
    if len(folders) < 2:
        raise DataError(f"{where} names {len(folders)} classes; at least two are needed")
    labels = find_wordnet_labels(name for name, label in pairs if not label)
    return tuple(ClassName(name, label or labels.get(name, name)) for name, label in pairs)


def find_picture(sample: dict[str, Any]) -> bytes | None:
    """Return the bytes of a sample's picture; None if it has none."""
    return next((sample[suffix] for suffix in PICTURE_SUFFIXES if suffix in sample), None)


def read_shard(url: str) -> Iterator[dict[str, Any]]:
    """Yield the samples of one tar file, reading to its very end.

    Raises DataError, also if the command that fetches it says nothing for STALL_SECONDS.
    """
    try:
        stream = ShardStream(webdataset.gopen(url))
    except (OSError, ValueError) as error:
        raise explain_error(url, error) from error
    try:
        for sample in group_by_keys(tar_file_expander([{"url": url, "stream": stream}])):
            yield from split_dotted_keys(sample)
        while stream.read(2**20):
            pass
        ended = stream.close_and_check()
        if urlsplit(url).path.endswith(".tar") and stream.tail != bytes(TAR_END_BYTES):
            ended = ended or tarfile.ReadError("it has no end marker: it is truncated")
        if ended:
            raise ended
    except READ_ERRORS as error:
        # If a transfer failed, its own error says more than that of the truncated tar.
        raise explain_error(url, stream.close_and_check() or error) from error
    finally:
        stream.close()


def split_dotted_keys(sample: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the samples in what webdataset groups up to the first dot of their names.

    Of IMG_1.5.jpg and IMG_1.5.cls it makes a sample IMG_1 with 5.jpg and 5.cls. A picture whose
    class has the same name up to the last dot is a sample of its own; others, such as the mask
    key.seg.png beside key.jpg, are not.
    """
    prefixes = dict.fromkeys(
        name.rpartition(".")[0] for name in sample if name.rpartition(".")[2] in PICTURE_SUFFIXES
    )
    dotted = [p for p in prefixes if p and any(f"{p}.{kind}" in sample for kind in ("cls", "txt"))]
    if not dotted or find_picture(sample) is not None or "cls" in sample:
        yield sample
    shared = {name: value for name, value in sample.items() if name.startswith("__")}
    for prefix in dotted:
        start = f"{prefix}."
        own = {k.removeprefix(start): v for k, v in sample.items() if k.startswith(start)}
        yield shared | own | {"__key__": f"{sample['__key__']}.{prefix}"}


READ_ERRORS = (tarfile.TarError, OSError, EOFError, ValueError, zlib.error)
STALL_SECONDS = 60.0
"""How long a shard that is fetched may send nothing."""
TAR_END_BYTES = 1024
"""Number of zero bytes that end a tar file (POSIX)."""


class ShardStream:
    """A stream that remembers its last bytes and the error with which it ended."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.tail = stream, b""
        self.failure: Exception | None = None

    def read(self, size: int = -1) -> bytes:
        """Read like the wrapped stream."""
        process = getattr(self.stream, "proc", None)
        if process is None:
            data: bytes = self.stream.read(size)
        else:
            # Once its end of the pipe is closed, the reading ends.
            timer = threading.Timer(STALL_SECONDS, self.give_up, [process])
            timer.start()
            try:
                data = self.stream.read(size)
            finally:
                timer.cancel()
            if self.failure:
                raise self.failure
        self.tail = (self.tail + data[-TAR_END_BYTES:])[-TAR_END_BYTES:]
        return data

    def give_up(self, process: Any) -> None:
        """End the process that fetches the shard, which has said nothing for too long."""
        self.failure = TimeoutError(
            errno.ETIMEDOUT, f"the server does not answer: nothing came for {STALL_SECONDS:.0f} s"
        )
        kill_with_children(process.pid)

    def close_and_check(self) -> Exception | None:
        """Close the stream; return the error of the process that fetched it, or None."""
        try:
            self.stream.close()
        except OSError as error:
            self.failure = self.failure or error
        return self.failure

    def close(self) -> None:
        """Close the stream, and terminate the process that fetches it."""
        if not getattr(self.stream, "closed", False) and hasattr(self.stream, "proc"):
            self.stream.proc.terminate()
        self.close_and_check()


def kill_with_children(pid: int) -> None:
    """Kill a process and those that it started: a shell's command would keep the pipe open."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    started = children.read_text().split() if children.exists() else []
    for child in started:
        kill_with_children(int(child))
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


CURL_ERRORS = {
    6: "the host is not known",
    7: "the server cannot be reached",
    18: "the transfer was interrupted",
    22: "the server has no such file, or refuses it",
    28: "the server does not answer",
    56: "the transfer was interrupted",
}


def explain_error(url: str, error: Exception) -> DataError:
    """Return an error that says in one line what is wrong with a shard.

    It is an UnfinishedError if trying again may help.
    """
    exited = re.search(r": exit (\d+) \(read\)", str(error))
    if exited:
        code = int(exited[1])
        what = CURL_ERRORS.get(code, f"the command that fetches it ended with code {code}")
        return UnfinishedError(f"shard {url} cannot be fetched: {what}; what was done is kept")
    if isinstance(error, FileNotFoundError) and is_url(url):
        return UnfinishedError(f"shard {url} cannot be fetched: {error.filename} is not installed")
    if isinstance(error, OSError):
        return UnfinishedError(f"shard {url} cannot be read: {error.strerror or error}")
    reason = str(error.args[0] if error.args else error).splitlines()[0]
    kind = UnfinishedError if is_url(url) else DataError
    return kind(f"shard {url} is damaged: {reason}")
