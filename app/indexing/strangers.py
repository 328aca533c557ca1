"""How well an index tells images of classes that its network does not know from those it knows."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.config import Settings
from app.database.session import Sessions
from app.inference.classify_files import find_files, try_read_square
from app.inference.loader import ModelLoader
from app.inference.state import NotReadyError, Ready
from index.building.validation import read_validation_images
from index.calibration import compute_relative_distances
from index.store import StoreError
from index.vectors import Doubles, Floats
from model.dataset.folder import FolderError
from storage.parallel import map_ahead, split_batches
from storage.progress import Report

IMAGES_PER_BATCH = 16
MAX_STRANGERS = 500
"""Photographs that are measured, drawn by a seed if there are more."""
SEED = 2012


@dataclass(frozen=True, kw_only=True)
class Separation:
    """Strangers against validation images.

    strangers, known: how many of each; compared: validation images with ten crops' probabilities.
    by_distance, by_probability: the AUROC of the relative distance from the nearest training image,
    and of the largest probability: how likely a stranger ranks above a validation image, 0.5 by
    chance. unlike, false_alarms: the shares of strangers and of validation images that are called
    unlike anything the network was trained on. unreadable: files left out.
    """

    strangers: int
    known: int
    compared: int
    by_distance: float
    by_probability: float
    unlike: float
    false_alarms: float
    unreadable: list[str]

    def format_lines(self) -> list[str]:
        """Describe the measurement, a line each."""
        return [
            *(f"Left out: {bad}" for bad in self.unreadable),
            f"AUROC by distance {self.by_distance:.3f}, {self.strangers:,} strangers against "
            f"{self.known:,} validation images; by the largest probability "
            f"{self.by_probability:.3f}, against {self.compared:,}.",
            f"Called unlike anything known: {self.unlike:.1%} of the strangers, "
            f"{self.false_alarms:.1%} of the validation images.",
        ]


def measure_strangers(
    settings: Settings, sessions: Sessions, data: Path, report: Report, most: int = MAX_STRANGERS
) -> Separation:
    """Compare photographs of unknown classes, in any arrangement below `data`, with known ones.

    Raises StoreError without an index or a calibration, and FolderError without a photograph.
    """
    try:
        state = ModelLoader(settings, sessions).require_ready()
    except NotReadyError as error:
        raise StoreError(str(error)) from error
    calibration = state.calibration
    validation = read_validation_images(settings.home.index / state.manifest.name)
    if calibration is None or validation is None:
        raise StoreError(
            f"The index {state.manifest.name} has not been compared with validation images; run "
            "`flask index look`"
        )
    probabilities, features, unreadable = predict_strangers(state, data, report, most)
    nearest = state.index.search(features, 1).distances[:, 0]
    found = compute_relative_distances(nearest, features)
    verdicts = [
        calibration.judge(row, distance).verdict
        for row, distance in zip(probabilities, found.tolist(), strict=True)
    ]
    alarms = [
        calibration.judge(probabilities[0], distance).verdict == "unlike"
        for distance in calibration.distances.tolist()
    ]
    return Separation(
        strangers=len(features),
        known=len(calibration.distances),
        compared=len(validation.probabilities),
        by_distance=compute_auroc(calibration.distances, found),
        by_probability=compute_auroc(
            -validation.probabilities.max(axis=1).astype(np.float64),
            -probabilities.max(axis=1).astype(np.float64),
        ),
        unlike=float(np.mean([verdict == "unlike" for verdict in verdicts])),
        false_alarms=float(np.mean(alarms)),
        unreadable=unreadable,
    )


def predict_strangers(
    state: Ready, data: Path, report: Report, most: int
) -> tuple[Floats, Floats, list[str]]:
    """Return probabilities [N, classes], features [N, 4096] and what could not be read."""
    files = find_files([data])
    drawn = np.random.default_rng(SEED).permutation(len(files))[:most]
    progress: Callable[[int], None] = report("Classifying strangers", len(drawn))
    predictions, unreadable, done = [], [], 0
    chosen = [files[i] for i in np.sort(drawn).tolist()]

    def read(file: Path | object) -> tuple[Path, object]:
        return try_read_square(file, state.predictor)  # type: ignore[arg-type]

    for group in split_batches(map_ahead(read, chosen, 2 * IMAGES_PER_BATCH), IMAGES_PER_BATCH):
        squares = [square for _, square in group if isinstance(square, np.ndarray)]
        unreadable += [f"{file}: {bad}" for file, bad in group if isinstance(bad, str)]
        predictions += state.predictor.predict_batch(np.stack(squares)) if squares else []
        done += len(group)
        progress(done)
    if not predictions:
        raise FolderError(f"No photograph in {data} could be read")
    return (
        np.stack([one.probabilities for one in predictions]),
        np.stack([one.fc7 for one in predictions]),
        unreadable,
    )


def compute_auroc(known: Doubles, strangers: Doubles) -> float:
    """Compute how likely a stranger's score is above a known image's, ties counting half.

    The area under the ROC curve, by its identity with the Mann-Whitney statistic.
    """
    ordered = np.sort(known)
    below = np.searchsorted(ordered, strangers, side="left")
    not_above = np.searchsorted(ordered, strangers, side="right")
    return float((below + not_above).sum() / (2 * len(known) * len(strangers)))
