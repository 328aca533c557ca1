"""The images of a sample looked at one by one: made small, and asked what excites conv1."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from index.columns import Column
from index.sample import BEST, SMALL, Pixels, small_of
from index.vectors import Floats, Ids
from model.predict import Predictor
from model.responses import Conv1

Key = tuple[int, int]
"""A kernel and an image."""
MOST = 4 * BEST
"""Patches of a kernel that are kept on the way, until those that are not its best are let go."""
Read = Callable[[int], Pixels | None]
"""Gives the square of an image by its place in the sample; None where it cannot be had."""


@dataclass(frozen=True)
class Look:
    """What was seen of one image: its square, small picture, and each kernel's peak and spot."""

    square: Pixels
    small: Pixels
    peaks: Floats
    spots: Ids


class Looking:
    """What is found out of a sample's S images, whose ids rise: int64 [S].

    there: bool [S], which are known. small: uint8 [S, 32, 32, 3]. peaks and spots, [S, K]: each
    kernel's strongest answer and where; −∞ for an image not known. patches: what was seen there,
    of those that may be among a kernel's best.
    """

    def __init__(self, predictor: Predictor, ids: Ids) -> None:
        self.conv1, self.ids = Conv1(predictor), ids
        kernels = self.conv1.kernels
        self.there = np.zeros(len(ids), bool)
        self.small = np.zeros((len(ids), SMALL, SMALL, 3), np.uint8)
        self.peaks = np.full((len(ids), kernels), -np.inf, np.float32)
        self.spots = np.zeros((len(ids), kernels), np.uint16)
        self.patches: dict[Key, Pixels] = {}
        self.top = np.full((BEST, kernels), -np.inf, np.float32)

    def recall(self, earlier: dict[str, Column]) -> None:
        """Take over what an earlier version's sample holds of the same images."""
        _, own, theirs = np.intersect1d(self.ids, earlier["ids"], True, return_indices=True)
        self.there[own] = True
        for name in ("small", "peaks", "spots"):
            getattr(self, name)[own] = earlier[name][theirs]
        for kernel, images in enumerate(earlier["patch_ids"].tolist()):
            seen = zip(images, earlier["patch_pixels"][kernel], strict=True)
            self.patches.update(((kernel, image), pixels) for image, pixels in seen)
        self.top = np.sort(np.concatenate([self.top, self.peaks]), axis=0)[-BEST:]

    def look(self, square: Pixels) -> Look:
        """Look at an image; several threads may at once."""
        return Look(square, small_of(square), *self.conv1.strongest(square))

    def take(self, place: int, look: Look) -> None:
        """Take in what was seen of an image, and keep the patches that may be among the best."""
        self.there[place], self.small[place] = True, look.small
        self.peaks[place], self.spots[place] = look.peaks, look.spots
        self.keep(place, np.flatnonzero(look.peaks > self.top[0]).tolist(), look.square)
        self.top = np.sort(np.concatenate([self.top, look.peaks[None]]), axis=0)[1:]
        if len(self.patches) > MOST * self.conv1.kernels:
            best = self.best()
            self.patches = {k: self.patches[k] for k in self.keys(best) if k in self.patches}

    def keep(self, place: int, kernels: list[int], square: Pixels) -> None:
        """Keep what these kernels see where an image excites them most."""
        for kernel in kernels:
            patch = self.conv1.patch(square, self.spots[place, kernel])
            self.patches[kernel, int(self.ids[place])] = patch

    def best(self) -> Ids:
        """The places in the sample of each kernel's best images, int64 [K, n]; ties by id."""
        order = np.argsort(-self.peaks, axis=0, kind="stable")
        return order[: min(BEST, int(self.there.sum()))].T

    def keys(self, best: Ids) -> list[Key]:
        """The keys of the best images' patches."""
        return [(k, image) for k, images in enumerate(self.ids[best].tolist()) for image in images]

    def complete(self, read: Read) -> None:
        """Read again the images whose patches have become the best, since a better one vanished.

        An image that cannot be read any more is no part of the sample.
        """
        best = self.best()
        lacking: dict[int, list[int]] = {}
        for (kernel, image), place in zip(self.keys(best), best.ravel().tolist(), strict=True):
            if (kernel, image) not in self.patches:
                lacking.setdefault(place, []).append(kernel)
        for place, kernels in lacking.items():
            if (square := read(place)) is not None:
                self.keep(place, kernels, square)
            else:
                self.there[place], self.peaks[place] = False, -np.inf
        if lacking:
            self.complete(read)

    def columns(self) -> dict[str, Column]:
        """All but the map, as `index.sample.write_sample` takes it, of the images that are known.

        Only once it is complete.
        """
        best, size = self.best(), self.conv1.size
        pixels = np.empty((*best.shape, size, size, 3), np.uint8)
        for at, key in zip(np.ndindex(best.shape), self.keys(best), strict=True):
            pixels[at] = self.patches[key]
        kernels = np.arange(len(best))[:, None]
        return {
            "ids": self.ids[self.there],
            "small": self.small[self.there],
            "peaks": self.peaks[self.there],
            "spots": self.spots[self.there],
            "patch_ids": self.ids[best],
            "patch_values": self.peaks[best, kernels],
            "patch_places": self.conv1.places(self.spots[best, kernels].astype(np.int64)),
            "patch_pixels": pixels,
        }
