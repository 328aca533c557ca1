"""Scans a sample's images for thumbnails and for the patches that activate conv1 most."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from index.arrays import Array
from index.sample import PATCHES_PER_KERNEL, THUMBNAIL_SIDE, Pixels, make_thumbnail
from index.vectors import Floats, Ids
from model.predict import Predictor
from model.visualization.conv1_responses import Conv1Responses

PatchKey = tuple[int, int]
"""A kernel's index and an image's id."""
MAX_PATCHES_PER_KERNEL = 4 * PATCHES_PER_KERNEL
"""Patches per kernel that are in memory before all but the best are dropped."""
ReadSquare = Callable[[int], Pixels | None]
"""Reads the square of an image by its place in the sample; None if it cannot be read."""


@dataclass(frozen=True)
class ImageResponses:
    """One image's square, its thumbnail, and each of K kernels' peak response and its position.

    peaks: float32 [K]. spots: int64 [K], row · the maps' width + column.
    """

    square: Pixels
    thumbnail: Pixels
    peaks: Floats
    spots: Ids


class SampleScan:
    """The scan of a sample of S images for K kernels.

    ids: int64 [S], ascending. known: bool [S], which have been scanned. thumbnails: uint8
    [S, 32, 32, 3]. peaks: float32 [S, K], each kernel's strongest response, −∞ for an image not
    scanned. spots: uint16 [S, K], the positions of the peaks. patches: those that may be among a
    kernel's best. top: float32 [9, K], each kernel's best peaks so far, ascending.
    """

    def __init__(self, predictor: Predictor, ids: Ids) -> None:
        self.conv1, self.ids = Conv1Responses(predictor), ids
        kernels = self.conv1.kernel_count
        self.known = np.zeros(len(ids), bool)
        self.thumbnails = np.zeros((len(ids), THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3), np.uint8)
        self.peaks = np.full((len(ids), kernels), -np.inf, np.float32)
        self.spots = np.zeros((len(ids), kernels), np.uint16)
        self.patches: dict[PatchKey, Pixels] = {}
        self.top = np.full((PATCHES_PER_KERNEL, kernels), -np.inf, np.float32)

    def load_earlier(self, earlier: dict[str, Array]) -> None:
        """Copy what an earlier version's sample has of the same images."""
        _, own, theirs = np.intersect1d(self.ids, earlier["ids"], True, return_indices=True)
        self.known[own] = True
        self.thumbnails[own] = earlier["small"][theirs]
        self.peaks[own] = earlier["peaks"][theirs]
        self.spots[own] = earlier["spots"][theirs]
        for kernel, images in enumerate(earlier["patch_ids"].tolist()):
            patches = zip(images, earlier["patch_pixels"][kernel], strict=True)
            self.patches.update(((kernel, image), pixels) for image, pixels in patches)
        self.top = np.sort(np.concatenate([self.top, self.peaks]), axis=0)[-PATCHES_PER_KERNEL:]

    def measure(self, square: Pixels) -> ImageResponses:
        """Measure an image, uint8 [256, 256, 3]; thread-safe."""
        return ImageResponses(square, make_thumbnail(square), *self.conv1.find_strongest(square))

    def add(self, place: int, responses: ImageResponses) -> None:
        """Add an image's responses, and keep the patches that may be among the best."""
        self.known[place], self.thumbnails[place] = True, responses.thumbnail
        self.peaks[place], self.spots[place] = responses.peaks, responses.spots
        self.store_patches(
            place, np.flatnonzero(responses.peaks > self.top[0]).tolist(), responses.square
        )
        self.top = np.sort(np.concatenate([self.top, responses.peaks[None]]), axis=0)[1:]
        if len(self.patches) > MAX_PATCHES_PER_KERNEL * self.conv1.kernel_count:
            best = self.rank_strongest_images()
            self.patches = {
                k: self.patches[k] for k in self.list_patch_keys(best) if k in self.patches
            }

    def store_patches(self, place: int, kernels: list[int], square: Pixels) -> None:
        """Store the patches where an image activates these kernels most."""
        for kernel in kernels:
            patch = self.conv1.cut_patch(square, self.spots[place, kernel])
            self.patches[kernel, int(self.ids[place])] = patch

    def rank_strongest_images(self) -> Ids:
        """Rank each kernel's strongest images: int64 [K, n], indices into ids; ties by id."""
        order = np.argsort(-self.peaks, axis=0, kind="stable")
        return order[: min(PATCHES_PER_KERNEL, int(self.known.sum()))].T

    def list_patch_keys(self, best: Ids) -> list[PatchKey]:
        """List the keys of the patches of each kernel's strongest images."""
        return [(k, image) for k, images in enumerate(self.ids[best].tolist()) for image in images]

    def read_missing_patches(self, read: ReadSquare) -> None:
        """Read again images whose patches are among the best only since a better one vanished.

        An image that can no longer be read leaves the sample.
        """
        best = self.rank_strongest_images()
        missing: dict[int, list[int]] = {}
        for (kernel, image), place in zip(
            self.list_patch_keys(best), best.ravel().tolist(), strict=True
        ):
            if (kernel, image) not in self.patches:
                missing.setdefault(place, []).append(kernel)
        for place, kernels in missing.items():
            if (square := read(place)) is not None:
                self.store_patches(place, kernels, square)
            else:
                self.known[place], self.peaks[place] = False, -np.inf
        if missing:
            self.read_missing_patches(read)

    def make_arrays(self) -> dict[str, Array]:
        """Make the arrays for `index.sample.write_sample`, except the map's, of the scanned images.

        Call `read_missing_patches` first.
        """
        best, size = self.rank_strongest_images(), self.conv1.kernel_size
        pixels = np.empty((*best.shape, size, size, 3), np.uint8)
        for at, key in zip(np.ndindex(best.shape), self.list_patch_keys(best), strict=True):
            pixels[at] = self.patches[key]
        kernels = np.arange(len(best))[:, None]
        return {
            "ids": self.ids[self.known],
            "small": self.thumbnails[self.known],
            "peaks": self.peaks[self.known],
            "spots": self.spots[self.known],
            "patch_ids": self.ids[best],
            "patch_values": self.peaks[best, kernels],
            "patch_places": self.conv1.unravel(self.spots[best, kernels].astype(np.int64)),
            "patch_pixels": pixels,
        }
