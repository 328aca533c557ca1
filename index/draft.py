"""A version that is being written: a hidden folder beside the versions, until it is committed."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from index.manifest import FileChecksum, Manifest, Shard, StoreError, write_manifest
from index.vectors import Vectors, compute_file_sha256, write_row_checksums
from storage.files import fsync, fsync_folder


class VersionDraft:
    """A version that is being written to a hidden folder."""

    def __init__(self, root: Path) -> None:
        self.root, self.created = root, datetime.now(UTC)
        self.name = f"{self.created:%Y%m%dT%H%M%S%fZ}-{secrets.token_hex(4)}"
        self.folder = root / f".{self.name}"
        self.shards: list[Shard] = []

    def link_shard(self, path: Path, shard: Shard) -> None:
        """Add a shard by hard-linking a file from elsewhere under the root. Raises OSError."""
        self.shards.append(shard)
        hardlink_or_copy(path, self.folder / shard.file)

    def open_vectors(self, dtype: str) -> Vectors:
        """Open the vectors of the shards added so far. Raises StoreError."""
        return Vectors(self.folder, self.shards, dtype)

    def commit(self, earlier: tuple[Path, Manifest] | None = None, **facts: Any) -> Manifest:
        """Write checksums and the manifest of all files, and make the version durable.

        earlier: folder and manifest of a version whose shards this one shares. facts: the
        manifest's other fields. Raises OSError.
        """
        write_row_checksums(self.folder, self.open_vectors(facts["dtype"]), earlier)
        known = {shard.file for shard in self.shards}
        others = sorted(f for f in self.folder.iterdir() if f.name not in known)
        manifest = Manifest(
            name=self.name,
            created=self.created.isoformat(timespec="seconds"),
            made_by=describe_software(),
            shards=self.shards,
            files={f.name: describe_file(f) for f in others},
            **facts,
        )
        write_manifest(manifest, self.folder)
        fsync_folder(self.folder)
        self.folder.rename(self.root / self.name)
        fsync(self.root)
        return manifest


def add_files(folder: Path, manifest: Manifest, source: Path) -> list[str]:
    """Move files that a finished version lacks into its folder, and list them in its manifest.

    The manifest comes last: without it, a file is not part of the version. Returns their names.
    Raises StoreError if the disk is full or fails.
    """
    new = sorted(file.name for file in source.iterdir() if file.name not in manifest.checksums)
    try:
        fsync_folder(source)
        for name in new:
            (source / name).replace(folder / name)
        added = {name: describe_file(folder / name) for name in new}
        write_manifest(replace(manifest, files=manifest.files | added), folder)
        fsync(folder)
    except OSError as error:
        raise StoreError(f"{folder} cannot be written: {error.strerror or error}") from error
    return new


def describe_file(file: Path) -> FileChecksum:
    """Return a file's size and checksum. Raises OSError."""
    return FileChecksum(bytes=file.stat().st_size, sha256=compute_file_sha256(file))


@contextmanager
def draft_version(root: Path) -> Iterator[VersionDraft]:
    """Draft a new version, without publishing it; unless committed, it is deleted at the end.

    Raises StoreError if the disk is full or fails.
    """
    draft = VersionDraft(root)
    try:
        draft.folder.mkdir(parents=True)
        yield draft
    except OSError as error:
        raise StoreError(
            f"The index cannot be written to {root}: {error.strerror or error}; the version served "
            "before is unchanged. Free the disk, then run the command again: it resumes"
        ) from error
    finally:
        shutil.rmtree(draft.folder, ignore_errors=True)


def hardlink_or_copy(source: Path, target: Path) -> None:
    """Hard-link a file, or copy it if the file system has no hard links."""
    try:
        target.hardlink_to(source)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)


def describe_software() -> str:
    """Describe the versions of this project and of FAISS."""
    # Not above: a server that searches exactly on the CPU does without FAISS and its 100 MB.
    import faiss

    try:
        own = version("alexnet-two-towers")
    except PackageNotFoundError:
        own = "not installed"
    return f"alexnet-two-towers {own}, FAISS {faiss.__version__}"
