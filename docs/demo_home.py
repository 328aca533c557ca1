"""The home that the screenshots show: one trained on the demo photographs, which is only read."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from model.weights.checkpoint import load_weights
from model.weights.header import WeightsError
from storage.home import Home
from training.dataset.demo import PICTURES, draw_split_crops

MAX_PIXEL_DIFFERENCE = 12.0
"""Mean absolute difference, of 0–255, that JPEG compression of the same crop may cause."""
ADVICE = "run `make demo`, and stop it once it serves"


class ScreenshotError(Exception):
    """Why no screenshots can be taken."""


def find_demo_photographs(home: Home) -> Path:
    """Return the folder of demo photographs that a home's weights were trained on.

    Raises ScreenshotError if the home is incomplete, or was made from any other photographs: those
    must not appear in public documents.
    """
    if not home.weights.exists():
        raise ScreenshotError(f"There are no weights at {home.weights}: {ADVICE}")
    if not (home.index / "current").exists() or not home.database.exists():
        raise ScreenshotError(f"There is no index in {home.root}: {ADVICE}")
    try:
        folder = Path(load_weights(home.weights).provenance.data)
    except WeightsError as error:
        raise ScreenshotError(f"{error}: {ADVICE}") from error
    if difference := difference_from_demo(folder):
        raise ScreenshotError(
            f"The weights in {home.root} were trained on {folder}, which differs from the demo "
            f"photographs: {difference}. Only those may be published. Set ALEXNET_HOME to another "
            f"folder and {ADVICE}"
        )
    return folder


def difference_from_demo(folder: Path) -> str | None:
    """Describe the first difference between a folder and the demo photographs; None if equal.

    File names are all compared, pixels only of the first file in each class and split.
    """
    for split in ("train", "val"):
        classes = {entry.name for entry in (folder / split).glob("*")}
        if classes != {picture.name for picture in PICTURES}:
            return f"{split} has other classes"
    for picture in PICTURES:
        image = Image.fromarray(picture.load()).convert("RGB")
        for split, crops in draw_split_crops(picture, image.size).items():
            place = folder / split / picture.name
            names = [f"{picture.name}_{number:02d}.jpg" for number in range(len(crops))]
            if sorted(file.name for file in place.iterdir()) != names:
                return f"{split}/{picture.name} has other files"
            if not is_same_picture(place / names[0], image.crop(crops[0].box())):
                return f"{split}/{picture.name}/{names[0]} has other pixels"
    return None


def is_same_picture(file: Path, crop: Image.Image) -> bool:
    """Whether a file shows a crop, apart from JPEG compression."""
    with Image.open(file) as picture:
        if picture.size != crop.size:
            return False
        difference = np.asarray(picture.convert("RGB"), float) - np.asarray(crop, float)
    return float(np.abs(difference).mean()) < MAX_PIXEL_DIFFERENCE


@contextmanager
def temporary_copy(home: Home) -> Iterator[Home]:
    """Make a home with links to the same weights, runs and index, and a copy of the database.

    What the visits to the pages store goes into the copy, which is deleted afterwards.
    """
    with TemporaryDirectory(prefix="screenshots-") as folder:
        copy = Home(root=Path(folder))
        for name in ("runs", "index"):
            (copy.root / name).symlink_to((home.root / name).resolve())
        link = home.weights
        # Relative, as in the home itself, so that the weights are found inside runs/.
        copy.weights.symlink_to(link.readlink() if link.is_symlink() else link)
        with (
            closing(sqlite3.connect(home.database)) as source,
            closing(sqlite3.connect(copy.database)) as target,
        ):
            source.backup(target)
        yield copy
