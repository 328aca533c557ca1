"""What a version holds beside its vectors and sample: validation images, calibration, review.

A build writes it into every version; `flask index look` adds it to versions built before.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.config import Settings
from app.database.images import read_class_ids
from app.database.ingest import register_validation_images
from app.database.session import Sessions
from app.indexing.verify import choose_version
from app.indexing.versions import open_version_predictor
from index import store
from index.building.file_list import FILE_LIST, FileEntry, read_file_list
from index.building.near_duplicates import measure_near_duplicate_pixels
from index.building.nearest import NearestRows, find_nearest_rows, write_nearest_rows
from index.building.validation import (
    VALIDATION_FILE,
    VALIDATION_LIST,
    ValidationImages,
    measure_validation_images,
    read_validation_images,
    write_validation_images,
)
from index.calibration import (
    CALIBRATION_FILE,
    Calibration,
    calibrate,
    compute_relative_distances,
    write_calibration,
)
from index.draft import add_files
from index.id_map import IdMap
from index.manifest import Manifest
from index.review.make import gather_reviewed_images, make_review
from index.review.neighbourhood import Neighbourhood, read_neighbourhood, write_neighbourhood
from index.review.stored import REVIEW_FILE, Review, write_review
from index.sample import PAGE_COLUMNS, SAMPLE_FILE, Pixels, read_sample_columns
from index.vectors import Ids, Vectors
from model.dataset.folder import ImageFolder, scan_photographs
from model.predict import Predictor
from storage.progress import Report

LOOK_FILES = (VALIDATION_FILE, VALIDATION_LIST, CALIBRATION_FILE, REVIEW_FILE)


@dataclass(frozen=True, kw_only=True)
class IndexedPhotographs:
    """A version's photographs.

    vectors, id_map: of its training images. entries, rows: its file list, rows int64 [M]. near: the
    distance up to which two images count as near-duplicates.
    """

    folder: ImageFolder
    vectors: Vectors
    id_map: IdMap
    entries: Sequence[FileEntry]
    rows: Ids
    near: float


def write_looks(
    target: Path,
    predictor: Predictor,
    indexed: IndexedPhotographs,
    sample: tuple[Ids, Pixels] | None,
    before: tuple[Path, Manifest] | None,
    sessions: Sessions,
    report: Report,
) -> ValidationImages | None:
    """Write what a version shows beyond its neighbours into a folder.

    sample: ids and thumbnails of the version's sample, which is reviewed; None for a version
    without one. before: folder and manifest of a version with the same weights, whose computations
    are used again. Returns the validation images, or None if there are none. Raises StoreError and
    DatabaseError.
    """
    earlier = read_validation_images(before[0]) if before else None
    validation = measure_validation_images(
        predictor, indexed.folder.root, indexed.folder.val, earlier, report
    )
    if validation.entries:
        write_validation_images(target, validation)
        known = (*before, earlier) if before and earlier else None
        nearest = find_nearest_rows(indexed.vectors, indexed.id_map, validation, known)
        write_nearest_rows(target, nearest)
        write_calibration(target, calibrate_version(predictor, indexed, validation, nearest))
    if sample is not None:
        report_done = report("Reviewing labels and copies", 1)
        kept = read_neighbourhood(before[0]) if before else None
        reviewed = review_version(predictor, indexed, sample, validation, sessions, kept)
        report_done(1)
        if reviewed is not None:
            write_review(target, reviewed[0])
            write_neighbourhood(target, reviewed[1])
    return validation if validation.entries else None


def review_version(
    predictor: Predictor,
    indexed: IndexedPhotographs,
    sample: tuple[Ids, Pixels],
    validation: ValidationImages,
    sessions: Sessions,
    before: Neighbourhood | None,
) -> tuple[Review, Neighbourhood] | None:
    """Review the sample's and the validation images; None if there are too few.

    Also returns each one's nearest others. before: those of an earlier version. Raises StoreError
    for damaged vectors, and DatabaseError.
    """
    folder = indexed.folder
    registered = register_validation_images(sessions, folder, validation.labels, validation.entries)
    images = gather_reviewed_images(
        indexed.id_map,
        indexed.vectors,
        sample,
        validation,
        registered,
        {e.pixels: row for e, row in zip(indexed.entries, indexed.rows.tolist(), strict=True)},
    )
    paths = [folder.root / entry.path for entry in indexed.entries]
    return make_review(
        images,
        predictor.loaded,
        read_class_ids(sessions, registered.dataset_id),
        indexed.near,
        measure_near_duplicate_pixels(paths, predictor.config.resize),
        before,
    )


def calibrate_version(
    predictor: Predictor,
    indexed: IndexedPhotographs,
    validation: ValidationImages,
    nearest: NearestRows,
) -> Calibration:
    """Calibrate with the validation images, given their nearest training images."""
    number = {name.folder: index for index, name in enumerate(predictor.classes)}
    folders = [indexed.folder.classes[label].folder for label in validation.labels.tolist()]
    labels = np.array([number.get(name, -1) for name in folders], np.int64)
    labels = labels[: len(validation.probabilities)]
    known = labels >= 0
    return calibrate(
        compute_relative_distances(np.sqrt(nearest.squared), validation.features),
        validation.probabilities[known],
        labels[known],
    )


def add_looks(
    settings: Settings, sessions: Sessions, report: Report, name: str | None = None
) -> list[str]:
    """Add to a version, by default the one in service, what it was built without.

    Returns the names of the files that were added; none if it has all that it can have. Raises
    StoreError, FolderError, WeightsError and DatabaseError.
    """
    root = settings.home.index
    with store.acquire_build_lock(root):
        name = choose_version(root, name)
        if not list_missing(store.read_manifest(root / name)):
            return []
        # Checks every byte.
        index = store.open_version(root, name, settings.search_device)
        manifest = index.manifest
        predictor = open_version_predictor(settings, manifest)
        entries, rows = read_file_list(root / name / FILE_LIST)
        indexed = IndexedPhotographs(
            folder=scan_photographs(Path(manifest.data)),
            vectors=index.vectors,
            id_map=index.id_map,
            entries=entries,
            rows=rows,
            near=manifest.near,
        )
        # A name that the next build cleans up if this one dies.
        part = root / f".{name}"
        part.mkdir()
        try:
            sample = read_sample_images(root / name)
            write_looks(part, predictor, indexed, sample, (root / name, manifest), sessions, report)
            return add_files(root / name, manifest, part)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def read_sample_images(folder: Path) -> tuple[Ids, Pixels] | None:
    """Read the ids and thumbnails of a version's sample; None without one. Raises StoreError."""
    if not (folder / SAMPLE_FILE).exists():
        return None
    # The columns of patches are read too, since the others' shapes are checked against them.
    found = read_sample_columns(folder, *PAGE_COLUMNS)
    return found["ids"], found["small"]


def list_missing(manifest: Manifest) -> list[str]:
    """List the files that a version built now would also have."""
    return [name for name in LOOK_FILES if name not in manifest.files]
