"""The two augmentations of §4.1: random crops and their mirrors, and the colours' PCA."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.checkpoint import Pca
from model.images import CROP, SIDE

POSITIONS = SIDE - CROP
"""Offsets in each direction: 32, so that with mirrors an image has the paper's 2048 variants."""


@dataclass(frozen=True)
class Draws:
    """The random numbers of one epoch, one row an image: they do not depend on the order.

    offsets: int64 [N, 2], top and left, 0–31.
    mirrors: bool [N].
    alphas:  float32 [N, 3], one for each principal component.
    """

    offsets: npt.NDArray[np.int64]
    mirrors: npt.NDArray[np.bool_]
    alphas: npt.NDArray[np.float32]


def draw(images: int, colour_noise: float, seed: int, epoch: int) -> Draws:
    """Draw the crops, mirrors and colours of all images for one epoch."""
    random = np.random.default_rng([seed, epoch, 1])
    return Draws(
        offsets=random.integers(0, POSITIONS, (images, 2)),
        mirrors=random.random(images) < 0.5,
        alphas=random.normal(0, colour_noise, (images, 3)).astype(np.float32),
    )


def crop_and_mirror(x: Tensor, draws: Draws, which: npt.NDArray[np.int64]) -> Tensor:
    """Cut each image's crop: float32 [B, 3, 256, 256] → [B, 3, 224, 224], channels last.

    which: int64 [B], the images' rows in `draws`.
    """
    out = torch.empty((len(x), 3, CROP, CROP), dtype=x.dtype, memory_format=torch.channels_last)
    for to, image, row in zip(out, x, which, strict=True):
        top, left = draws.offsets[row]
        crop = image[:, top : top + CROP, left : left + CROP]
        to.copy_(crop.flip(-1) if draws.mirrors[row] else crop)
    return out


def colour_shift(pca: Pca, alphas: Tensor) -> Tensor:
    """The grey levels to add to R, G and B: Σ pᵢ αᵢ λᵢ. float32 [B, 3] → [B, 3].

    The eigenvalues are those of RGB values between 0 and 1, which the paper leaves open: with
    values up to 255 the same formula would shift every pixel by about a thousand. The result is
    in grey levels of 0–255.
    """
    return (alphas * pca.eigenvalues) @ pca.eigenvectors.T * 255.0
