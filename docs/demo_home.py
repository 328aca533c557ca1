"""The home whose pages are shown: made of the demo photographs, and left as it is."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from model.checkpoint import WeightsError, load
from storage.home import Home
from training.dataset.demo import PICTURES, crops_of

ALIKE = 12.0
"""Mean difference of pixels, 0–255, that encoding the same crop anew may make."""
FIRST = "run `make demo` first, and end it when it serves"


class NotDemoError(Exception):
    """A home that cannot be shown, and why."""


def demo_folder(home: Home) -> Path:
    """The demo photographs on which a home's weights were trained. Raises NotDemoError."""
    if not home.weights.exists():
        raise NotDemoError(f"There are no weights at {home.weights}: {FIRST}")
    if not (home.index / "current").exists() or not home.database.exists():
        raise NotDemoError(f"There is no index in {home.root}: {FIRST}")
    try:
        folder = Path(load(home.weights).provenance.data)
    except WeightsError as error:
        raise NotDemoError(f"{error}: {FIRST}") from error
    if wrong := difference(folder):
        raise NotDemoError(
            f"The weights in {home.root} were trained on {folder}, which is not the demo "
            f"photographs ({wrong}). Only those may be shown in public documents. Set ALEXNET_HOME "
            f"to another folder and {FIRST}"
        )
    return folder


def difference(folder: Path) -> str | None:
    """Say in what a folder differs from the demo photographs; None where it does not."""
    for split in ("train", "val"):
        found = {entry.name for entry in (folder / split).glob("*")}
        if found != {picture.name for picture in PICTURES}:
            return f"{split} holds other classes"
    for picture in PICTURES:
        image = Image.fromarray(picture.load()).convert("RGB")
        for split, crops in crops_of(picture, image.size).items():
            place = folder / split / picture.name
            names = [f"{picture.name}_{number:02d}.jpg" for number in range(len(crops))]
            if sorted(file.name for file in place.iterdir()) != names:
                return f"{split}/{picture.name} holds other files"
            if not alike(place / names[0], image.crop(crops[0].box())):
                return f"{split}/{picture.name}/{names[0]} shows something else"
    return None


def alike(file: Path, crop: Image.Image) -> bool:
    """Whether a file shows a crop."""
    with Image.open(file) as picture:
        if picture.size != crop.size:
            return False
        difference = np.asarray(picture.convert("RGB"), float) - np.asarray(crop, float)
    return float(np.abs(difference).mean()) < ALIKE


@contextmanager
def beside(home: Home) -> Iterator[Home]:
    """A home of its own over the same weights, runs and index, so that nothing is kept in it."""
    with TemporaryDirectory(prefix="screenshots-") as folder:
        shown = Home(root=Path(folder))
        for name in ("runs", "index"):
            (shown.root / name).symlink_to((home.root / name).resolve())
        link = home.weights
        target = link.readlink() if link.is_symlink() else link
        shown.weights.symlink_to(target)
        with (
            closing(sqlite3.connect(home.database)) as source,
            closing(sqlite3.connect(shown.database)) as copy,
        ):
            source.backup(copy)
        yield shown
