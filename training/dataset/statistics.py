"""The training set's mean image and the principal components of its colours, from exact sums."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.checkpoint import Pca


@dataclass
class PixelSums:
    """Sums over pixels from which mean image and covariance follow.

    They are whole numbers, so that neither the order of the images nor where the work was
    interrupted changes a bit of what follows from them: 64 bits are enough for 10¹⁴ pixels.

    image: int64 [s, s, 3], Σ of the images.
    outer: int64 [3, 3], Σ over all pixels of R, G and B times R, G and B.
    """

    count: int
    image: npt.NDArray[np.int64]
    outer: npt.NDArray[np.int64]

    @classmethod
    def zero(cls, side: int) -> "PixelSums":
        """No image yet."""
        return cls(0, np.zeros((side, side, 3), np.int64), np.zeros((3, 3), np.int64))

    def add(self, pixels: npt.NDArray[np.uint8], outer: npt.NDArray[np.int64]) -> None:
        """Count one image, uint8 [s, s, 3], and what `outer_sum` gives for it."""
        self.count += 1
        self.image += pixels
        self.outer += outer

    def merge(self, other: "PixelSums") -> None:
        """Count another set's images too."""
        self.count += other.count
        self.image += other.image
        self.outer += other.outer

    def mean_image(self) -> Tensor:
        """Float32 [3, s, s], 0–255: the mean activity of each pixel (§2)."""
        return torch.from_numpy(self.image / self.count).permute(2, 0, 1).float().contiguous()

    def pca(self) -> Pca:
        """Principal components of the RGB values, taken as 0–1, of all pixels (§4.1)."""
        pixels = self.count * self.image.shape[0] * self.image.shape[1]
        mean = self.image.sum(axis=(0, 1)) / pixels
        covariance = (self.outer / pixels - np.outer(mean, mean)) / 255.0**2
        values, vectors = np.linalg.eigh(covariance)
        falling = np.ascontiguousarray(vectors[:, ::-1])
        # Rounding makes a tiny negative of the zero that pictures without colour have.
        values = values[::-1].clip(0)
        return Pca(torch.tensor(values).float(), torch.tensor(falling).float())


def sum_outer_products(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Σ over an image's pixels of R, G, B times R, G, B: uint8 [s, s, 3] → int64 [3, 3]."""
    # Exact: 64-bit floats hold whole numbers below 2⁵³, and BLAS multiplies them.
    flat = pixels.reshape(-1, 3).astype(np.float64)
    return (flat.T @ flat).astype(np.int64)
