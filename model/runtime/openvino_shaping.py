"""Operations of OpenVINO that only change a tensor's shape or cut it."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from openvino import opset13 as op

Output: TypeAlias = Any
"""The output of an operation; OpenVINO is not typed."""


def pad(x: Output, *, left: int = 0, right: int = 0, top: int = 0, bottom: int = 0) -> Output:
    """Add zeros around [N, C, H, W]."""
    before, after = [0, 0, top, left], [0, 0, bottom, right]
    return op.pad(x, before, after, "constant", np.float32(0)).output(0)


def cut(x: Output, rows: tuple[int, int], columns: tuple[int, int]) -> Output:
    """Cut rows and columns out of [N, C, H, W]."""
    (y0, y1), (x0, x1) = rows, columns
    ends = (integers(some) for some in ([y0, x0], [y1, x1], [1, 1], [2, 3]))
    return op.slice(x, *ends).output(0)


def mirror(x: Output) -> Output:
    """Reverse the columns of [N, C, H, W]."""
    ends = (integers([some]) for some in (-1, np.iinfo(np.int64).min, -1, 3))
    return op.slice(x, *ends).output(0)


def reshape(x: Output, shape: Sequence[int]) -> Output:
    """Give a tensor another shape, one side of which may be −1."""
    return op.reshape(x, integers(shape), False).output(0)


def integers(values: Sequence[int]) -> Any:
    """Make a constant of whole numbers."""
    return op.constant(np.array(values, np.int64))
