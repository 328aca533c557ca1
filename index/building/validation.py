"""The validation images of a version: pixels, features and probabilities, computed once.

They are not searched. The build measures with them how far answers can be trusted
(index/calibration.py), and the review looks for copies of them among the training images.
The files `validation.npz` and `validation_files.npz` keep what was computed for the next version.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from index.arrays import load_arrays, save_arrays
from index.building.file_list import (
    FileEntry,
    escape_file_name,
    read_file_list,
    write_file_list,
)
from index.building.reader import DecodedFile, read_file_stamp, read_photograph
from index.building.sampling import DRAW_KEY
from index.manifest import REBUILD_HINT, StoreError
from index.sample import THUMBNAIL_SIDE, Pixels, make_thumbnail
from index.vectors import Floats, Ids
from model.dataset.folder import Photograph
from model.network.config import FEATURES
from model.predict import Predictor
from storage.parallel import map_ahead, split_batches
from storage.progress import Report

VALIDATION_FILE, VALIDATION_LIST = "validation.npz", "validation_files.npz"
MAX_VALIDATION_IMAGES = 5_000
"""Validation images that are looked at, drawn by their paths if there are more."""
MAX_TEN_CROP_IMAGES = 256
"""Those that the ten crops' probabilities are computed of, the first drawn."""
IMAGES_PER_BATCH = 16
COLUMNS = {"features": "<f2", "thumbnails": "|u1", "probabilities": "<f4", "labels": "<i8"}


@dataclass(frozen=True, kw_only=True)
class ValidationImages:
    """Validation images, in the order of the draw.

    entries: V files. features: float32 [V, 4096], of the centre crops. thumbnails: uint8
    [V, 32, 32, 3]. labels: int64 [V], the index of each one's class in the folder's list.
    probabilities: float32 [P, classes], the means of the first P images' ten crops, P ≤ 256.
    """

    entries: list[FileEntry]
    features: Floats
    thumbnails: Pixels
    probabilities: Floats
    labels: Ids


def measure_validation_images(
    predictor: Predictor,
    root: Path,
    photographs: Sequence[Photograph],
    before: ValidationImages | None,
    report: Report,
) -> ValidationImages:
    """Compute the features of validation images; take those of unchanged files from `before`.

    Unreadable files are left out.
    """
    drawn = draw_photographs(photographs)
    known = {e.path: place for place, e in enumerate(before.entries)} if before else {}
    found = empty_validation_images(len(drawn), len(predictor.classes))
    new: list[int] = []
    for place, photograph in enumerate(drawn):
        earlier = known.get(photograph.path)
        needs_ten = place < MAX_TEN_CROP_IMAGES
        if before is not None and earlier is not None:
            entry = before.entries[earlier]
            whole = not needs_ten or earlier < len(before.probabilities)
            if whole and entry.stamp == read_file_stamp(root / entry.path):
                copy_row(before, earlier, found, place)
                continue
        new.append(place)
    compute_new_images(predictor, root, drawn, new, found, report)
    readable = [place for place, entry in enumerate(found.entries) if entry.path]
    found.labels[:] = [photograph.class_index for photograph in drawn]
    return ValidationImages(
        entries=[found.entries[place] for place in readable],
        features=found.features[readable],
        thumbnails=found.thumbnails[readable],
        probabilities=found.probabilities[[p for p in readable if p < MAX_TEN_CROP_IMAGES]],
        labels=found.labels[readable],
    )


def draw_photographs(photographs: Iterable[Photograph]) -> list[Photograph]:
    """Draw at most 5,000 photographs, in the order of their paths' keyed hashes."""

    def hash_path(photograph: Photograph) -> bytes:
        return hashlib.blake2b(photograph.path.encode(), digest_size=8, key=DRAW_KEY).digest()

    # A name that is not UTF-8 has no place in the file list.
    fit = [p for p in photographs if escape_file_name(p.path) == p.path]
    return sorted(fit, key=hash_path)[:MAX_VALIDATION_IMAGES]


def empty_validation_images(count: int, classes: int) -> ValidationImages:
    """Make room for the images; an entry without a path is not there yet."""
    none = FileEntry(
        path="", size=0, mtime_ns=0, ctime_ns=0, sha256="", format="", width=0, height=0, pixels=""
    )
    return ValidationImages(
        entries=[none] * count,
        features=np.zeros((count, FEATURES), np.float32),
        thumbnails=np.zeros((count, THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3), np.uint8),
        probabilities=np.zeros((min(count, MAX_TEN_CROP_IMAGES), classes), np.float32),
        labels=np.zeros(count, np.int64),
    )


def copy_row(source: ValidationImages, earlier: int, target: ValidationImages, place: int) -> None:
    """Copy one image's row."""
    target.entries[place] = source.entries[earlier]
    target.features[place] = source.features[earlier]
    target.thumbnails[place] = source.thumbnails[earlier]
    if place < len(target.probabilities):
        target.probabilities[place] = source.probabilities[earlier]


def compute_new_images(
    predictor: Predictor,
    root: Path,
    drawn: Sequence[Photograph],
    new: Sequence[int],
    found: ValidationImages,
    report: Report,
) -> None:
    """Read and compute the images at these places, batch by batch, and fill in their rows."""
    if not new:
        return
    resize = predictor.config.resize
    report_done = report("Computing validation images", len(new))

    def read(place: int) -> tuple[int, DecodedFile | None]:
        decoded = read_photograph(root, drawn[place].path, lambda _: None, resize)
        return place, decoded if isinstance(decoded, DecodedFile) else None

    done = 0
    for group in split_batches(map_ahead(read, new, 2 * IMAGES_PER_BATCH), IMAGES_PER_BATCH):
        good = [(place, one) for place, one in group if one is not None and one.square is not None]
        for ten_crops in (True, False):
            some = [(p, one) for p, one in good if (p < MAX_TEN_CROP_IMAGES) is ten_crops]
            if some:
                fill_rows(predictor, some, ten_crops, found)
        done += len(group)
        report_done(done)


def fill_rows(
    predictor: Predictor,
    images: Sequence[tuple[int, DecodedFile]],
    ten_crops: bool,
    found: ValidationImages,
) -> None:
    """Compute a batch, with the probabilities of ten crops or the features alone."""
    places = [place for place, _ in images]
    squares = np.stack([one.square for _, one in images if one.square is not None])
    if ten_crops:
        predictions = predictor.predict_batch(squares)
        found.features[places] = [one.fc7 for one in predictions]
        found.probabilities[places] = [one.probabilities for one in predictions]
    else:
        found.features[places] = predictor.extract_features(squares)
    for place, one in images:
        found.entries[place] = one.entry
        if one.square is not None:
            found.thumbnails[place] = make_thumbnail(one.square)


def write_validation_images(folder: Path, images: ValidationImages) -> None:
    """Write the images into a version's folder. Raises OSError."""
    write_file_list(folder / VALIDATION_LIST, images.entries, np.arange(len(images.entries)))
    with np.errstate(over="ignore"):
        stored = {name: np.asarray(getattr(images, name), t) for name, t in COLUMNS.items()}
    save_arrays(folder / VALIDATION_FILE, stored)


def read_validation_images(folder: Path) -> ValidationImages | None:
    """Read a version's validation images; None if it has none. Raises StoreError."""
    if not (folder / VALIDATION_FILE).exists() or not (folder / VALIDATION_LIST).exists():
        return None
    entries, _ = read_file_list(folder / VALIDATION_LIST)
    found = load_arrays(folder / VALIDATION_FILE, *COLUMNS)
    rows = {name: len(column) for name, column in found.items()}
    if rows.pop("probabilities") > len(entries) or set(rows.values()) - {len(entries)}:
        raise StoreError(f"{folder / VALIDATION_FILE} is damaged: its rows differ; {REBUILD_HINT}")
    return ValidationImages(
        entries=entries,
        features=found["features"].astype(np.float32),
        thumbnails=found["thumbnails"],
        probabilities=found["probabilities"],
        labels=found["labels"],
    )
