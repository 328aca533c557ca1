"""The demo dataset: crops of the pictures that scikit-image ships, one class per picture.

Each picture is divided into equal stripes, most of them into a left and a right half. Training
crops come from the first, third, … stripe, validation crops from the second, fourth, …, so that no
pixel is in both.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

from storage.files import lock_file

CROP_SCALES = (0.75, 1.0)
"""Smallest and largest side of a crop, as a fraction of a stripe's width."""
TRAIN_CROPS, VAL_CROPS = 48, 12
DEMO_JPEG_QUALITY = 92


@dataclass(frozen=True)
class Picture:
    """A picture that scikit-image ships.

    load: returns it as uint8 [H, W, 3] or [H, W]. stripes: how many it is divided into. upright:
    whether they are upright, side by side, instead of lying one above the other.
    """

    label: str
    load: Callable[[], np.ndarray]
    stripes: int = 2
    upright: bool = True

    @property
    def name(self) -> str:
        """The name of its class folder."""
        return self.label.replace(" ", "_")


def load_motorcycle() -> np.ndarray:
    """Load the left picture of a stereo pair: uint8 [500, 741, 3]."""
    left: np.ndarray = skimage.data.stereo_motorcycle()[0]  # type: ignore[no-untyped-call]
    return left


PICTURES = (
    Picture("astronaut", skimage.data.astronaut, stripes=5, upright=False),
    Picture("brick", skimage.data.brick, stripes=3, upright=False),
    Picture("cat", skimage.data.chelsea, stripes=5),
    Picture("coffee", skimage.data.coffee),
    Picture("coins", skimage.data.coins),
    Picture("grass", skimage.data.grass),
    Picture("gravel", skimage.data.gravel),
    Picture("handwriting", skimage.data.text),
    Picture("hubble deep field", skimage.data.hubble_deep_field),
    Picture("moon", skimage.data.moon),
    Picture("motorcycle", load_motorcycle),
    Picture("retina", skimage.data.retina, stripes=3),
    Picture("rocket", skimage.data.rocket),
    Picture("stained tissue", skimage.data.immunohistochemistry),
)


@dataclass(frozen=True)
class Crop:
    """A square within a picture, in pixels."""

    left: int
    top: int
    side: int

    def box(self) -> tuple[int, int, int, int]:
        """Return left, top, right and bottom, as Pillow takes them."""
        return self.left, self.top, self.left + self.side, self.top + self.side


def make_demo(folder: Path) -> Path:
    """Write the demo photographs to `folder` unless it exists, and return the folder.

    If several processes call this, one writes and the others wait.
    """
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with lock_file(folder.with_name(f".{folder.name}.lock")):
            if not folder.exists():
                cut_demo(folder)
    return folder


def cut_demo(folder: Path) -> None:
    """Write all crops to a temporary folder beside `folder`, then rename it."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for picture in PICTURES:
        image = Image.fromarray(picture.load()).convert("RGB")
        for split, crops in draw_split_crops(picture, image.size).items():
            class_folder = part / split / picture.name
            class_folder.mkdir(parents=True)
            for number, crop in enumerate(crops):
                file = class_folder / f"{picture.name}_{number:02d}.jpg"
                image.crop(crop.box()).save(file, quality=DEMO_JPEG_QUALITY)
    labels = "".join(f"{picture.name} {picture.label}\n" for picture in PICTURES)
    (part / "classes.txt").write_text(labels)
    part.rename(folder)


def draw_split_crops(picture: Picture, size: tuple[int, int]) -> dict[str, list[Crop]]:
    """Draw the crops of each split for a picture of this width and height, always the same."""
    random = np.random.default_rng(list(picture.label.encode()))
    return {
        "train": list(draw_crops(picture, size, 0, TRAIN_CROPS, random)),
        "val": list(draw_crops(picture, size, 1, VAL_CROPS, random)),
    }


def draw_crops(
    picture: Picture, size: tuple[int, int], first: int, count: int, random: np.random.Generator
) -> Iterator[Crop]:
    """Draw `count` squares within stripes `first`, `first` + 2, …, taking the stripes in turn."""
    divided, other = size if picture.upright else size[::-1]
    stripes = range(first, picture.stripes, 2)
    for number in range(count):
        stripe = stripes[number % len(stripes)]
        start, end = (edge * divided // picture.stripes for edge in (stripe, stripe + 1))
        side = min(round(random.uniform(*CROP_SCALES) * (end - start)), other)
        along = int(random.integers(start, end - side + 1))
        across = int(random.integers(0, other - side + 1))
        yield Crop(along, across, side) if picture.upright else Crop(across, along, side)
