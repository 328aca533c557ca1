"""The images of a sample looked at one by one: made small, and asked what excites conv1."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from index.arrays import Array
from index.sample import PATCHES_PER_KERNEL, THUMBNAIL_SIDE, Pixels, make_thumbnail
from index.vectors import Floats, Ids
from model.activations import Conv1Responses
from model.predict import Predictor

PatchKey = tuple[int, int]
"""A kernel and an image."""
MAX_PATCHES_PER_KERNEL = 4 * PATCHES_PER_KERNEL
"""Patches of a kernel that are kept on the way, until those that are not its best are let go."""
ReadSquare = Callable[[int], Pixels | None]
"""Gives the square of an image by its place in the sample; None where it cannot be had."""


@dataclass(frozen=True)
class ImageResponses:
    """What was seen of one image: its square, small picture, and each kernel's peak and spot."""

    square: Pixels
    thumbnail: Pixels
    peaks: Floats
    spots: Ids


class SampleScan:
    """What is found out of a sample's S images, whose ids rise: int64 [S].

    there: bool [S], which are known. small: uint8 [S, 32, 32, 3]. peaks and spots, [S, K]: each
    kernel's strongest answer and where; −∞ for an image not known. patches: what was seen there,
    of those that may be among a kernel's best.
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
        """Take over what an earlier version's sample holds of the same images."""
        _, own, theirs = np.intersect1d(self.ids, earlier["ids"], True, return_indices=True)
        self.known[own] = True
        for name in ("small", "peaks", "spots"):
            getattr(self, name)[own] = earlier[name][theirs]
        for kernel, images in enumerate(earlier["patch_ids"].tolist()):
            seen = zip(images, earlier["patch_pixels"][kernel], strict=True)
            self.patches.update(((kernel, image), pixels) for image, pixels in seen)
        self.top = np.sort(np.concatenate([self.top, self.peaks]), axis=0)[-PATCHES_PER_KERNEL:]

    def measure(self, square: Pixels) -> ImageResponses:
        """Look at an image; several threads may at once."""
        return ImageResponses(square, make_thumbnail(square), *self.conv1.find_strongest(square))

    def add(self, place: int, look: ImageResponses) -> None:
        """Take in what was seen of an image, and keep the patches that may be among the best."""
        self.known[place], self.thumbnails[place] = True, look.thumbnail
        self.peaks[place], self.spots[place] = look.peaks, look.spots
        self.store_patches(place, np.flatnonzero(look.peaks > self.top[0]).tolist(), look.square)
        self.top = np.sort(np.concatenate([self.top, look.peaks[None]]), axis=0)[1:]
        if len(self.patches) > MAX_PATCHES_PER_KERNEL * self.conv1.kernel_count:
            best = self.strongest_images()
            self.patches = {k: self.patches[k] for k in self.patch_keys(best) if k in self.patches}

    def store_patches(self, place: int, kernels: list[int], square: Pixels) -> None:
        """Keep what these kernels see where an image excites them most."""
        for kernel in kernels:
            patch = self.conv1.cut_patch(square, self.spots[place, kernel])
            self.patches[kernel, int(self.ids[place])] = patch

    def strongest_images(self) -> Ids:
        """The places in the sample of each kernel's best images, int64 [K, n]; ties by id."""
        order = np.argsort(-self.peaks, axis=0, kind="stable")
        return order[: min(PATCHES_PER_KERNEL, int(self.known.sum()))].T

    def patch_keys(self, best: Ids) -> list[PatchKey]:
        """The keys of the best images' patches."""
        return [(k, image) for k, images in enumerate(self.ids[best].tolist()) for image in images]

    def read_missing_patches(self, read: ReadSquare) -> None:
        """Read again the images whose patches have become the best, since a better one vanished.

        An image that cannot be read any more is no part of the sample.
        """
        best = self.strongest_images()
        lacking: dict[int, list[int]] = {}
        for (kernel, image), place in zip(
            self.patch_keys(best), best.ravel().tolist(), strict=True
        ):
            if (kernel, image) not in self.patches:
                lacking.setdefault(place, []).append(kernel)
        for place, kernels in lacking.items():
            if (square := read(place)) is not None:
                self.store_patches(place, kernels, square)
            else:
                self.known[place], self.peaks[place] = False, -np.inf
        if lacking:
            self.read_missing_patches(read)

    def arrays(self) -> dict[str, Array]:
        """All but the map, as `index.sample.write_sample` takes it, of the images that are known.

        Only once it is complete.
        """
        best, size = self.strongest_images(), self.conv1.kernel_size
        pixels = np.empty((*best.shape, size, size, 3), np.uint8)
        for at, key in zip(np.ndindex(best.shape), self.patch_keys(best), strict=True):
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
