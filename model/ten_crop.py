"""Ten crops asked at the cost of fewer: what their first layers have in common is computed once.

The crops of §4.1 lie 0, 16 and 32 pixels from the square's edges, whole numbers of the 8 pixels
from one place of pool1 to the next. So the first layers' maps of the whole square and of its
mirror hold those of all ten crops, but for the last row and column, which see the border of three
zero pixels: these are computed for each crop by itself.
"""

from dataclasses import dataclass
from functools import partial
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.alexnet import AlexNet, Output
from model.config import CROP_SIDE, SQUARE_SIDE
from model.lrn import LocalResponseNorm

Span = tuple[int, int]
POINTWISE = (nn.ReLU, nn.Tanh, LocalResponseNorm)
"""What computes each place of its maps from that place alone."""


CENTRE_CROP = 4
"""Which of the ten crops is the centre one, not mirrored."""


def ten_crop_forward(network: AlexNet, squares: Tensor) -> tuple[Tensor, Tensor]:
    """What the network says of each of the ten crops (§4.1).

    float32 [N, 3, side, side] → softmax outputs float32 [N, 10, classes] and features of fc7
    [N, 10, 4096] (or as many as the network has).
    """
    logits, fc7 = run_crops(network, squares)
    shape = len(squares), 10
    each = torch.unflatten(logits.float().softmax(1), 0, shape)
    return each, torch.unflatten(fc7, 0, shape)


def run_crops(network: AlexNet, squares: Tensor) -> Output:
    """The network's output for the ten crops of each square, one after another.

    float32 [N, 3, side, side] → Output of [N · 10], in the order of `ten_crops`. Equal to asking
    for each crop by itself, to rounding; networks whose crops share nothing are asked just so.
    """
    found = find_shared_prefix(network)
    if found is None:
        output: Output = network(cut_ten_crops(squares, network.config.crop).flatten(0, 1))
        return output
    layers = list(network.named_children())
    first = nn.Sequential(*(layer for _, layer in layers[: found.layers] if not is_border(layer)))
    maps = maps_of_crops(first, squares, network.config.crop, found)
    return network.run_modules(maps, layers[found.layers :])


@dataclass(frozen=True)
class SharedPrefix:
    """A network's first layers, as far as crops can share them.

    layers: how many. reach: pixels across that one place sees. stride: pixels from one place to
    the next. border: zero pixels at a crop's bottom and right.
    """

    layers: int
    reach: int
    stride: int
    border: int


def find_shared_prefix(network: AlexNet) -> SharedPrefix | None:
    """The longest run of first layers that crops can share, or None.

    A layer ends it that looks beyond the edges of its maps, as conv2 does.
    """
    config = network.config
    margin = config.side - config.crop
    starts = {along for start in crop_offsets(config.side, config.crop) for along in start}
    starts |= {margin - start for start in starts}
    reach, stride, border, found = 1, 1, 0, None
    for count, layer in enumerate(network.children(), start=1):
        if count == 1 and is_border(layer):
            border = layer.padding[3]
        elif window := window_of(layer):
            reach, stride = reach + (window[0] - 1) * stride, stride * window[1]
        elif not isinstance(layer, POINTWISE):
            break
        if reach > 1 and all(start % stride == 0 for start in starts):
            found = SharedPrefix(count, reach, stride, border)
    return found


def is_border(layer: nn.Module) -> TypeGuard[nn.ZeroPad2d]:
    """Whether a layer adds zeros at the bottom and right only, as many at both."""
    if not isinstance(layer, nn.ZeroPad2d):
        return False
    left, right, top, bottom = layer.padding
    return left == top == 0 and right == bottom


def window_of(layer: nn.Module) -> tuple[int, int] | None:
    """Size and stride of a layer's square window that stays within its maps, if it has one."""
    if isinstance(layer, nn.Conv2d) and layer.padding == (0, 0):
        return layer.kernel_size[0], layer.stride[0]
    if isinstance(layer, nn.MaxPool2d) and layer.padding == 0 and not layer.ceil_mode:
        assert isinstance(layer.kernel_size, int)
        assert isinstance(layer.stride, int)
        return layer.kernel_size, layer.stride
    return None


def maps_of_crops(first: nn.Module, squares: Tensor, crop: int, found: SharedPrefix) -> Tensor:
    """The first layers' maps of every crop: float32 [N, 3, side, side] → [N · 10, C, H, W]."""
    whole = torch.cat([squares, squares.flip(-1)])
    maps = first(whole)
    inside = (crop - found.reach) // found.stride + 1
    edge = inside * found.stride
    cut = partial(of_crops, side=squares.shape[-1], crop=crop)
    held = cut(maps, (0, inside), (0, inside), step=found.stride)
    if (crop + found.border - found.reach) // found.stride < inside:
        return held
    # Places that see the border: first those at the right of what is held, then all below.
    seen = edge - found.stride + found.reach
    right = F.pad(cut(whole, (0, seen), (edge, crop)), (0, found.border))
    below = F.pad(cut(whole, (edge, crop), (0, crop)), (0, found.border, 0, found.border))
    return torch.cat([torch.cat([held, first(right)], dim=3), first(below)], dim=2)


def of_crops(
    maps: Tensor, rows: Span, columns: Span, *, side: int, crop: int, step: int = 1
) -> Tensor:
    """The same part of every crop, out of maps with a place every `step` pixels.

    [2N, C, …] of the squares and then of their mirrors → [N · 10, C, rows, columns].
    """
    parts = []
    for half, mirrored in zip(maps.chunk(2), (False, True), strict=True):
        for top, left in crop_offsets(side, crop):
            # The mirror of a crop lies in the mirrored square as far from the other edge.
            start = top // step, (side - crop - left if mirrored else left) // step
            (y0, y1), (x0, x1) = (
                (begin + span[0], begin + span[1])
                for begin, span in zip(start, (rows, columns), strict=True)
            )
            parts.append(half[..., y0:y1, x0:x1])
    one_by_one = torch.stack(parts, dim=1).flatten(0, 1)
    return one_by_one.contiguous(memory_format=torch.channels_last)


def crop_offsets(side: int = SQUARE_SIDE, crop: int = CROP_SIDE) -> tuple[tuple[int, int], ...]:
    """The (top, left) of the four corner crops and the centre crop of a square (§4.1).

    Raises ValueError for a crop that is larger than the square.
    """
    margin = side - crop
    if margin < 0:
        raise ValueError(f"no crop of {crop}×{crop} pixels fits into {side}×{side}")
    middle = margin // 2
    return ((0, 0), (0, margin), (margin, 0), (margin, margin), (middle, middle))


def cut_ten_crops(x: Tensor, crop: int = CROP_SIDE) -> Tensor:
    """float32 [N, 3, s, s] → float32 [N, 10, 3, crop, crop] (§4.1).

    The four corner crops (top left, top right, bottom left, bottom right), the centre crop, then
    the mirrors of these five in the same order. Raises ValueError for other shapes or dtypes.
    """
    _check_square(x)
    cuts = (_crop(x, top, left, crop) for top, left in crop_offsets(x.shape[-1], crop))
    five = torch.stack(list(cuts), dim=1)
    return torch.cat([five, five.flip(-1)], dim=1)


def centre_crop(x: Tensor, crop: int = CROP_SIDE) -> Tensor:
    """float32 [N, 3, s, s] → its central float32 [N, 3, crop, crop]; ValueError otherwise."""
    _check_square(x)
    return _crop(x, *crop_offsets(x.shape[-1], crop)[4], crop)


def _crop(x: Tensor, top: int, left: int, crop: int) -> Tensor:
    return x[..., top : top + crop, left : left + crop]


def _check_square(x: Tensor) -> None:
    if x.dtype != torch.float32 or x.ndim != 4 or x.shape[1:] != (3, x.shape[-1], x.shape[-1]):
        raise ValueError(f"x must be float32 [N, 3, s, s], not {x.dtype} {list(x.shape)}")
