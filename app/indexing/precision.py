"""Retrieval precision: how often the nearest training image has the query's class."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.config import Settings
from app.database.images import read_class_folders_by_image
from app.database.session import Sessions
from app.inference.loader import ModelLoader
from app.inference.state import NotReadyError
from index.building.file_list import escape_file_name
from index.building.pipeline import compute_features
from index.store import Index, StoreError
from index.vectors import Floats
from model.dataset.folder import FolderError, ImageFolder, scan_folder
from storage.progress import Report

QUERIES_PER_SEARCH = 256


@dataclass(frozen=True, kw_only=True)
class Precision:
    """The share of `images` validation images whose nearest training image has their class.

    weights: the identity of the weights that the index was built with.
    """

    weights: str
    images: int
    share: float
    unreadable: list[str]

    def format_lines(self) -> list[str]:
        """Describe the measurement, a line each."""
        hits = round(self.share * self.images)
        return [
            *(f"Left out: {bad}" for bad in self.unreadable),
            f"The nearest training image has the same class for {hits:,} of {self.images:,} "
            f"validation images ({self.share:.1%}).",
        ]


def measure_precision(
    settings: Settings, sessions: Sessions, data: Path | None, report: Report
) -> Precision:
    """Query the index with every image in `data`/val, by default the dataset it was built from.

    Raises StoreError if there is no index to query, FolderError and DatabaseError.
    """
    try:
        state = ModelLoader(settings, sessions).require_ready()
    except NotReadyError as error:
        raise StoreError(str(error)) from error
    folder = scan_folder(data or Path(state.manifest.data), val_may_lack_classes=True)
    items = [(i, folder.root / photograph.path) for i, photograph in enumerate(folder.val)]
    progress: Callable[[int], None] = report("Computing features of validation images", len(items))
    computed = compute_features(state.predictor, items, on_progress=progress)
    if not len(computed.ids):
        raise FolderError(f"No image in {folder.root / 'val'} could be read")
    number, class_of = number_classes(
        folder, read_class_folders_by_image(sessions, state.version.id)
    )
    classes = [number[folder.classes[folder.val[i].class_index].folder] for i in computed.ids]
    return Precision(
        weights=state.manifest.weights,
        images=len(classes),
        share=measure_nearest_class_share(state.index, computed.features, classes, class_of),
        unreadable=[
            f"{escape_file_name(str(path))}: {reason}" for _, path, reason in computed.unreadable
        ],
    )


def measure_nearest_class_share(
    index: Index, features: Floats, classes: Sequence[int], class_of: Mapping[int, int]
) -> float:
    """Give the share, 0–1, of queries whose nearest image in the index has the query's class.

    features: float32 [N, 4096]. classes: the class of each query. class_of: the class of every
    image in the index, by its id. Raises ValueError without queries, or without a class for each.
    """
    if not len(features) or len(features) != len(classes):
        raise ValueError(f"{len(features)} queries with {len(classes)} classes have no share")
    hits = 0
    for start in range(0, len(features), QUERIES_PER_SEARCH):
        ids = index.search(features[start : start + QUERIES_PER_SEARCH], 1).ids
        own = classes[start : start + QUERIES_PER_SEARCH]
        hits += sum(class_of[int(i)] == c for i, c in zip(ids[:, 0], own, strict=True))
    return hits / len(features)


def number_classes(
    folder: ImageFolder, by_image: dict[int, str]
) -> tuple[dict[str, int], dict[int, int]]:
    """Number the class folders of dataset and index; return numbers by folder and by image id."""
    names = {*by_image.values(), *(name.folder for name in folder.classes)}
    number = {name: i for i, name in enumerate(sorted(names))}
    return number, {image: number[name] for image, name in by_image.items()}
