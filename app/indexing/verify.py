"""Checks and describes an index version: `flask index verify` and `flask index stats`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from app.config import Settings
from app.database.images import find_version, read_class_ids_by_image
from app.database.session import Sessions
from app.inference.served_weights import LostWeightsError, find_weights_of_version
from index import store
from index.building.file_list import FILE_LIST, FileEntry, read_file_list
from index.engines import milvus_collections
from index.manifest import Manifest, StoreError, read_manifest
from index.search import Index
from index.vectors import compute_file_sha256
from model.dataset.folder import FolderError, scan_photographs
from storage.home import Home
from storage.parallel import map_ahead
from storage.progress import Report

SAMPLE_IMAGES = 64
"""Images whose neighbours are compared with those of an exhaustive search."""
NEIGHBOURS = 6


@dataclass
class Findings:
    """What was checked, a line each, and the problems found."""

    checked: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, check: str, problems: list[str]) -> None:
        """Record a check and the first few problems it found."""
        self.checked += [f"{check}: {'failed' if problems else 'ok'}"]
        self.problems += problems[:5]
        self.problems += [f"… and {len(problems) - 5:,} more"] * (len(problems) > 5)


def verify_version(
    settings: Settings,
    sessions: Sessions,
    report: Report,
    name: str | None = None,
    *,
    files: bool = True,
) -> Findings:
    """Check a version, by default the one in service, against itself, the database and the files.

    Checks the checksums of its files; that its weights are still there; its images against the
    database's list; the training files against the hashes they were read with, unless `files` is
    false; and the neighbours of a sample against an exhaustive search. Raises StoreError if there
    is no such version, and DatabaseError.
    """
    root = settings.home.index
    name = choose_version(root, name)
    found = Findings()
    manifest = read_manifest(root / name)
    found.add(
        "Checksums of the version's files", store.find_damage(root / name, manifest.checksums)
    )
    if found.problems:
        return found
    found.add("Weights that it was built with", find_lost_weights(settings.home, manifest))
    index = store.open_version(root, name, settings.search_device)
    found.add("Images against the database", compare_with_database(sessions, index))
    if files:
        found.add(
            "Training files against their hashes", compare_with_files(root / name, manifest, report)
        )
    if manifest.kind == "milvus":
        found.add("Vectors in Milvus against the shards", compare_with_milvus(settings, index))
    recall, wrong = compare_with_brute_force(index)
    found.add(
        f"Neighbours of {min(SAMPLE_IMAGES, len(index))} images, recall@6 {recall:.3f}", wrong
    )
    return found


def choose_version(root: Path, name: str | None) -> str:
    """Return the version's name, by default the one in service. Raises StoreError."""
    whole = store.list_versions(root)
    if name is not None and name not in whole:
        raise StoreError(f"There is no version {name}; versions: {', '.join(whole) or 'none'}")
    name = name or store.read_current_version(root)
    if name is None:
        raise StoreError("There is no index yet; run `flask index build`")
    return name


def find_lost_weights(home: Home, manifest: Manifest) -> list[str]:
    """Return why the weights that a version was built with cannot be found."""
    try:
        find_weights_of_version(home, manifest)
    except LostWeightsError as error:
        return [str(error)]
    return []


def compare_with_database(sessions: Sessions, index: Index) -> list[str]:
    """Return where the database's list of a version and its files differ."""
    version = find_version(sessions, index.manifest.name)
    if version is None:
        return [f"the database does not list {index.manifest.name}"]
    listed = read_class_ids_by_image(sessions, version.id)
    indexed = dict(zip(index.id_map.ids.tolist(), index.id_map.classes.tolist(), strict=True))
    wrong = [f"image {i} is in the index but not in the database" for i in indexed.keys() - listed]
    wrong += [f"image {i} is in the database but not in the index" for i in listed.keys() - indexed]
    both = indexed.keys() & listed.keys()
    return wrong + [f"image {i} has two classes" for i in both if indexed[i] != listed[i]]


def compare_with_files(folder: Path, manifest: Manifest, report: Report) -> list[str]:
    """Return training files that have changed or gone since they were read, and new ones."""
    entries, _ = read_file_list(folder / FILE_LIST)
    root, known = Path(manifest.data), {entry.path for entry in entries}
    try:
        new = [p.path for p in scan_photographs(root).train if p.path not in known]
    except FolderError as error:
        return [str(error)]
    wrong = find_changed_files(root, entries, report)
    if len(new) > manifest.unreadable:
        count = len(new) - manifest.unreadable
        wrong.append(f"new files: {count:,}; `flask index update` adds them")
    return wrong


def find_changed_files(root: Path, entries: Sequence[FileEntry], report: Report) -> list[str]:
    """Return which of the files that were read differ in `root` or are missing there."""
    progress = report("Reading the training files", len(entries))
    wrong = []
    digests = map_ahead(lambda entry: try_digest_file(root / entry.path), entries, SAMPLE_IMAGES)
    for done, (entry, sha256) in enumerate(zip(entries, digests, strict=True), start=1):
        if sha256 is None:
            wrong.append(f"{root / entry.path} is missing")
        elif sha256 != entry.sha256:
            wrong.append(f"{root / entry.path} has changed")
        progress(done)
    return wrong


def try_digest_file(file: Path) -> str | None:
    """SHA-256 of a file, or None if it cannot be read."""
    try:
        return compute_file_sha256(file)
    except OSError:
        return None


def compare_with_milvus(settings: Settings, index: Index) -> list[str]:
    """Return what is wrong with a version's collection in Milvus."""
    try:
        milvus_collections.verify_collection(
            settings.index_url, index.manifest.name, index.vectors, index.id_map
        )
    except StoreError as error:
        return [str(error)]
    return []


def compare_with_brute_force(index: Index) -> tuple[float, list[str]]:
    """Measure recall@6 of a sample of images, themselves left out; return it and the problems."""
    places = np.unique(np.linspace(0, len(index) - 1, SAMPLE_IMAGES).astype(int))
    truth = Index(index.manifest, index.vectors, index.id_map)
    hits = asked = 0
    wrong = []
    for place in places.tolist():
        image, row = int(index.id_map.ids[place]), index.id_map.rows[place]
        query = index.vectors.take([row])
        found = index.search(query, NEIGHBOURS, without=image)
        right = truth.search(query, NEIGHBOURS, without=image)
        distance = dict(zip(right.ids[0].tolist(), right.distances[0].tolist(), strict=True))
        common = [i for i in found.ids[0].tolist() if i in distance]
        hits, asked = hits + len(common), asked + len(distance)
        for one, measured in zip(found.ids[0].tolist(), found.distances[0].tolist(), strict=True):
            if distance.get(one, measured) != measured:
                wrong.append(f"image {image} is at two distances from {one}")
    recall = hits / asked if asked else 1.0
    wanted = (
        1.0
        if index.manifest.kind == "exact"
        else compute_lowest_plausible_recall(index.manifest.target, asked)
    )
    if recall < wanted:
        wrong.append(f"recall@6 of a sample is {recall:.3f}, below {wanted:.3f}")
    return recall, wrong


def compute_lowest_plausible_recall(target: float, asked: int) -> float:
    """The lowest recall expected of a sample: three standard deviations below the target."""
    return float(target - 3 * np.sqrt(target * (1 - target) / max(asked, 1)))


def collect_index_statistics(settings: Settings, name: str | None = None) -> dict[str, object]:
    """Return what there is to know about a version, by default the one in service.

    Raises StoreError.
    """
    root = settings.home.index
    manifest = read_manifest(root / choose_version(root, name))
    made = datetime.fromisoformat(manifest.created)
    sizes = {file: sealed.bytes for file, sealed in manifest.checksums.items()}
    vectors = sum(shard.bytes for shard in manifest.shards)
    return {
        "version": manifest.name,
        "served": manifest.name == store.read_current_version(root),
        "kind": manifest.kind,
        "images": manifest.images,
        "vectors": manifest.vectors,
        "rows on disk": manifest.rows,
        "left out": manifest.unreadable,
        "stored as": manifest.dtype,
        "bytes": sum(sizes.values()),
        "bytes of vectors": vectors,
        "bytes an image": round(sum(sizes.values()) / manifest.images),
        "recall asked for": manifest.target if manifest.kind != "exact" else 1.0,
        **manifest.recall,
        **{f"parameter {k}": v for k, v in manifest.parameters.items()},
        "nearly the same up to": manifest.near,
        "weights": manifest.weights,
        "weights file": manifest.weights_file,
        "photographs": manifest.data,
        "made": manifest.created,
        "age": format_age((datetime.now(UTC) - made).total_seconds()),
        "made by": manifest.made_by,
        "versions kept": store.list_versions(root),
    }


def format_age(seconds: float) -> str:
    """Write a duration in its largest unit."""
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} seconds"
