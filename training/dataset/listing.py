"""What the photographs of a prepared set were, so that those that have not changed are known again.

A photograph is known by a digest of its file's bytes. Its name, size and time of modification spare
the reading where it lies in the same place as before.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from training.dataset.source import SPLITS, Sample

Arrays = dict[str, npt.NDArray[np.generic]]
DIGEST_BYTES = 16
LISTING_FILE = "listing.npz"
MAX_NAMED = 3
"""Photographs that a message names of each kind of change."""


class Origin(NamedTuple):
    """A photograph's file when it was decoded.

    digest: the first 16 bytes of its SHA-256. size: in bytes. changed: when, in nanoseconds since
    1970; 0 in a shard. readable: whether it could be decoded.
    """

    name: str
    digest: bytes
    size: int
    changed: int
    readable: bool = True


@dataclass(frozen=True)
class Listing:
    """The photographs of one split, those that cannot be read included, in their order."""

    names: tuple[str, ...]
    digests: npt.NDArray[np.uint8]
    sizes: npt.NDArray[np.int64]
    changed: npt.NDArray[np.int64]
    readable: npt.NDArray[np.bool_]

    @classmethod
    def from_origins(cls, origins: Sequence[Origin]) -> "Listing":
        """Make a listing of photographs in their order."""
        digests = np.frombuffer(b"".join(origin.digest for origin in origins), np.uint8)
        return cls(
            names=tuple(origin.name for origin in origins),
            digests=digests.reshape(-1, DIGEST_BYTES),
            sizes=np.array([origin.size for origin in origins], np.int64),
            changed=np.array([origin.changed for origin in origins], np.int64),
            readable=np.array([origin.readable for origin in origins], np.bool_),
        )

    @classmethod
    def join(cls, listings: Sequence["Listing"]) -> "Listing":
        """Concatenate the listings of chunks."""
        empty = cls.from_origins([])
        parts = [empty, *listings]
        return cls(
            names=tuple(name for part in parts for name in part.names),
            digests=np.concatenate([part.digests for part in parts]),
            sizes=np.concatenate([part.sizes for part in parts]),
            changed=np.concatenate([part.changed for part in parts]),
            readable=np.concatenate([part.readable for part in parts]),
        )

    def to_arrays(self, prefix: str = "listed_") -> Arrays:
        """Return the listing as arrays for an npz file; no name contains a zero byte."""
        joined = "\0".join(self.names).encode("utf-8", "surrogateescape")
        return {
            f"{prefix}names": np.frombuffer(joined, np.uint8),
            f"{prefix}digests": self.digests,
            f"{prefix}sizes": self.sizes,
            f"{prefix}changed": self.changed,
            f"{prefix}readable": self.readable,
        }

    @classmethod
    def from_arrays(cls, arrays: "np.lib.npyio.NpzFile", prefix: str = "listed_") -> "Listing":
        """Return the listing that `to_arrays` made. Raises KeyError if there is none."""
        text = arrays[f"{prefix}names"].tobytes().decode("utf-8", "surrogateescape")
        sizes = arrays[f"{prefix}sizes"]
        return cls(
            names=tuple(text.split("\0")) if len(sizes) else (),
            digests=arrays[f"{prefix}digests"],
            sizes=sizes,
            changed=arrays[f"{prefix}changed"],
            readable=arrays[f"{prefix}readable"],
        )


def read_listings(folder: Path) -> dict[str, Listing]:
    """Read the listings of a finished set's splits. Raises OSError, ValueError or KeyError."""
    with np.load(folder / LISTING_FILE, allow_pickle=False) as arrays:
        return {split: Listing.from_arrays(arrays, f"{split}_") for split in SPLITS}


def digest_content(form: str, listings: dict[str, Listing]) -> str:
    """Digest what a set consists of to 16 hex digits: names and contents, wherever they lie.

    form: how it is stored, such as its side.
    """
    digest = hashlib.sha256(form.encode())
    for split in SPLITS:
        arrays = listings[split].to_arrays()
        for name in ("listed_names", "listed_digests", "listed_readable"):
            digest.update(f"\0{split} {name} {len(arrays[name])}\0".encode())
            digest.update(arrays[name].tobytes())
    return digest.hexdigest()[:16]


def digest_photograph(data: bytes) -> bytes:
    """Digest a photograph's bytes."""
    return hashlib.sha256(data).digest()[:DIGEST_BYTES]


def examine_file(sample: Sample) -> tuple[int, int]:
    """Return the size and the time of modification of a sample's file. Raises OSError."""
    if isinstance(sample.data, Path):
        status = sample.data.stat()
        return status.st_size, status.st_mtime_ns
    return len(sample.data), 0


def describe_changes(root: Path, then: Sequence[Listing], now: Sequence[str]) -> str:
    """Describe what differs between listings and a folder's photographs; empty if nothing does.

    now: the photographs' names in the folder `root`. Those that look different are read.
    """
    known = {
        name: (size, changed, digest.tobytes())
        for listing in then
        for name, size, changed, digest in zip(
            listing.names,
            listing.sizes.tolist(),
            listing.changed.tolist(),
            listing.digests,
            strict=True,
        )
    }
    kinds = {
        "added": [name for name in now if name not in known],
        "removed": sorted(set(known) - set(now)),
        "changed": [name for name in now if name in known and differs(root / name, *known[name])],
    }
    parts = [
        f"{len(names):,} {kind}: {', '.join(names[:MAX_NAMED])}{' …' * (len(names) > MAX_NAMED)}"
        for kind, names in kinds.items()
        if names
    ]
    return "; ".join(parts)


def differs(file: Path, size: int, changed: int, digest: bytes) -> bool:
    """Return whether a file's content differs; it is read only if its time does."""
    try:
        status = file.stat()
        if status.st_size != size:
            return True
        return status.st_mtime_ns != changed and digest_photograph(file.read_bytes()) != digest
    except OSError:
        return True
