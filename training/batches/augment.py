"""The two augmentations of §4.1: random crops with mirroring, and PCA colour noise.

Both can also be applied as in the run of 2012 (cuda-convnet2), and crops may have a random area
and aspect ratio instead of the paper's fixed size, for small training sets. A batch takes few
passes over its bytes, since the CPU may be training at the same time: crops are cut from the stored
bytes, and subtracting the mean, shifting the colour and all divisions take one addition and at most
one multiplication. Where the training is compiled, one loop of C scales a crop and another does the
rest (training/batches/augment.c), with the same results to the last bit.
"""

import ctypes
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from model.image.preprocess import CENTRE_CROP, crop_offsets
from model.network.config import CROP_SIDE
from model.network.cpu.c_library import compile_library
from model.weights.checkpoint import Pca

LARGEST_ASPECT = 4 / 3
"""Random crops are at most this much wider than high, or higher than wide."""
MAX_DRAWS = 10
"""Draws of a random crop that may not fit into the image; then it is the whole image."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How training images are cropped and coloured. The defaults are the paper's (§4.1)."""

    crop: int = CROP_SIDE
    """Side of the crops, in pixels."""
    smallest_area: float | None = None
    """Smallest area of a random crop, as a share of the image's; it is scaled to `crop`. None:
    crops of that size at random offsets, the paper's."""
    sharing: int = 1
    """Number of consecutive images in a batch that share an offset and a mirror decision; 32 as
    run in 2012."""
    inclusive: bool = False
    """Whether the last offset that fits is used, too: 33 in each direction instead of the paper's
    32; true as run in 2012."""
    mirrors: bool = True
    """Whether half of the images are mirrored (§4.1)."""
    colour_noise: float = 0.1
    """Standard deviation of α; 0 turns the noise off."""
    colour: Literal["paper", "original"] = "paper"
    """What is added: Σ pᵢ αᵢ λᵢ as printed, or as run in 2012 Σ pᵢ αᵢ √λᵢ, the image then divided
    by 1 + colour_noise."""
    input_scale: float = 1.0
    """Divisor of the mean-free pixels, in grey levels of 0–255; applied in validation, too."""
    channel_scales: tuple[float, ...] = ()
    """Further divisors of red, green and blue; empty: all 1."""

    def __post_init__(self) -> None:
        good = (
            self.crop >= 1
            and self.sharing >= 1
            and (self.smallest_area is None or 0 < self.smallest_area <= 1)
            and (self.smallest_area is None or self.sharing == 1)
            and 0 <= self.colour_noise < float("inf")
            and 0 < self.input_scale < float("inf")
        )
        if not good:
            raise ValueError(f"invalid augmentation: {self}")

    def count_offsets(self, side: int) -> int:
        """Count the offsets in each direction: 32, so that an image has 2048 variants (§4.1).

        Raises ValueError for a crop larger than the square.
        """
        if self.crop > side:
            raise ValueError(f"crops of {self.crop}×{self.crop} do not fit into {side}×{side}")
        return max(1, side - self.crop + self.inclusive)

    @property
    def divisor(self) -> float:
        """The divisor of training images; the run of 2012 has a factor of 1.1 for the noise."""
        noisy = self.colour == "original"
        return self.input_scale * (1 + self.colour_noise if noisy else 1)

    @property
    def divisors(self) -> tuple[float, ...]:
        """The divisors of red, green and blue in training, or one for all three."""
        return tuple(self.divisor * scale for scale in self.channel_scales or (1.0,))


@dataclass(frozen=True)
class AugmentationDraws:
    """The random numbers of one epoch, one row per image.

    offsets: int64 [N, 2], top and left.
    sizes:   int64 [N, 2], height and width.
    mirrors: bool [N].
    alphas:  float32 [N, 3], one for each principal component.
    """

    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    mirrors: npt.NDArray[np.bool_]
    alphas: npt.NDArray[np.float32]


def draw_augmentations(
    augmentation: Augmentation,
    order: npt.NDArray[np.int64],
    *,
    batch: int,
    side: int,
    seed: int,
    epoch: int,
) -> AugmentationDraws:
    """Draw the crops, mirrors and colours of all images for one epoch.

    order: int64 [N], the epoch's permutation of the images; it matters only for shared crops.
    """
    random = np.random.default_rng([seed, epoch, 1])
    images, positions = len(order), augmentation.count_offsets(side)
    own = AugmentationDraws(
        offsets=random.integers(0, positions, (images, 2)),
        sizes=np.full((images, 2), augmentation.crop),
        mirrors=(random.random(images) < 0.5) & augmentation.mirrors,
        alphas=random.normal(0, augmentation.colour_noise, (images, 3)).astype(np.float32),
    )
    if augmentation.smallest_area is not None:
        random = np.random.default_rng([seed, epoch, 3])
        offsets, sizes = draw_areas(random, images, side, augmentation.smallest_area)
        return replace(own, offsets=offsets, sizes=sizes)
    if augmentation.sharing == 1:
        return own
    random = np.random.default_rng([seed, epoch, 2])
    step, place = np.divmod(np.arange(images), batch)
    groups = -(-batch // augmentation.sharing)
    group = step * groups + place // augmentation.sharing
    offsets, mirrors = np.empty_like(own.offsets), np.empty_like(own.mirrors)
    total = (images // batch + 1) * groups
    offsets[order] = random.integers(0, positions, (total, 2))[group]
    mirrors[order] = ((random.random(total) < 0.5) & augmentation.mirrors)[group]
    return replace(own, offsets=offsets, mirrors=mirrors)


def draw_areas(
    random: np.random.Generator, images: int, side: int, smallest: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Draw crops of a random area and aspect ratio from squares.

    The area is uniform between `smallest` and 1 times the square's, the logarithm of the aspect
    ratio uniform between those of 3/4 and 4/3 (Szegedy et al. 2015, *Going deeper with
    convolutions*, §6). Crops that do not fit are drawn again.

    Returns offsets and sizes, int64 [images, 2] each.
    """
    sizes = np.full((images, 2), side)
    missing = np.arange(images)
    for _ in range(MAX_DRAWS):
        area = side**2 * random.uniform(smallest, 1, len(missing))
        bound = np.log(LARGEST_ASPECT)
        aspect = np.exp(random.uniform(-bound, bound, len(missing)))
        drawn = np.sqrt(np.stack([area / aspect, area * aspect], axis=1)).round().astype(np.int64)
        fits = (drawn <= side).all(axis=1) & (drawn >= 1).all(axis=1)
        sizes[missing[fits]] = drawn[fits]
        missing = missing[~fits]
    return random.integers(0, side - sizes + 1), sizes


_compiled = False
MAX_COMPILED_CROP = 1024
"""The largest side of a crop that the compiled loop takes."""


def compile_augmentation() -> None:
    """Compile the passes over a crop, for all augmenters of this process. Raises CompilerError."""
    global _compiled
    load_loop()
    _compiled = True


@cache
def load_loop() -> ctypes.CDLL:
    """Compile the loop, once for each process. Raises CompilerError."""
    # Without contraction, so that it rounds as NumPy does.
    library = compile_library(Path(__file__).with_suffix(".c"), contract=False)
    pointer, step, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    images = (pointer, step, pointer, step)
    library.augment.argtypes = [*images, pointer, pointer, number, pointer, number]
    library.resize.argtypes = [pointer, step, number, number, pointer, pointer, number]
    return library


class Augmenter:
    """Crops, mirrors, centres and colours the images of one training set."""

    def __init__(self, augmentation: Augmentation, mean: Tensor, pca: Pca) -> None:
        """Take the mean image, float32 [3, s, s]."""
        self.augmentation, self.pca = augmentation, pca
        self.factors = np.array([1 / divisor for divisor in augmentation.divisors], np.float32)
        # Of a whole line of pixels, colour by colour.
        self.line = np.resize(self.factors, 3 * augmentation.crop)
        self.side = mean.shape[-1]
        self.centre = crop_offsets(self.side, augmentation.crop)[CENTRE_CROP]
        rows = mean.permute(1, 2, 0).numpy() * -self.factors
        self.rows = rows.reshape(self.side, -1).copy()
        self.mirrored = rows[:, ::-1].reshape(self.side, -1).copy()

    def __call__(
        self,
        images: Iterable[npt.NDArray[np.uint8]],
        draws: AugmentationDraws,
        rows: npt.NDArray[np.int64],
    ) -> Tensor:
        """Augment images: uint8 [s, s, 3] each → float32 [B, 3, crop, crop], channels last.

        rows: int64 [B], each image's row in `draws`.
        """
        out = self.make_room(len(rows))
        self.write(images, draws, rows, out)
        return torch.from_numpy(out).permute(0, 3, 1, 2)

    def make_room(self, images: int) -> npt.NDArray[np.float32]:
        """Return an array for so many images, not yet written to: float32 [B, crop, crop, 3]."""
        crop = self.augmentation.crop
        return np.empty((images, crop, crop, 3), np.float32)

    def write(
        self,
        images: Iterable[npt.NDArray[np.uint8]],
        draws: AugmentationDraws,
        rows: npt.NDArray[np.int64],
        out: npt.NDArray[np.float32],
    ) -> None:
        """Augment images into an array: float32 [B, crop, crop, 3]."""
        crop = self.augmentation.crop
        shifts = self.compute_shifts(draws.alphas[rows])
        compiled = _compiled and crop <= MAX_COMPILED_CROP
        flat, line = np.empty((crop, 3 * crop), np.float32), np.empty((crop, crop, 3), np.uint8)
        scaled, room = np.empty_like(line), np.empty(3 * self.side * crop + 1, np.uint8)
        places = zip(
            draws.offsets[rows].tolist(),
            draws.sizes[rows].tolist(),
            draws.mirrors[rows].tolist(),
            strict=True,
        )
        for image, to, shift, ((top, left), (height, width), mirror) in zip(
            images, out, shifts, places, strict=True
        ):
            cut = image[top : top + height, left : left + width]
            if self.augmentation.smallest_area is not None:
                # The mean image is that of the centre, where the crop is shown in testing.
                done = compiled and resize_compiled(cut, room, scaled)
                cut, (top, left) = scaled if done else resize(cut, crop), self.centre
            if compiled:
                self.write_compiled(cut, to, shift, (top, left), mirror=mirror)
                continue
            mean = self.mirrored if mirror else self.rows
            first = 3 * (self.side - crop - left if mirror else left)
            np.add(mean[top : top + crop, first : first + 3 * crop], shift, out=flat)
            self.write_crop(mirror_into(line, cut) if mirror else cut, flat, to)

    def write_crop(
        self,
        cut: npt.NDArray[np.uint8],
        offset: npt.NDArray[np.float32],
        to: npt.NDArray[np.float32],
    ) -> None:
        """Write cut × factors + offset: uint8 [c, c, 3], float32 [c, 3c] → float32 [c, c, 3]."""
        # Row by row, since an inner loop over three colours is slow.
        pixels, lines = cut.reshape(offset.shape), to.reshape(offset.shape)
        if len(self.factors) > 1:
            np.multiply(pixels, self.line, out=lines)
        elif self.factors[0] == 1:
            lines[...] = pixels
        else:
            np.multiply(pixels, self.factors[0], out=lines)
        lines += offset

    def write_compiled(
        self,
        cut: npt.NDArray[np.uint8],
        to: npt.NDArray[np.float32],
        shift: npt.NDArray[np.float32],
        place: tuple[int, int],
        *,
        mirror: bool,
    ) -> None:
        """Write uint8 [c, c, 3] to float32 [c, c, 3], by the compiled loop.

        shift: float32 [3c]. place: top and left of the crop in the mean image.
        """
        top, left = place
        mean = self.rows[top:, 3 * left :]
        load_loop().augment(
            *(cut.ctypes.data, cut.strides[0]),
            *(mean.ctypes.data, self.rows.shape[1]),
            *(self.line.ctypes.data, shift.ctypes.data, mirror, to.ctypes.data, len(to)),
        )

    def compute_shifts(self, alphas: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Compute what is added to each row of pixels: float32 [B, 3] → [B, 3 × crop]."""
        shift = compute_colour_shift(self.pca, torch.from_numpy(alphas), self.augmentation.colour)
        return np.tile(shift.numpy() * self.factors, (1, self.augmentation.crop))


def resize(cut: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    """Scale uint8 [h, w, 3] to [side, side, 3], bilinearly and antialiased."""
    # A copy: torch takes no read-only array, and the images are those of a mapped file.
    pixels = torch.from_numpy(cut.copy()).permute(2, 0, 1)[None]
    scaled = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
    return scaled[0].permute(1, 2, 0).contiguous().numpy()


def resize_compiled(
    cut: npt.NDArray[np.uint8], room: npt.NDArray[np.uint8], out: npt.NDArray[np.uint8]
) -> bool:
    """Scale uint8 [h, w, 3] into [side, side, 3] by the compiled loop, as `resize` does.

    room: uint8 [3 · h · side + 1], to work in. Returns whether the sizes are what it can do.
    """
    sizes, places = cut.shape[:2], (room.ctypes.data, out.ctypes.data)
    done = load_loop().resize(cut.ctypes.data, cut.strides[0], *sizes, *places, len(out))
    return bool(done == 0)


def mirror_into(out: npt.NDArray[np.uint8], cut: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Write the mirror image of uint8 [h, w, 3] to `out`, and return `out`."""
    # Colour by colour: several times as fast as pixel by pixel.
    for colour in range(3):
        out[:, :, colour] = cut[:, ::-1, colour]
    return out


def compute_colour_shift(
    pca: Pca, alphas: Tensor, colour: Literal["paper", "original"] = "paper"
) -> Tensor:
    """Compute the grey levels (0–255) to add to R, G and B: float32 [B, 3] → [B, 3].

    "paper": Σ pᵢ αᵢ λᵢ (§4.1). The eigenvalues are those of RGB values between 0 and 1, which the
    paper leaves open: with values up to 255 the same formula would shift every pixel by about a
    thousand. "original": Σ pᵢ αᵢ √λᵢ, as run in 2012, which is the same on either scale.
    """
    values = pca.eigenvalues if colour == "paper" else pca.eigenvalues.sqrt()
    weights, vectors = alphas * values, pca.eigenvectors
    # Not a matrix product: BLAS rounds that differently for different batch sizes.
    return sum((weights[:, i, None] * vectors[:, i] for i in range(3)), torch.tensor(0.0)) * 255.0
