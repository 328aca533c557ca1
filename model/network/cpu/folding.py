"""A convolution with a stride as one without: the first layer, for processors with matrix units.

conv1 has 3 channels and a stride of 4. AMX multiplies tiles of 32 numbers and more, so that it
mostly waits for 3. Each square of 4 × 4 pixels becomes one pixel of 48 channels, and a kernel of
11 × 11 one of 3 × 3 that is zero where it would reach beyond: the same products are summed, and
zeros.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.modules import StridedConv, computes_in_bf16

MAX_CHANNELS = 4
"""With more, the matrix units are not idle."""


def fold_convolutions(network: nn.Module) -> None:
    """Fold a network's strided convolutions of few channels, and padding at the border before them.

    They stay as they are outside of autocast to bfloat16, where nothing is won.
    """
    children = list(network.named_children())
    for place, (_, conv) in enumerate(children):
        if not isinstance(conv, StridedConv) or conv.in_channels > MAX_CHANNELS or conv.folded:
            continue
        before, border = children[max(0, place - 1)]
        if isinstance(border, nn.ZeroPad2d) and not any(border.padding[::2]):
            network.set_submodule(before, nn.Identity())
            conv.folded = FoldedConv(conv, border)
        else:
            conv.folded = FoldedConv(conv)


@dataclass
class FoldedConv:
    """A strided convolution, with the zeros that were added at the bottom and right before it."""

    conv: StridedConv
    border: nn.ZeroPad2d | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, maps, H', W']."""
        if not computes_in_bf16(x):
            return self.conv.convolve(x if self.border is None else self.border(x))
        stride, pad = int(self.conv.stride[0]), int(self.conv.padding[0])
        kernel = math.ceil(self.conv.kernel_size[0] / stride)
        right, bottom = (0, 0) if self.border is None else self.border.padding[1::2]
        rows, columns = (
            (side + border + 2 * pad - self.conv.kernel_size[0]) // stride + kernel
            for side, border in zip(x.shape[2:], (bottom, right), strict=True)
        )
        image = fold_image(x, rows, columns, stride, pad)
        return F.conv2d(image, fold_kernels(self.conv.weight, kernel, stride), self.conv.bias)


def fold_image(x: Tensor, rows: int, columns: int, stride: int, pad: int) -> Tensor:
    """[N, C, H, W] → bfloat16 [N, stride² · C, rows, columns], channels last, zeros around it."""
    images, channels = x.shape[:2]
    whole = x.new_zeros((images, rows * stride, columns * stride, channels), dtype=torch.bfloat16)
    space = whole[:, pad : pad + x.shape[2], pad : pad + x.shape[3]]
    # What no kernel reaches at the bottom and right is left out.
    space.copy_(x.movedim(1, -1)[:, : space.shape[1], : space.shape[2]])
    squares = whole.view(images, rows, stride, columns, stride * channels).transpose(2, 3)
    return squares.reshape(images, rows, columns, -1).movedim(-1, 1)


def fold_kernels(weight: Tensor, kernel: int, stride: int) -> Tensor:
    """[maps, C, k, k] → [maps, stride² · C, kernel, kernel], with zeros beyond k."""
    maps, channels, rows, columns = weight.shape
    side = kernel * stride
    whole = F.pad(weight, (0, side - columns, 0, side - rows))
    squares = whole.view(maps, channels, kernel, stride, kernel, stride)
    return squares.permute(0, 3, 5, 1, 2, 4).reshape(maps, -1, kernel, kernel)
