"""The demo photographs: crops of the pictures that scikit-image ships, one class each.

Each picture is cut along its longer side into three bands: training crops come from the outer
two, validation crops from the middle one, so that no pixel is in both.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

BANDS = ((0.0, 0.37), (0.37, 0.63), (0.63, 1.0))
"""Shares of the longer side: training, validation, training."""
TRAIN_BANDS, VAL_BANDS = (0, 2), (1,)
SIZES = (0.2, 0.26)
"""Least and greatest side of a crop, as a share of the picture's longer side."""
TRAIN_CROPS, VAL_CROPS = 32, 12
QUALITY = 92

PICTURES: dict[str, Callable[[], np.ndarray]] = {
    "astronaut": skimage.data.astronaut,
    "brick": skimage.data.brick,
    "cameraman": skimage.data.camera,
    "cat": skimage.data.chelsea,
    "coffee": skimage.data.coffee,
    "coins": skimage.data.coins,
    "grass": skimage.data.grass,
    "gravel": skimage.data.gravel,
    "hubble deep field": skimage.data.hubble_deep_field,
    "moon": skimage.data.moon,
    "motorcycle": lambda: skimage.data.stereo_motorcycle()[0],
    "page": skimage.data.page,
    "retina": skimage.data.retina,
    "rocket": skimage.data.rocket,
    "stained tissue": skimage.data.immunohistochemistry,
}
"""Label → what loads the picture from scikit-image's wheel."""


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
    """Cut the demo photographs into `folder`, unless they are there; give the folder."""
    if folder.exists():
        return folder
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for label, load in PICTURES.items():
        picture = Image.fromarray(load()).convert("RGB")
        for split, crops in crops_of(picture.size, label).items():
            place = part / split / label.replace(" ", "_")
            place.mkdir(parents=True)
            for number, crop in enumerate(crops):
                name = f"{label.replace(' ', '_')}_{number:02d}.jpg"
                picture.crop(crop.box()).save(place / name, quality=QUALITY)
    names = "".join(f"{label.replace(' ', '_')} {label}\n" for label in PICTURES)
    (part / "classes.txt").write_text(names)
    part.rename(folder)
    return folder


def crops_of(size: tuple[int, int], label: str) -> dict[str, list[Crop]]:
    """Where a picture of this width and height is cut, the same each time."""
    random = np.random.default_rng(list(label.encode()))
    return {
        "train": list(draw_crops(size, TRAIN_BANDS, TRAIN_CROPS, random)),
        "val": list(draw_crops(size, VAL_BANDS, VAL_CROPS, random)),
    }


def draw_crops(
    size: tuple[int, int], bands: tuple[int, ...], count: int, random: np.random.Generator
) -> Iterator[Crop]:
    """Draw squares that lie within the bands, in turn."""
    long, short = max(size), min(size)
    for number in range(count):
        first, last = (round(share * long) for share in BANDS[bands[number % len(bands)]])
        side = min(int(random.uniform(*SIZES) * long), short, last - first)
        along = int(random.integers(first, last - side + 1))
        across = int(random.integers(0, short - side + 1))
        wide = size[0] >= size[1]
        yield Crop(along, across, side) if wide else Crop(across, along, side)
