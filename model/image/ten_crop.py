"""The crops of §4.1, and the network's output for all ten of them at the cost of fewer.

The authors' networks for CIFAR-10 are tested on nine crops instead, without mirror images.

The ten crops lie 0, 16 and 32 pixels from the square's edges: whole multiples of the 8 pixels
from one position of pool1 to the next. So the first layers' maps of the whole square and of its
mirror image contain those of all ten crops, except the last row and column, which see the border
of three zero pixels: those are computed for each crop separately.
"""

from dataclasses import dataclass
from functools import partial
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.image.preprocess import CENTRE_CROP, crop_offsets
from model.network.alexnet import AlexNet, Output
from model.network.config import CROP_SIDE, AlexNetConfig
from model.network.lrn import LocalResponseNorm

TEST_CROP_COUNTS = {"ten": 10, "nine": 9}
"""How many crops predictions are averaged over, by `AlexNetConfig.test_crops`."""
POINTWISE_LAYERS = (nn.ReLU, nn.Tanh, LocalResponseNorm)
"""Layers that compute each position of their maps from that position alone."""
Span = tuple[int, int]


def ten_crop_forward(network: AlexNet, squares: Tensor) -> tuple[Tensor, Tensor]:
    """Run the ten crops of each square through the network (§4.1).

    float32 [N, 3, side, side] → softmax outputs float32 [N, 10, classes] and fc7's features
    [N, 10, 4096] (or as many as the network has). Of a network that is tested on nine crops, nine.
    """
    logits, fc7 = run_crops(network, squares)
    shape = len(squares), TEST_CROP_COUNTS[network.config.test_crops]
    probabilities = torch.unflatten(logits.float().softmax(1), 0, shape)
    return probabilities, torch.unflatten(fc7, 0, shape)


def run_crops(network: AlexNet, squares: Tensor) -> Output:
    """Compute the network's output for the ten crops of each square, one after another.

    float32 [N, 3, side, side] → Output of [N · 10], in the order of `cut_ten_crops`. Equal, up to
    rounding, to running each crop separately, which is what happens where crops share nothing.
    """
    config = network.config
    prefix = find_shared_prefix(network) if config.test_crops == "ten" else None
    if prefix is None:
        output: Output = network(cut_test_crops(squares, config).flatten(0, 1))
        return output
    layers = list(network.named_children())
    first = nn.Sequential(*(layer for _, layer in layers[: prefix.layers] if not is_border(layer)))
    maps = compute_crop_maps(first, squares, config.crop, prefix)
    return network.run_modules(maps, layers[prefix.layers :])


@dataclass(frozen=True)
class SharedPrefix:
    """The first layers of a network whose maps crops can share.

    layers: how many. reach: pixels across that one position sees. stride: pixels from one
    position to the next. border: zero pixels at a crop's bottom and right.
    """

    layers: int
    reach: int
    stride: int
    border: int


def find_shared_prefix(network: AlexNet) -> SharedPrefix | None:
    """Find the longest run of first layers that crops can share; None if there is none.

    It ends before a layer that looks beyond the edges of its maps, as conv2 does.
    """
    config = network.config
    margin = config.side - config.crop
    starts = {along for start in crop_offsets(config.side, config.crop) for along in start}
    starts |= {margin - start for start in starts}
    reach, stride, border, longest = 1, 1, 0, None
    for count, layer in enumerate(network.children(), start=1):
        if count == 1 and is_border(layer):
            border = layer.padding[3]
        elif window := find_unpadded_window(layer):
            reach, stride = reach + (window[0] - 1) * stride, stride * window[1]
        elif not isinstance(layer, POINTWISE_LAYERS):
            break
        if reach > 1 and all(start % stride == 0 for start in starts):
            longest = SharedPrefix(count, reach, stride, border)
    return longest


def is_border(layer: nn.Module) -> TypeGuard[nn.ZeroPad2d]:
    """Return whether a layer adds zeros at the bottom and right only, equally many at both."""
    if not isinstance(layer, nn.ZeroPad2d):
        return False
    left, right, top, bottom = layer.padding
    return left == top == 0 and right == bottom


def find_unpadded_window(layer: nn.Module) -> tuple[int, int] | None:
    """Return size and stride of a layer's square window; None if it reaches beyond its maps."""
    if isinstance(layer, nn.Conv2d) and layer.padding == (0, 0):
        return layer.kernel_size[0], layer.stride[0]
    if isinstance(layer, nn.MaxPool2d) and layer.padding == 0 and not layer.ceil_mode:
        assert isinstance(layer.kernel_size, int)
        assert isinstance(layer.stride, int)
        return layer.kernel_size, layer.stride
    return None


def compute_crop_maps(first: nn.Module, squares: Tensor, crop: int, prefix: SharedPrefix) -> Tensor:
    """Compute the first layers' maps of all crops: [N, 3, side, side] → [N · 10, C, H, W]."""
    both = torch.cat([squares, squares.flip(-1)])
    maps = first(both)
    inside = (crop - prefix.reach) // prefix.stride + 1
    edge = inside * prefix.stride
    cut = partial(cut_from_crops, side=squares.shape[-1], crop=crop)
    shared = cut(maps, (0, inside), (0, inside), step=prefix.stride)
    if (crop + prefix.border - prefix.reach) // prefix.stride < inside:
        return shared
    # Positions that see the border: first those to the right of the shared ones, then all below.
    seen = edge - prefix.stride + prefix.reach
    right = F.pad(cut(both, (0, seen), (edge, crop)), (0, prefix.border))
    below = F.pad(cut(both, (edge, crop), (0, crop)), (0, prefix.border, 0, prefix.border))
    return torch.cat([torch.cat([shared, first(right)], dim=3), first(below)], dim=2)


def cut_from_crops(
    maps: Tensor, rows: Span, columns: Span, *, side: int, crop: int, step: int = 1
) -> Tensor:
    """Cut the same part of every crop out of maps with one position every `step` pixels.

    [2N, C, …], the squares and then their mirror images → [N · 10, C, rows, columns].
    """
    parts = []
    for half, mirrored in zip(maps.chunk(2), (False, True), strict=True):
        for top, left in crop_offsets(side, crop):
            # A crop's mirror image lies as far from the other edge of the mirrored square.
            start = top // step, (side - crop - left if mirrored else left) // step
            (y0, y1), (x0, x1) = (
                (begin + span[0], begin + span[1])
                for begin, span in zip(start, (rows, columns), strict=True)
            )
            parts.append(half[..., y0:y1, x0:x1])
    crops = torch.stack(parts, dim=1).flatten(0, 1)
    return crops.contiguous(memory_format=torch.channels_last)


def grid_offsets(side: int, crop: int) -> tuple[tuple[int, int], ...]:
    """Return (top, left) of nine crops of a square, in a grid of 3 × 3, row by row.

    As the published source tests the networks for CIFAR-10: of 32 pixels, crops of 24 at 0, 4 and
    8. Raises ValueError for a crop larger than the square.
    """
    top_left, *_, bottom_right, middle = crop_offsets(side, crop)
    along = (top_left[0], middle[0], bottom_right[0])
    return tuple((top, left) for top in along for left in along)


def cut_test_crops(x: Tensor, config: AlexNetConfig) -> Tensor:
    """Cut the crops that a network is tested on out of float32 [N, 3, s, s].

    Returns float32 [N, 10, 3, crop, crop], or [N, 9, …]. Raises ValueError as `cut_ten_crops`.
    """
    if config.test_crops == "ten":
        return cut_ten_crops(x, config.crop)
    _check_square(x)
    offsets = grid_offsets(x.shape[-1], config.crop)
    return torch.stack([_cut_crop(x, top, left, config.crop) for top, left in offsets], dim=1)


def cut_ten_crops(x: Tensor, crop: int = CROP_SIDE) -> Tensor:
    """Cut float32 [N, 10, 3, crop, crop] out of float32 [N, 3, s, s] (§4.1).

    In this order: the four corner crops (top left, top right, bottom left, bottom right), the
    centre crop, then the mirror images of these five. Raises ValueError for other shapes or dtypes.
    """
    _check_square(x)
    cuts = (_cut_crop(x, top, left, crop) for top, left in crop_offsets(x.shape[-1], crop))
    five = torch.stack(list(cuts), dim=1)
    return torch.cat([five, five.flip(-1)], dim=1)


def centre_crop(x: Tensor, crop: int = CROP_SIDE) -> Tensor:
    """Cut the central float32 [N, 3, crop, crop] out of float32 [N, 3, s, s].

    Raises ValueError for other shapes or dtypes.
    """
    _check_square(x)
    return _cut_crop(x, *crop_offsets(x.shape[-1], crop)[CENTRE_CROP], crop)


def _cut_crop(x: Tensor, top: int, left: int, crop: int) -> Tensor:
    return x[..., top : top + crop, left : left + crop]


def _check_square(x: Tensor) -> None:
    if x.dtype != torch.float32 or x.ndim != 4 or x.shape[1:] != (3, x.shape[-1], x.shape[-1]):
        given = f"{x.dtype} {list(x.shape)}".removeprefix("torch.")
        raise ValueError(f"x must be float32 [N, 3, s, s], not {given}")
