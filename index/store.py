"""Index versions on disk: a folder each, and the link `current` to the one in service.

The version's manifest names the weights that it was built with, so that one link puts both into
service. While weights serve without an index because somebody chose them, `current` leads to their
file instead.

A version is written to a hidden folder (index/draft.py), synced, and renamed into place; `current`
is switched by one rename. If a build dies, the previous version stays in service, and the next
build removes the remains.
"""

import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from index.engines.factory import open_engine
from index.engines.options import SearchDevice
from index.engines.protocol import VersionData
from index.id_map import read_id_map
from index.manifest import (
    MANIFEST_FILE,
    REBUILD_HINT,
    FileChecksum,
    Manifest,
    StoreError,
    read_manifest,
)
from index.projection import open_projections
from index.search import Index
from index.vectors import Vectors, compute_file_sha256, read_row_checksums
from storage.files import fsync, lock_file, switch_link

__all__ = ["Index", "Manifest", "StoreError", "read_manifest"]

CURRENT_LINK = "current"
LOCK_FILE = ".lock"
WEIGHTS_SUFFIX = ".safetensors"
PUBLISHED_MARK = "published"
"""An empty file in the folder of each version that is or has been in service."""
VERSION_NAME = re.compile(r"\d{8}T\d{12}Z-[0-9a-f]{8}")
"""Name of a version's folder; while the version is being written, a dot precedes it."""


@contextmanager
def acquire_build_lock(root: Path) -> Iterator[list[str]]:
    """Lock the versions against other builds, and remove the remains of dead builds.

    Yields the names of the versions that dead builds were writing. Raises StoreError if another
    build is running or the folder cannot be written. The system releases the lock when its holder
    dies.
    """
    with ExitStack() as stack:
        try:
            root.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock_file(root / LOCK_FILE, wait=False, keep=True))
        except BlockingIOError as error:
            raise StoreError(f"Another build is running in {root}; wait until it ends") from error
        except OSError as error:
            raise StoreError(f"The index cannot be kept in {root}: {error.strerror}") from error
        yield remove_unfinished_versions(root)


def remove_unfinished_versions(root: Path) -> list[str]:
    """Remove the remains of dead builds; return the names of their versions."""
    dead = []
    for entry in list(root.iterdir()):
        if entry.name.startswith(".") and VERSION_NAME.fullmatch(entry.name[1:]):
            shutil.rmtree(entry, ignore_errors=True)
            dead.append(entry.name[1:])
        elif entry.name.startswith(f".{CURRENT_LINK}.") and entry.is_symlink():
            entry.unlink(missing_ok=True)
    return dead


def publish_version(root: Path, name: str) -> None:
    """Put a version into service, and with it the weights it was built with. Raises StoreError."""
    read_manifest(root / name)
    mark = root / name / PUBLISHED_MARK
    try:
        if not mark.exists():
            mark.touch()
        switch_link(root / CURRENT_LINK, root / name)
        fsync(root)
    except OSError as error:
        raise StoreError(f"{root / CURRENT_LINK} cannot be switched: {error.strerror}") from error


def publish_weights(root: Path, file: Path) -> None:
    """Put weights without an index into service, in place of any version. Raises StoreError."""
    try:
        switch_link(root / CURRENT_LINK, file)
        fsync(root)
    except OSError as error:
        raise StoreError(f"{root / CURRENT_LINK} cannot be switched: {error.strerror}") from error


def read_published_weights(root: Path) -> Path | None:
    """Return the weights file that was put into service without an index, or None."""
    try:
        target = (root / CURRENT_LINK).readlink()
    except OSError:
        return None
    return root / target if target.suffix == WEIGHTS_SUFFIX else None


def find_earlier_version(root: Path, name: str | None = None) -> str:
    """Find a version by name, by default the last one before the version in service.

    While none is in service, that is the newest. Versions that have been in service come before
    those that were only built. Raises StoreError if there is none, or it is damaged.
    """
    whole, served = list_versions(root), read_current_version(root)
    if name is None:
        before = [v for v in whole if served is None or v < served]
        if not before:
            raise StoreError("There is no earlier version of the index to go back to")
        name = max(before, key=lambda v: ((root / v / PUBLISHED_MARK).exists(), v))
    if name not in whole:
        raise StoreError(f"There is no version {name}; there are {', '.join(whole) or 'none'}")
    check_version(root, name)
    return name


def read_current_version(root: Path) -> str | None:
    """Read the name of the version in service, or None if there is none.

    Raises StoreError if `current` leads elsewhere.
    """
    try:
        target = (root / CURRENT_LINK).readlink()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(
            f"{root / CURRENT_LINK} is not a link ({error.strerror}); remove it"
        ) from error
    if target.suffix == WEIGHTS_SUFFIX:
        return None
    if not VERSION_NAME.fullmatch(str(target)):
        raise StoreError(
            f"{root / CURRENT_LINK} points to {target}, which is not an index version; "
            f"{REBUILD_HINT}"
        )
    return str(target)


def open_version(root: Path, name: str, device: SearchDevice | None = None) -> Index:
    """Open a version for searching on a device, after checking every byte of it.

    Raises StoreError if it is missing, damaged, or of another format; SearchError if its vectors
    are in Milvus, which cannot be reached.
    """
    manifest, folder = check_version(root, name), root / name
    id_map = read_id_map(folder, manifest)
    version = VersionData(
        name=name,
        folder=folder,
        vectors=Vectors(
            folder, manifest.shards, manifest.dtype, read_row_checksums(folder, manifest)
        ),
        id_map=id_map,
        projections=open_projections(folder, id_map.live_rows),
        device=device or SearchDevice(),
    )
    engine = open_engine(manifest, version)
    return Index(manifest, version.vectors, id_map, engine, version.projections)


def check_version(root: Path, name: str) -> Manifest:
    """Check every byte of a version, and return its manifest. Raises StoreError."""
    manifest = read_manifest(root / name)
    wrong = (
        [f"{root / name / MANIFEST_FILE} names {manifest.name}"] if manifest.name != name else []
    )
    # With Milvus the shards may be too large to read at every start; `verify` reads them.
    wrong += find_damage(
        root / name, manifest.files if manifest.kind == "milvus" else manifest.checksums
    )
    if wrong:
        raise StoreError(f"{wrong[0]}; {REBUILD_HINT}")
    return manifest


def find_damage(folder: Path, files: Mapping[str, FileChecksum]) -> list[str]:
    """Describe what is wrong with a version's files, one line per file."""
    found = []
    for name, sealed in files.items():
        file = folder / name
        try:
            if file.stat().st_size != sealed.bytes:
                found.append(
                    f"{file} is damaged: {file.stat().st_size:,} bytes, not {sealed.bytes:,}"
                )
            elif compute_file_sha256(file) != sealed.sha256:
                found.append(f"{file} is damaged: its checksum is not the manifest's")
        except OSError as error:
            found.append(f"{file} cannot be read ({error.strerror})")
    return found


def list_versions(root: Path) -> list[str]:
    """List the names of the versions on disk, oldest first."""
    if not root.is_dir():
        return []
    return sorted(e.name for e in root.iterdir() if VERSION_NAME.fullmatch(e.name) and e.is_dir())


def delete_old_versions(
    root: Path, keep: int, known: Collection[str] | None = None
) -> tuple[list[str], list[str]]:
    """Delete all but the version in service and the newest others, `keep` in total.

    known: the versions that the database lists; None for all. Of the others, those that were never
    in service are of builds that died, and are deleted; the rest is of another database, and stays
    without being counted. The caller holds the build lock. Returns the names of those kept and of
    those deleted.
    """
    whole = list_versions(root)
    try:
        served = read_current_version(root)
    except StoreError:
        served = None
    if known is not None:
        foreign = [n for n in whole if n not in known and (root / n / PUBLISHED_MARK).exists()]
        whole = [name for name in whole if name not in foreign or name == served]
    others = [n for n in whole if n != served and (known is None or n in known)]
    kept = [name for name in whole if name == served]
    kept += others[len(others) - max(keep - len(kept), 0) :] if keep > len(kept) else []
    gone = [name for name in whole if name not in kept]
    for name in gone:
        delete_version(root, name)
    return sorted(kept), gone


def delete_version(root: Path, name: str) -> None:
    """Delete a version, hiding it first, so that a half-deleted one is ignored."""
    hidden = (root / name).rename(root / f".{name}")
    shutil.rmtree(hidden, ignore_errors=True)
