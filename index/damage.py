"""Notices damage to a version's files while answers are computed from them.

Every file is checked whole when a version is opened. Afterwards, what is read of the vectors and of
their projections is checked block by block against checksums: each block when it is first read, or
first after the file was written to, and a sample of the blocks on every later read.
"""

import os
import random
import weakref
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from index.manifest import REBUILD_HINT, StoreError

Checksums = npt.NDArray[np.uint64]
SAMPLED_SHARE = 8
"""One in so many blocks is checked again on each later read."""


class DamageError(StoreError):
    """A file in service is damaged: answers computed from it would be wrong."""

    def __init__(self, file: "OpenedFile", problem: str) -> None:
        super().__init__(f"{file.path} {problem}; {REBUILD_HINT}")
        self.file = file


class OpenedFile:
    """A file that stays open, so that it can still be read when it has been deleted. Thread-safe.

    changed: whether it has been written to since it was opened.
    """

    def __init__(self, path: Path) -> None:
        """Open a file. Raises StoreError."""
        self.path, self.changed = path, False
        try:
            self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise StoreError(f"{path} cannot be read ({error.strerror}); {REBUILD_HINT}") from error
        weakref.finalize(self, os.close, self.number)
        self.stamp = self.read_stamp()

    @property
    def size(self) -> int:
        """The file's size in bytes when it was opened or last noticed to change."""
        return self.stamp[0]

    def read_stamp(self) -> tuple[int, int]:
        """Read the size and the time of the last change."""
        found = os.fstat(self.number)
        return found.st_size, found.st_mtime_ns

    def notice_change(self) -> bool:
        """Whether the file was written to since the last call or since it was opened."""
        stamp = self.read_stamp()
        if stamp == self.stamp:
            return False
        self.stamp, self.changed = stamp, True
        return True

    def has_changed(self) -> bool:
        """Whether the file was written to since it was opened."""
        return self.changed or self.read_stamp() != self.stamp

    def check_size(self) -> None:
        """Raise DamageError if the file has another size than when it was opened.

        A mapped file that was cut short ends the process that touches what is gone.
        """
        size = self.size
        if self.read_stamp()[0] != size:
            self.changed = True
            raise DamageError(self, "is damaged: its size has changed")

    def read(self, target: npt.NDArray[Any], place: int) -> None:
        """Fill an array with the bytes from `place` on. Raises DamageError if there are too few."""
        view = target.data.cast("B")
        done = 0
        while done < len(view):
            try:
                count = os.preadv(self.number, [view[done:]], place + done)
            except OSError as error:
                raise DamageError(self, f"cannot be read ({error.strerror})") from error
            if not count:
                self.changed = True
                raise DamageError(self, "became shorter while it was in use")
            done += count


class BlockChecks:
    """The checksums of blocks, and which blocks have been checked. Thread-safe."""

    def __init__(self, checksums: Checksums) -> None:
        self.checksums = checksums
        self.checked = np.zeros(len(checksums), bool)

    def forget(self, first: int, end: int) -> None:
        """Check the blocks from `first` to before `end` anew when they are next read."""
        self.checked[first:end] = False

    def are_whole(self, numbers: npt.NDArray[np.int64], blocks: npt.NDArray[Any]) -> bool:
        """Whether blocks that were read, [n, …], are what was written, as far as is checked now."""
        chosen = ~self.checked[numbers]
        chosen[random.randrange(SAMPLED_SHARE) :: SAMPLED_SHARE] = True
        if not chosen.any():
            return True
        some = numbers[chosen]
        if (compute_checksums(blocks[chosen]) != self.checksums[some]).any():
            return False
        self.checked[some] = True
        return True


def compute_checksums(blocks: npt.NDArray[Any]) -> Checksums:
    """Compute a checksum of each block, [n, …] of any type: uint64 [n].

    The sum of its 64-bit words, each times an odd number of its own, modulo 2⁶⁴. Any change of one
    word changes it; it takes a fraction of the time of a CRC without the processor's help.
    """
    rows = np.ascontiguousarray(blocks).reshape(len(blocks), -1).view(np.uint8)
    if missing := -rows.shape[1] % 8:
        rows = np.pad(rows, ((0, 0), (0, missing)))
    words = rows.view(np.uint64)
    checksums: Checksums = np.einsum("ij,j->i", words, make_factors(words.shape[1]))
    return checksums


@cache
def make_factors(count: int) -> Checksums:
    """Make odd numbers without a pattern: SplitMix64 (Steele, Lea and Flood, 2014)."""
    z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    return (z ^ (z >> np.uint64(31))) | np.uint64(1)
