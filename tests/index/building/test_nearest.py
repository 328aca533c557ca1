"""The nearest training vectors of validation images: found once, then only among what is new."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.building.file_list import FileEntry
from index.building.nearest import find_nearest_rows, write_nearest_rows
from index.building.validation import ValidationImages
from index.engines.protocol import VersionData
from index.manifest import Manifest
from index.vectors import Vectors

COUNT = 60


def validation_of(features: Any, numbers: Sequence[int]) -> ValidationImages:
    """Validation images whose files' hashes are numbers."""
    entries = [
        FileEntry(
            path=f"val/{n}", size=1, mtime_ns=0, ctime_ns=0, sha256=f"{n:064x}", format="JPEG",
            width=1, height=1, pixels=f"{n:032x}",
        )
        for n in numbers
    ]  # fmt: skip
    return ValidationImages(
        entries=entries,
        features=features,
        thumbnails=np.zeros((len(entries), 32, 32, 3), np.uint8),
        probabilities=np.zeros((0, 2), np.float32),
        labels=np.zeros(len(entries), np.int64),
    )


def brute_force(stored: Any, live: Any, features: Any) -> tuple[Any, Any]:
    """The nearest of the live rows, and its squared distance."""
    values = stored[live].astype(np.float16).astype(np.float64)
    squared = np.square(features[:, None].astype(np.float64) - values).sum(axis=2)
    return np.asarray(live)[squared.argmin(axis=1)], squared.min(axis=1)


def test_an_update_compares_only_what_is_new_or_has_lost_its_nearest(
    vectors: Callable[..., Any],
    open_vectors: Callable[..., Vectors],
    version_of: Callable[..., VersionData],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored, features = vectors(COUNT, seed=1), vectors(12, seed=2)
    both = open_vectors(tmp_path, stored)
    first_shard = both.shards[:1]
    old = first_shard[0].rows
    before = Vectors(tmp_path, first_shard, both.dtype)
    images = validation_of(features[:10], range(10))
    version = version_of(tmp_path / "before", before)
    first = find_nearest_rows(before, version.id_map, images)
    rows, squared = brute_force(stored, np.arange(old), features[:10])
    assert (first.rows == rows).all()
    assert first.squared == pytest.approx(squared, rel=1e-12)
    write_nearest_rows(version.folder, first)
    manifest = Manifest(
        name="v", weights="w", data="/d", created="", made_by="", images=old, vectors=old,
        unreadable=0, listing="", dtype="float16", kind="exact", target=1.0,
        shards=[*first_shard], files={},
    )  # fmt: skip
    gone = int(first.rows[0])
    live = [row for row in range(COUNT) if row != gone]
    later = version_of(tmp_path / "later", both, live)
    now = validation_of(features, range(12))
    read: list[int] = []
    borrow = both.borrow
    monkeypatch.setattr(both, "borrow", lambda rows: (read.extend(rows.tolist()), borrow(rows))[1])
    found = find_nearest_rows(both, later.id_map, now, (version.folder, manifest, images))
    rows, squared = brute_force(stored, live, features)
    assert (found.rows == rows).all()
    assert found.squared == pytest.approx(squared, rel=1e-12)
    # All vectors once, for the new images and those whose nearest has gone; the new ones again.
    assert sorted(read) == sorted([*live, *range(old, COUNT)])
