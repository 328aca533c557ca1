"""Photographs that an earlier prepared set holds already, which need not be decoded again."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.dataset.listing import Listing, digest_photograph, read_listings
from training.dataset.source import SPLITS, SplitName
from training.dataset.store import META_FILE, Split


@dataclass(frozen=True)
class KnownPhotographs:
    """The photographs of an earlier set.

    by_name:   where each lies in it: split, row, size, time of modification, and digest. Empty if
               the photographs lie in another folder now.
    by_digest: split and row of each content.
    """

    splits: dict[SplitName, Split]
    by_name: dict[str, tuple[SplitName, int, int, int, bytes]]
    by_digest: dict[bytes, tuple[SplitName, int]]

    def find_unchanged(self, name: str, size: int, changed: int) -> tuple[bytes, bytes] | None:
        """Return the stored bytes and the digest of a photograph that looks as it did then."""
        found = self.by_name.get(name)
        if found is None or found[2:4] != (size, changed):
            return None
        split, row, _size, _changed, digest = found
        return self.read(split, row), digest

    def find_content(self, digest: bytes) -> bytes | None:
        """Return the stored bytes of a photograph with this content."""
        found = self.by_digest.get(digest)
        return self.read(*found) if found else None

    def read(self, split: SplitName, row: int) -> bytes:
        """Return the stored bytes of a row."""
        (entry,) = self.splits[split].iter_encoded(np.array([row]))
        return entry.tobytes()


NOTHING_KNOWN = KnownPhotographs({}, {}, {})


def index_known(
    splits: dict[SplitName, Split], listings: dict[str, Listing], *, same_place: bool
) -> KnownPhotographs:
    """Index the photographs of a set by name, if they lie where they did, and by content."""
    by_name: dict[str, tuple[SplitName, int, int, int, bytes]] = {}
    by_digest: dict[bytes, tuple[SplitName, int]] = {}
    for split in SPLITS:
        listing, row = listings[split], 0
        rows = zip(
            listing.names,
            listing.digests,
            listing.sizes.tolist(),
            listing.changed.tolist(),
            listing.readable.tolist(),
            strict=True,
        )
        for name, digest, size, changed, readable in rows:
            if not readable:
                continue
            content = digest.tobytes()
            by_digest[content] = (split, row)
            # Photographs in shards have no time of modification of their own.
            if same_place and changed:
                by_name[name] = (split, row, size, changed, content)
            row += 1
    return KnownPhotographs(splits, by_name, by_digest)


def list_finished_sets(store: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the folders of finished sets, last used first, links excepted, with their meta.json."""
    found: list[tuple[float, Path, dict[str, Any]]] = []
    for folder in store.iterdir() if store.is_dir() else ():
        if folder.is_symlink():
            continue
        with suppress(OSError, ValueError):
            meta = json.loads((folder / META_FILE).read_text())
            if isinstance(meta, dict) and "content" in meta:
                found.append((folder.stat().st_mtime, folder, meta))
    for _, folder, meta in sorted(found, key=lambda entry: entry[0], reverse=True):
        yield folder, meta


def find_related_set(store: Path, root: Path | str, form: str) -> tuple[Path, bool] | None:
    """Return the set to take known photographs from: of the same folder, else the last used.

    form: how photographs are stored in it. Returns its folder, and whether it is of the same place;
    None if there is none.
    """
    others = [(folder, meta) for folder, meta in list_finished_sets(store) if meta["form"] == form]
    same = [folder for folder, meta in others if meta.get("root") == str(root)]
    if same:
        return same[0], True
    return (others[0][0], False) if others else None


def find_set_of_content(store: Path, content: str) -> Path | None:
    """Return the folder of the finished set of this content, if it is still there."""
    sets = list_finished_sets(store)
    return next((folder for folder, meta in sets if meta["content"] == content), None)


def has_same_content(root: Path, names: tuple[str, ...], folder: Path) -> bool:
    """Return whether a folder has exactly a set's photographs; reads them if their names agree."""
    with suppress(OSError, ValueError, KeyError):
        listings = read_listings(folder)
        known = [name for split in SPLITS for name in listings[split].names]
        if known != list(names):
            return False
        pairs = [
            (name, size, digest.tobytes())
            for split in SPLITS
            for name, size, digest in zip(
                listings[split].names,
                listings[split].sizes.tolist(),
                listings[split].digests,
                strict=True,
            )
        ]
        # Sizes first: they tell apart most sets without reading.
        return all((root / name).stat().st_size == size for name, size, _ in pairs) and all(
            digest_photograph((root / name).read_bytes()) == digest for name, _, digest in pairs
        )
    return False
