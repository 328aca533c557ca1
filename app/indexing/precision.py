"""How good the features are for retrieval: does the nearest training image have the class?"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app.config import Settings
from app.database.images import class_folders_by_image
from app.database.session import Sessions
from app.inference.loader import ModelLoader, NotReady
from index.building.file_list import escape_file_name
from index.building.pipeline import compute_features
from index.recall import nearest_class_share
from index.store import StoreError
from model.dataset import FolderError, ImageFolder, scan_folder
from storage.progress import Report

__all__ = ["Precision", "measure_precision"]


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Of `images` validation images, the share whose nearest training image has their class."""

    images: int
    share: float
    unreadable: list[str]

    def report(self) -> list[str]:
        """What was found, line by line."""
        hits = round(self.share * self.images)
        return [
            *(f"Left out: {bad}" for bad in self.unreadable),
            f"{hits:,} of {self.images:,} validation images ({self.share:.1%}) have a nearest "
            "training image of their class.",
        ]


def measure_precision(
    settings: Settings, sessions: Sessions, data: Path | None, step: Report
) -> Precision:
    """Ask the index served for the nearest of every image in `data`/val, by default its own.

    Raises StoreError when there is nothing to ask, FolderError, DatabaseError.
    """
    state = ModelLoader(settings, sessions).state()
    if isinstance(state, NotReady):
        raise StoreError(f"{state.message} Run `{state.command}`.")
    folder = scan_folder(data or Path(state.manifest.data))
    items = [(i, folder.root / photograph.path) for i, photograph in enumerate(folder.val)]
    begun: Callable[[int], None] = step("Looking at the validation images", len(items))
    computed = compute_features(state.predictor, items, on_progress=begun)
    if not len(computed.ids):
        raise FolderError(f"No image in {folder.root / 'val'} could be read")
    number, class_of = number_classes(folder, class_folders_by_image(sessions, state.version.id))
    classes = [number[folder.classes[folder.val[i].class_index].folder] for i in computed.ids]
    return Precision(
        images=len(classes),
        share=nearest_class_share(state.index, computed.features, classes, class_of),
        unreadable=[
            f"{escape_file_name(str(path))}: {reason}" for _, path, reason in computed.unreadable
        ],
    )


def number_classes(
    folder: ImageFolder, by_image: dict[int, str]
) -> tuple[dict[str, int], dict[int, int]]:
    """A number for every class folder of either side, and the class of each image as a number."""
    names = {*by_image.values(), *(name.folder for name in folder.classes)}
    number = {name: i for i, name in enumerate(sorted(names))}
    return number, {image: number[name] for image, name in by_image.items()}
