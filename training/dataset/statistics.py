"""The training set's mean image (§2) and the PCA of its colours (§4.1), from exact sums."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.weights.checkpoint import Pca


@dataclass
class PixelSums:
    """Sums over images and pixels, from which the mean image and the covariance are computed.

    They are integers, so the results do not depend, to the last bit, on the order of the images or
    on interruptions. 64 bits are enough for 10¹⁴ pixels.

    image: int64 [s, s, 3], Σ of the images.
    outer: int64 [3, 3], Σ over all pixels of R, G and B times R, G and B.
    """

    count: int
    image: npt.NDArray[np.int64]
    outer: npt.NDArray[np.int64]

    @classmethod
    def zero(cls, side: int) -> "PixelSums":
        """Return the sums over no images."""
        return cls(0, np.zeros((side, side, 3), np.int64), np.zeros((3, 3), np.int64))

    def add(self, pixels: npt.NDArray[np.uint8], outer: npt.NDArray[np.int64]) -> None:
        """Add one image, uint8 [s, s, 3], and the result of `sum_outer_products` for it."""
        self.count += 1
        self.image += pixels
        self.outer += outer

    def merge(self, other: "PixelSums") -> None:
        """Add the sums over other images."""
        self.count += other.count
        self.image += other.image
        self.outer += other.outer

    def mean_image(self) -> Tensor:
        """Compute the mean image, float32 [3, s, s], 0–255 (§2: "the mean activity")."""
        return torch.from_numpy(self.image / self.count).permute(2, 0, 1).float().contiguous()

    def pca(self) -> Pca:
        """Compute the principal components of all pixels' RGB values, scaled to 0–1 (§4.1)."""
        pixels = self.count * self.image.shape[0] * self.image.shape[1]
        mean = self.image.sum(axis=(0, 1)) / pixels
        covariance = (self.outer / pixels - np.outer(mean, mean)) / 255.0**2
        values, vectors = np.linalg.eigh(covariance)
        descending = np.ascontiguousarray(vectors[:, ::-1])
        # Of pictures without colour two are zero, which rounding can make slightly negative.
        values = values[::-1].clip(0)
        return Pca(torch.tensor(values).float(), torch.tensor(descending).float())


def sum_outer_products(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Sum the outer products of an image's RGB values: uint8 [s, s, 3] → int64 [3, 3]."""
    # In float64 for the speed of BLAS; exact, since the integers stay below 2⁵³.
    flat = pixels.reshape(-1, 3).astype(np.float64)
    return (flat.T @ flat).astype(np.int64)
