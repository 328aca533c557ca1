"""The demo photographs: crops of the pictures that scikit-image ships, one class each.

Each picture is parted into equal stripes, most into a left and a right half. Training crops come
from the first, third …, validation crops from the second, fourth …, so that no pixel is in both.
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
"""Least and greatest side of a crop, as a share of a stripe's width."""
TRAIN_CROPS, VAL_CROPS = 48, 12
DEMO_JPEG_QUALITY = 92


@dataclass(frozen=True)
class Picture:
    """A picture of scikit-image's wheel: its label, what loads it, how it is parted."""

    label: str
    load: Callable[[], np.ndarray]
    stripes: int = 2
    upright: bool = True

    @property
    def name(self) -> str:
        """Its folder's name."""
        return self.label.replace(" ", "_")


def load_motorcycle() -> np.ndarray:
    """The left picture of a stereo pair: uint8 [500, 741, 3]."""
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
    """A square cut from a picture, in its pixels."""

    left: int
    top: int
    side: int

    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom."""
        return self.left, self.top, self.left + self.side, self.top + self.side


def make_demo(folder: Path) -> Path:
    """Cut the demo photographs into `folder`, unless they are there; give the folder.

    Of several processes that want them, one cuts them and the others wait.
    """
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with lock_file(folder.with_name(f".{folder.name}.lock")):
            if not folder.exists():
                cut_demo(folder)
    return folder


def cut_demo(folder: Path) -> None:
    """Cut them all beside the folder, then rename it into place."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for picture in PICTURES:
        image = Image.fromarray(picture.load()).convert("RGB")
        for split, crops in draw_split_crops(picture, image.size).items():
            place = part / split / picture.name
            place.mkdir(parents=True)
            for number, crop in enumerate(crops):
                file = place / f"{picture.name}_{number:02d}.jpg"
                image.crop(crop.box()).save(file, quality=DEMO_JPEG_QUALITY)
    labels = "".join(f"{picture.name} {picture.label}\n" for picture in PICTURES)
    (part / "classes.txt").write_text(labels)
    part.rename(folder)


def draw_split_crops(picture: Picture, size: tuple[int, int]) -> dict[str, list[Crop]]:
    """Where a picture of this width and height is cut, the same each time."""
    random = np.random.default_rng(list(picture.label.encode()))
    return {
        "train": list(draw_crops(picture, size, 0, TRAIN_CROPS, random)),
        "val": list(draw_crops(picture, size, 1, VAL_CROPS, random)),
    }


def draw_crops(
    picture: Picture, size: tuple[int, int], first: int, count: int, random: np.random.Generator
) -> Iterator[Crop]:
    """Draw squares that lie within every second stripe from `first` on, each in turn."""
    parted, other = size if picture.upright else size[::-1]
    stripes = range(first, picture.stripes, 2)
    for number in range(count):
        stripe = stripes[number % len(stripes)]
        start, end = (edge * parted // picture.stripes for edge in (stripe, stripe + 1))
        side = min(round(random.uniform(*CROP_SCALES) * (end - start)), other)
        along = int(random.integers(start, end - side + 1))
        across = int(random.integers(0, other - side + 1))
        yield Crop(along, across, side) if picture.upright else Crop(across, along, side)
