"""A version's sample of images: map, thumbnails and conv1's strongest patches.

The file `sample.npz` holds, for each image of the sample, its point on the map, its thumbnail, and
the value and position of each conv1 kernel's strongest response; and for each kernel the patches
that activate it most.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from index.arrays import Array, load_arrays, save_arrays
from index.manifest import REBUILD_HINT, Manifest, StoreError
from index.vectors import Doubles, Floats, Ids
from model.network.config import SQUARE_SIDE

Pixels = npt.NDArray[np.uint8]
SAMPLE_FILE = "sample.npz"
SAMPLE_IMAGES, MIN_SAMPLE_IMAGES, MAX_SAMPLE_IMAGES = 10_000, 100, 100_000
"""Images in a sample, at most: unless it is set otherwise, and the least and most it can be set
to."""
THUMBNAIL_SIDE = 32
"""The side of a thumbnail in pixels."""
PATCHES_PER_KERNEL = 9
"""Patches kept for each kernel of conv1."""
COLUMN_DTYPES = {
    **{"ids": "<i8", "points": "<f4", "span": "<f8", "small": "|u1", "peaks": "<f4"},
    **{"spots": "<u2", "changed": "<i8"},
    **{"patch_ids": "<i8", "patch_values": "<f4", "patch_places": "<i8", "patch_pixels": "|u1"},
}
"""Arrays of the file. Only the next build reads four of them: peaks [S, K] and spots [S, K], the
value and position (row · the maps' width + column) of each kernel's strongest response to each
image; span, the map's width in t-SNE's own units; and changed, how many images have come or gone
since it was laid out, which older files lack."""
PAGE_COLUMNS = (
    "ids",
    "points",
    "small",
    "patch_ids",
    "patch_values",
    "patch_places",
    "patch_pixels",
)
"""The arrays that the pages need."""
THUMBNAILS_PER_STEP = 512
"""Thumbnails compared at a time."""


@dataclass(frozen=True, kw_only=True)
class TopPatches:
    """For each of conv1's K kernels the patches that activate it most, at most one per image.

    ids: int64 [K, n] images, strongest first, ties by id; n is 9, or the number of images if that
    is smaller. values: float32 [K, n], conv1's response before the ReLU. places: int64 [K, n, 2],
    row and column in conv1's maps of the centre crop. pixels: uint8 [K, n, 11, 11, 3], what the
    kernel saw there; the mean image beyond the crop, where the kernel sees zeros.
    """

    ids: Ids
    values: Floats
    places: Ids
    pixels: Pixels


@dataclass(frozen=True, kw_only=True)
class ImageSample:
    """A sample of a version's images: all if there are few, otherwise a random draw.

    ids: int64 [S], ascending. points: float32 [S, 2], their fc7 features by t-SNE, from 0 to 1 in
    both directions. thumbnails: uint8 [S, 32, 32, 3]. whole: whether it has all images.
    """

    ids: Ids
    points: Floats
    thumbnails: Pixels
    patches: TopPatches
    whole: bool

    def find_nearest_by_pixels(
        self, square: Pixels, k: int, without: int | None = None
    ) -> tuple[Ids, Doubles]:
        """Find the k images whose thumbnails are nearest to that of uint8 [256, 256, 3].

        Returns ids, int64 [k], and Euclidean distances of the 3072 values, 0–255 each, float64 [k];
        ties by id. without: id of an image to leave out. Returns fewer if the sample is smaller.
        """
        squared = self.compute_squared_distances(make_thumbnail(square))
        counts = np.ones(len(squared), bool) if without is None else self.ids != without
        ids, squared = self.ids[counts], squared[counts]
        order = np.argsort(squared, kind="stable")[:k]
        return ids[order], np.sqrt(squared[order])

    def compute_squared_distances(self, picture: Pixels) -> Doubles:
        """Compute each thumbnail's squared distance from a picture exactly: float64 [S]."""
        wanted = picture.reshape(-1).astype(np.float64)
        found = wanted @ wanted + self.squared_norms
        for start in range(0, len(found), THUMBNAILS_PER_STEP):
            some = self.thumbnails[start : start + THUMBNAILS_PER_STEP].reshape(-1, wanted.size)
            found[start : start + THUMBNAILS_PER_STEP] -= 2 * (some.astype(np.float64) @ wanted)
        return found

    @cached_property
    def squared_norms(self) -> Doubles:
        """The squared norm of each thumbnail: float64 [S]."""
        rows = self.thumbnails.reshape(-1, THUMBNAIL_SIDE * THUMBNAIL_SIDE * 3)
        return np.array([np.square(row, dtype=np.int64).sum() for row in rows], np.float64)


def make_thumbnail(square: Pixels) -> Pixels:
    """Shrink uint8 [256, 256, 3] to [32, 32, 3]: means of 8 × 8 pixels, halves rounded up.

    Raises ValueError for another shape or dtype.
    """
    if square.shape != (SQUARE_SIDE, SQUARE_SIDE, 3) or square.dtype != np.uint8:
        raise ValueError(f"a square is uint8 [256, 256, 3], not {square.dtype} {square.shape}")
    return np.array(Image.fromarray(square).reduce(SQUARE_SIDE // THUMBNAIL_SIDE))


def write_sample(folder: Path, columns: dict[str, Array]) -> None:
    """Write the arrays of `COLUMN_DTYPES` into a version's folder. Raises OSError."""
    stored = {name: np.asarray(columns[name], dtype) for name, dtype in COLUMN_DTYPES.items()}
    save_arrays(folder / SAMPLE_FILE, stored)


def read_sample(folder: Path, manifest: Manifest) -> ImageSample | None:
    """Read a version's sample; None if it was built before samples existed. Raises StoreError."""
    if SAMPLE_FILE not in manifest.files:
        return None
    found = read_sample_columns(folder, *PAGE_COLUMNS)
    if len(found["ids"]) > manifest.images:
        raise StoreError(
            f"{folder / SAMPLE_FILE} is damaged: it holds too many images; {REBUILD_HINT}"
        )
    return ImageSample(
        ids=found["ids"],
        points=found["points"],
        thumbnails=found["small"],
        patches=TopPatches(
            ids=found["patch_ids"],
            values=found["patch_values"],
            places=found["patch_places"],
            pixels=found["patch_pixels"],
        ),
        whole=len(found["ids"]) == manifest.images,
    )


def read_sample_columns(folder: Path, *names: str) -> dict[str, Array]:
    """Read the named arrays, or all, and check dtypes, shapes and order. Raises StoreError."""
    found = load_arrays(folder / SAMPLE_FILE, *names)
    if not names:
        found = {"changed": np.array(0, COLUMN_DTYPES["changed"])} | found
    if lost := sorted(set(names or COLUMN_DTYPES) - set(found)):
        raise StoreError(f"{folder / SAMPLE_FILE} is damaged: it lacks {lost[0]}; {REBUILD_HINT}")
    wanted = derive_shapes(found)
    wrong = [n for n, a in found.items() if a.dtype != COLUMN_DTYPES[n] or a.shape != wanted[n]]
    if wrong or (np.diff(found["ids"]) <= 0).any():
        name = wrong[0] if wrong else "ids"
        raise StoreError(
            f"{folder / SAMPLE_FILE} is damaged: {name} has the wrong type, shape or order; "
            f"{REBUILD_HINT}"
        )
    return found


def derive_shapes(found: dict[str, Array]) -> dict[str, tuple[int, ...]]:
    """Derive the shape of each array from those of the others."""
    count, best = found["ids"].size, min(PATCHES_PER_KERNEL, found["ids"].size)
    kernels, width = found["patch_ids"].shape[:1], found["patch_pixels"].shape[2:3]
    return {
        "ids": (count,),
        "points": (count, 2),
        "span": (),
        "changed": (),
        "small": (count, THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3),
        "peaks": (count, *kernels),
        "spots": (count, *kernels),
        "patch_ids": (*kernels, best),
        "patch_values": (*kernels, best),
        "patch_places": (*kernels, best, 2),
        "patch_pixels": (*kernels, best, *width, *width, 3),
    }
