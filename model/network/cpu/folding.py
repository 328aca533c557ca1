"""A convolution with a stride as one without: the first layer, for processors with matrix units.

conv1 has 3 channels and a stride of 4. AMX multiplies tiles of 32 numbers and more, so that it
mostly waits for 3. Each square of 4 × 4 pixels becomes one pixel of 48 channels, and a kernel of
11 × 11 one of 3 × 3 that is zero where it would reach beyond: the same products are summed, and
zeros.
"""

import ctypes
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.cpu.c_library import compile_library, run_on_threads
from model.network.modules import StridedConv, computes_in_bf16

MAX_CHANNELS = 4
"""With more, the matrix units are not idle."""


def fold_convolutions(network: nn.Module) -> None:
    """Fold a network's strided convolutions of few channels, and padding at the border before them.

    They stay as they are outside of autocast to bfloat16, where nothing is won. Raises
    CompilerError.
    """
    load_fold()
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
        image = fold_image_compiled(x, rows, columns, stride, pad)
        image = fold_image(x, rows, columns, stride, pad) if image is None else image
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


@cache
def load_fold() -> ctypes.CDLL:
    """Compile the loop, once for each process. Raises CompilerError."""
    library = compile_library(Path(__file__).with_suffix(".c"))
    library.fold.argtypes = [*[ctypes.c_void_p] * 2, *[ctypes.c_int] * 9]
    return library


def fold_image_compiled(x: Tensor, rows: int, columns: int, stride: int, pad: int) -> Tensor | None:
    """Fold as `fold_image` does, in one pass; None if x is not float32, channels last.

    An image needs no gradient, and gets none.
    """
    image = x.movedim(1, -1)
    if x.dtype != torch.float32 or x.requires_grad or not image.is_contiguous():
        return None
    images, high, wide, channels = image.shape
    shape = (images, rows, columns, stride**2 * channels)
    out = torch.empty(shape, dtype=torch.bfloat16)
    values = (image, out, high, wide, channels, rows, columns, stride, pad)
    failed = any(run_on_threads(load_fold().fold, values, images))
    return None if failed else out.movedim(-1, 1)


def fold_kernels(weight: Tensor, kernel: int, stride: int) -> Tensor:
    """[maps, C, k, k] → [maps, stride² · C, kernel, kernel], with zeros beyond k."""
    maps, channels, rows, columns = weight.shape
    side = kernel * stride
    whole = F.pad(weight, (0, side - columns, 0, side - rows))
    squares = whole.view(maps, channels, kernel, stride, kernel, stride)
    return squares.permute(0, 3, 5, 1, 2, 4).reshape(maps, -1, kernel, kernel)
