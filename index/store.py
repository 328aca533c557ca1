"""Index versions on disk: a folder each, and the link `current` to the one that is served.

A version is written whole into a hidden folder, made durable, and renamed into place; `current`
is switched by one rename. Whatever moment a build dies at, what was served before still is, and
the next build removes what it left.
"""

import fcntl
import hashlib
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from index.manifest import FORMAT, MEND, Manifest, StoreError, read_manifest, write_manifest
from index.search import Floats, Ids, Index, checked
from model.alexnet import FEATURES
from model.home import make_durable, point, sync

__all__ = ["Index", "Manifest", "StoreError", "read_manifest"]

CURRENT = "current"
LOCK = ".lock"
VECTORS = "features.faiss"
NAME = re.compile(r"\d{8}T\d{12}Z-[0-9a-f]{8}")
"""A version's folder; a dot stands before it while it is being written."""
CHUNK = 1 << 20


@contextmanager
def building(root: Path) -> Iterator[None]:
    """Hold the right to build: one at a time. Removes what earlier builds left unfinished.

    Raises StoreError when another build is at work or the folder cannot be written. The system
    takes the lock back when its holder dies.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        file = (root / LOCK).open("w")
    except OSError as error:
        raise StoreError(f"The index cannot be kept in {root}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreError(f"Another build is at work in {root}; wait until it ends") from error
        prune(root)
        yield


def write_version(
    root: Path,
    *,
    weights: str,
    data: str,
    unreadable: int,
    listing: str,
    ids: Ids,
    features: Floats,
) -> Manifest:
    """Write a new version beside the others and give its manifest; nothing is switched.

    ids: int64 [M], rising. features: float32 [M, 4096], finite. Raises StoreError; then nothing
    of it stays.
    """
    check_vectors(ids, features)
    now = datetime.now(UTC)
    name = f"{now:%Y%m%dT%H%M%S%fZ}-{secrets.token_hex(4)}"
    part = root / f".{name}"
    try:
        part.mkdir(parents=True)
        manifest = Manifest(
            format=FORMAT,
            name=name,
            weights=weights,
            data=data,
            created=now.isoformat(timespec="seconds"),
            count=len(ids),
            unreadable=unreadable,
            listing=listing,
            sha256=write_vectors(part / VECTORS, ids, features),
            largest=float(max(np.square(row, dtype=np.float64).sum() for row in features)),
        )
        write_manifest(manifest, part)
        make_durable(part)
        part.rename(root / name)
        sync(root)
    except OSError as error:
        raise StoreError(
            f"The index cannot be written to {root}: {error.strerror or error}; what was served "
            "before is unchanged. Mend that, then run `flask index build`"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return manifest


def publish(root: Path, name: str) -> None:
    """Make a version the one that is served. Raises StoreError."""
    read_manifest(root / name)
    try:
        point(root / CURRENT, root / name)
        sync(root)
    except OSError as error:
        raise StoreError(f"{root / CURRENT} cannot be switched: {error.strerror}") from error


def current_name(root: Path) -> str | None:
    """The name of the version that is served, or None. Raises StoreError on an odd `current`."""
    try:
        target = (root / CURRENT).readlink()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{root / CURRENT} is no link ({error.strerror}); remove it") from error
    if not NAME.fullmatch(str(target)):
        raise StoreError(f"{root / CURRENT} points to {target}, no index version; {MEND}")
    return str(target)


def open_version(root: Path, name: str, device: str = "auto") -> Index:
    """Read a version, whole and checked. `device` is the setting: auto, cpu, cuda or mps.

    Raises StoreError: it is missing, damaged, or of another format.
    """
    manifest = check_version(root, name)
    return Index(manifest, read_vectors(root / name / VECTORS, manifest), device)


def check_version(root: Path, name: str) -> Manifest:
    """See that a version is whole, and give its manifest. Raises StoreError."""
    manifest = read_manifest(root / name)
    file = root / name / VECTORS
    try:
        found = digest(file)
    except OSError as error:
        raise StoreError(f"{file} cannot be read ({error.strerror}); {MEND}") from error
    if manifest.name != name or found != manifest.sha256:
        raise StoreError(f"{file} is damaged or not the one of its manifest; {MEND}")
    return manifest


def versions(root: Path) -> list[str]:
    """The names of the whole versions on disk, oldest first."""
    return sorted(e.name for e in root.iterdir() if NAME.fullmatch(e.name) and e.is_dir())


def prune(root: Path) -> list[str]:
    """Delete all but the version served and the one before it; give the names of those kept.

    Only for who holds `building`: whatever else is there, a dead build left.
    """
    kept = worth_keeping(root)
    for entry in list(root.iterdir()):
        if NAME.fullmatch(entry.name.removeprefix(".")) and entry.name not in kept:
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name.startswith(f".{CURRENT}.") and entry.is_symlink():
            entry.unlink(missing_ok=True)
    return kept


def worth_keeping(root: Path) -> list[str]:
    """The version served and the one before it; the last two where `current` leads nowhere."""
    whole = versions(root)
    try:
        current = current_name(root)
    except StoreError:
        current = None
    if current not in whole:
        return whole[-2:]
    return [name for name in whole if name <= current][-2:]


def check_vectors(ids: Ids, features: Floats) -> None:
    """Raise StoreError unless these are ids and vectors an index can be made of."""
    if len(ids) == 0:
        raise StoreError("No image could be read, so there is nothing to index")
    if len(ids) != len(features) or (np.diff(ids) <= 0).any() or ids[0] < 0:
        raise StoreError("Every vector needs an id, and the ids must rise")
    try:
        for start in range(0, len(features), 1024):
            checked(features[start : start + 1024])
    except ValueError as error:
        raise StoreError(f"{error}: the weights are broken; train anew") from error


def write_vectors(file: Path, ids: Ids, features: Floats) -> str:
    """Write the FAISS file and give its SHA-256 in hex. Raises OSError."""
    mapped = faiss.IndexIDMap2(faiss.IndexFlatL2(FEATURES))
    mapped.add_with_ids(np.ascontiguousarray(features, np.float32), np.asarray(ids, np.int64))
    seen = hashlib.sha256()
    with file.open("wb") as out:

        def write(data: Any) -> None:
            # FAISS closes its own files without a word when the disk is full; Python tells.
            seen.update(data)
            out.write(data)

        writer = faiss.PyCallbackIOWriter(write, CHUNK)  # type: ignore[attr-defined]
        faiss.write_index(mapped, writer)
    return seen.hexdigest()


def read_vectors(file: Path, manifest: Manifest) -> faiss.IndexIDMap2:
    """Read the FAISS file. Raises StoreError when it holds something else than expected."""
    try:
        mapped = faiss.read_index(str(file))
    except (RuntimeError, MemoryError) as error:
        raise StoreError(f"FAISS cannot read {file} ({error}); {MEND}") from error
    if isinstance(mapped, faiss.IndexIDMap2):
        flat = faiss.downcast_index(mapped.index)
        found = (flat.d, flat.ntotal, mapped.id_map.size())
        if isinstance(flat, faiss.IndexFlatL2) and found == (FEATURES, *2 * [manifest.count]):
            return mapped
    raise StoreError(f"{file} is not {manifest.count} vectors of {FEATURES}; {MEND}")


def digest(file: Path) -> str:
    """SHA-256 of a file, in hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
