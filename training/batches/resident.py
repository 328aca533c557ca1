"""Images that stay in a GPU's memory, and the augmentation of images there (§4.1).

A core augments about a thousand images a second, a fast GPU trains on ten times as many. Images are
therefore cropped, scaled, mirrored and coloured on the GPU, by the same random numbers as on the
CPU; where all of them fit into its memory they are kept there, else each batch crosses as bytes
(training/batches/streaming.py). Crops of the network's size become the same pixels; scaled crops
differ by about a grey level at most, since only the CPU rounds to whole ones.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.image.preprocess import CENTRE_CROP, crop_offsets
from model.weights.checkpoint import Pca
from training.batches.augment import Augmentation, AugmentationDraws, compute_colour_shift
from training.dataset.prepare import PreparedDataset
from training.dataset.store import Split

MAX_MEMORY_SHARE = 1 / 3
"""Share of a GPU's free memory that images may take."""
ROWS_PER_COPY = 1024
"""Images copied at a time: 200 MB."""


@dataclass(frozen=True)
class ResidentSplit(Split):
    """A split whose images are on a GPU, too: `pixels` is uint8 [N, side, side, 3]."""

    pixels: Tensor

    def select(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """Return the images of these rows: uint8 [B, side, side, 3], on the GPU."""
        return self.pixels[torch.from_numpy(rows).to(self.pixels.device, non_blocking=True)]


def keep_on_gpu(data: PreparedDataset, device: torch.device) -> PreparedDataset:
    """Return the dataset with its images on the GPU, if the device is one and has room for them."""
    if device.type != "cuda" or isinstance(data.train, ResidentSplit):
        return data
    free, _ = torch.cuda.mem_get_info(device)
    return copy_images(data, device) if fits_into(free, data) else data


def fits_into(free: int, data: PreparedDataset) -> bool:
    """Return whether a GPU with so many free bytes has room for the images."""
    needed = (len(data.train) + len(data.val)) * data.side**2 * 3
    return needed <= MAX_MEMORY_SHARE * free


def copy_images(data: PreparedDataset, device: torch.device) -> PreparedDataset:
    """Return the dataset with its images in the memory of a device."""
    return replace(data, train=copy_split(data.train, device), val=copy_split(data.val, device))


def copy_split(split: Split, device: torch.device) -> ResidentSplit:
    """Return a split with its images in the memory of a device."""
    if isinstance(split, ResidentSplit):
        return split
    pixels = torch.empty((len(split), split.side, split.side, 3), dtype=torch.uint8, device=device)
    for start in range(0, len(split), ROWS_PER_COPY):
        rows = np.arange(start, min(start + ROWS_PER_COPY, len(split)))
        pixels[start : start + len(rows)] = torch.from_numpy(split.read(rows)).to(device)
    known = {field.name: getattr(split, field.name) for field in fields(Split)}
    return ResidentSplit(**known, pixels=pixels)


class GpuAugmenter:
    """Crops, mirrors, centres and colours images that are on a GPU, as Augmenter does on the CPU.

    dtype: of the products that scale crops. float16, which GPUs multiply fastest, holds every
    grey level and rounds the result by up to a quarter of one.
    """

    def __init__(
        self,
        augmentation: Augmentation,
        mean: Tensor,
        pca: Pca,
        device: torch.device,
        dtype: torch.dtype = torch.float16,
    ) -> None:
        """Take the mean image, float32 [3, s, s]."""
        self.augmentation, self.pca, self.device, self.dtype = augmentation, pca, device, dtype
        self.mean = mean.permute(1, 2, 0).contiguous().to(device)
        divisors = torch.tensor(augmentation.divisors, device=device)
        self.factors = 1 / divisors[:, None, None]

    def __call__(
        self, squares: Tensor, draws: AugmentationDraws, rows: npt.NDArray[np.int64]
    ) -> Tensor:
        """Augment images on the device: uint8 [B, s, s, 3] → float32 [B, 3, crop, crop].

        rows: int64 [B], each image's row in `draws`. The result is channels last.
        """
        device, crop = self.device, self.augmentation.crop
        shifts = compute_colour_shift(
            self.pca, torch.from_numpy(draws.alphas[rows]), self.augmentation.colour
        )
        places = np.column_stack([draws.offsets[rows], draws.sizes[rows], draws.mirrors[rows]])
        numbers = torch.from_numpy(places.astype(np.int64)).to(device, non_blocking=True)
        offsets, sizes, mirrors = numbers[:, :2], numbers[:, 2:4], numbers[:, 4]
        if self.augmentation.smallest_area is None:
            tops, lefts = offsets[:, 0], offsets[:, 1]
            cut = cut_at(squares, tops, lefts, mirrors, crop)
            mean = cut_at(self.mean[None].expand(len(rows), -1, -1, -1), tops, lefts, mirrors, crop)
            x = (cut - mean).permute(0, 3, 1, 2)
        else:
            cut = scale_areas(squares, offsets, sizes, mirrors, crop, self.dtype)
            # The mean image is that of the centre, where the crop is shown in testing.
            top, left = crop_offsets(len(self.mean), crop)[CENTRE_CROP]
            mean = self.mean[top : top + crop, left : left + crop].permute(2, 0, 1)
            mirrored = mirrors[:, None, None, None].bool()
            x = cut - torch.where(mirrored, mean.flip(-1), mean)
        x = (x + shifts.to(device)[:, :, None, None]) * self.factors
        return x.contiguous(memory_format=torch.channels_last)


def cut_at(images: Tensor, tops: Tensor, lefts: Tensor, mirrors: Tensor, crop: int) -> Tensor:
    """Cut a crop out of each image, [B, s, s, 3], and mirror some: → float32 [B, crop, crop, 3]."""
    along = torch.arange(crop, device=images.device)
    across = torch.where(mirrors[:, None].bool(), crop - 1 - along, along)
    rows, columns = tops[:, None] + along, lefts[:, None] + across
    number = torch.arange(len(images), device=images.device)[:, None, None]
    return images[number, rows[:, :, None], columns[:, None, :]].float()


def scale_areas(
    images: Tensor,
    offsets: Tensor,
    sizes: Tensor,
    mirrors: Tensor,
    crop: int,
    dtype: torch.dtype,
) -> Tensor:
    """Scale a part of each image to a square, bilinearly and antialiased, and mirror some.

    uint8 [B, s, s, 3] → float32 [B, 3, crop, crop]. offsets, sizes: int64 [B, 2], vertical and
    horizontal. Two products with matrices of weights: by rows, then by columns.
    """
    count, side = images.shape[:2]
    never = torch.zeros_like(mirrors)
    down = scaling_matrix(offsets[:, 0], sizes[:, 0], never, side, crop).to(dtype)
    across = scaling_matrix(offsets[:, 1], sizes[:, 1], mirrors, side, crop).to(dtype)
    lines = torch.bmm(down, images.to(dtype).reshape(count, side, side * 3))
    planes = lines.view(count, crop, side, 3).permute(0, 3, 1, 2).reshape(count, 3 * crop, side)
    return torch.bmm(planes, across.mT).view(count, 3, crop, crop).float()


def scaling_matrix(
    starts: Tensor, lengths: Tensor, mirrors: Tensor, side: int, crop: int
) -> Tensor:
    """Return the weight of each of `side` pixels in each of `crop`: float32 [B, crop, side].

    starts, lengths: int64 [B], the part of the line that is scaled. The weights are those of
    torch's antialiased interpolation: a triangle around each pixel's centre, as wide as the
    distance between two pixels, within the part.
    """
    device = starts.device
    number = torch.arange(crop, device=device)
    number = torch.where(mirrors[:, None].bool(), crop - 1 - number, number)
    scale = lengths[:, None] / crop
    centres = (starts[:, None] + (number + 0.5) * scale)[:, :, None]
    pixels = torch.arange(side, device=device) + 0.5
    weights = (1 - (pixels - centres).abs() / scale.clamp(min=1)[:, :, None]).clamp(min=0)
    inside = (pixels > starts[:, None]) & (pixels < (starts + lengths)[:, None])
    weights = weights * inside[:, None]
    return weights / weights.sum(2, keepdim=True)
