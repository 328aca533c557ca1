"""The update of weights with a bfloat16 copy, in one pass of compiled C over all of their numbers.

It reads the gradient in bfloat16, as it was computed, and writes the copy that the next step
computes with (model/network/cpu/rounded_weights.py).
"""

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from model.network.cpu.c_library import compile_library, run_on_threads

SOURCE = Path(__file__).with_name("update.c")


@cache
def load_update() -> ctypes.CDLL:
    """Compile the update, once for each process. Raises CompilerError."""
    library = compile_library(SOURCE)
    number, position = ctypes.c_float, ctypes.c_int64
    pointers = [ctypes.c_void_p] * 4
    library.update.argtypes = [*pointers, number, number, number, position, position]
    return library


@torch.no_grad()
def update_rounded(
    weight: Tensor, velocity: Tensor, copy: Tensor, *, rate: float, momentum: float, decay: float
) -> None:
    """u ← momentum u + g + decay w, then w ← w − rate u; `copy` becomes w, rounded.

    weight and velocity u: float32 of one shape; copy: bfloat16; g is the weight's gradient in
    bfloat16.
    """
    gradient = weight.grad
    assert gradient is not None
    tensors = (weight, velocity, gradient.contiguous(), copy)
    assert all(tensor.is_contiguous() for tensor in tensors)
    values = (*tensors, rate, momentum, decay)
    run_on_threads(load_update().update, values, weight.numel())
