"""ReLU, response normalisation and max pooling of a network on a CPU in one pass of compiled C.

What these layers cost is passes over memory: apart, they are five going forward and seven back;
together, they read the convolution's output once in either direction (normalisation.c beside this).
They compute in float32, as the layers apart do, and round where these round: after the
normalisation and at the end.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from model.network.cpu.c_library import compile_library, run_on_threads
from model.network.lrn import LocalResponseNorm

SOURCE = Path(__file__).with_suffix(".c")
DTYPES = (torch.float32, torch.bfloat16)
MAX_PLACES = 256
"""In a window of the pooling, whose places are kept in a byte each."""


class _Layer(ctypes.Structure):
    """normalisation.c's Layer."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("bf16", "relu", "towers", "maps", "reach")),
        *((name, ctypes.c_int32) for name in ("size", "stride", "rows", "columns")),
        *((name, ctypes.c_int32) for name in ("pooled_rows", "pooled_columns")),
        *((name, ctypes.c_float) for name in ("k", "alpha", "beta")),
    )


def fuse_normalisations(network: nn.Module) -> int:
    """Let each normalisation of a network do the work of its neighbours, in one pass.

    These are a ReLU before and a max pooling after it, which become nn.Identity. Returns the number
    of normalisations. Raises CompilerError where the loops cannot be compiled.
    """
    children = list(network.named_children())
    count = 0
    for place, (_, lrn) in enumerate(children):
        if not isinstance(lrn, LocalResponseNorm):
            continue
        count += 1
        if lrn.fused is not None:
            continue
        load_loops()
        own = Neighbours(lrn)
        before, relu = children[max(0, place - 1)]
        if isinstance(relu, nn.ReLU):
            own.relu = True
            network.set_submodule(before, nn.Identity())
        after, pool = children[min(place + 1, len(children) - 1)]
        if isinstance(pool, nn.MaxPool2d) and can_pool(pool):
            own.pool = pool
            network.set_submodule(after, nn.Identity())
        lrn.fused = own
    return count


def can_pool(pool: nn.MaxPool2d) -> bool:
    """Whether the loops have this pooling: square windows without padding or gaps."""
    plain = pool.padding == 0 and pool.dilation == 1 and isinstance(pool.stride, int)
    return plain and isinstance(pool.kernel_size, int) and pool.kernel_size**2 <= MAX_PLACES


@dataclass
class Neighbours:
    """A normalisation with the layers around it that it does the work of.

    relu: whether one comes before. pool: what comes after.
    """

    lrn: LocalResponseNorm
    relu: bool = False
    pool: nn.MaxPool2d | None = None

    def __call__(self, z: Tensor) -> Tensor:
        """[N, maps, H, W] → rectified, normalised and pooled, channels last.

        In another dtype than float32 and bfloat16, or on another device than a CPU, the layers run
        apart.
        """
        if z.dtype not in DTYPES or z.device.type != "cpu":
            return self.run_apart(z)
        pooled: Tensor = _Fused.apply(z, self)
        return pooled

    def run_apart(self, z: Tensor) -> Tensor:
        """Run the layers one after the other."""
        a = torch.relu(z) if self.relu else z
        b = self.lrn.normalise(a)
        return b if self.pool is None else self.pool(b)

    def describe(self, z: Tensor) -> _Layer:
        """Describe the work on this input."""
        lrn, size, stride = self.lrn, 1, 1
        rows, columns = pooled = z.shape[2:]
        if self.pool is not None:
            size, stride = cast(int, self.pool.kernel_size), cast(int, self.pool.stride)
            # The shape is torch's to say.
            pooled = self.pool(z.new_empty(1, rows, columns, device="meta")).shape[1:]
        bf16 = z.dtype == torch.bfloat16
        sizes = (lrn.towers, lrn.maps // lrn.towers, lrn.n // 2, size, stride, rows, columns)
        return _Layer(bf16, self.relu, *sizes, *pooled, lrn.k, lrn.alpha, lrn.beta)


class _Fused(torch.autograd.Function):
    """The layers together; keeps their input, and where each window's largest value was."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, neighbours: Neighbours) -> Tensor:
        z = z.contiguous(memory_format=torch.channels_last)
        layer = neighbours.describe(z)
        shape = (len(z), layer.pooled_rows, layer.pooled_columns, z.shape[1])
        pooled, places = z.new_empty(shape), z.new_empty(shape, dtype=torch.uint8)
        run(load_loops().forward, layer, (z, pooled, places), len(z))
        ctx.save_for_backward(z, places)
        ctx.layer = layer
        return pooled.movedim(-1, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        z, places = ctx.saved_tensors
        gradient = grads[0].contiguous(memory_format=torch.channels_last)
        dz = torch.empty_like(z)
        run(load_loops().backward, ctx.layer, (z, gradient, places, dz), len(z))
        return dz, None


@cache
def load_loops() -> ctypes.CDLL:
    """Compile the loops, once for each process. Raises CompilerError."""
    loops = compile_library(SOURCE)
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    loops.forward.argtypes = [ctypes.POINTER(_Layer), *[pointer] * 3, integer, integer]
    loops.backward.argtypes = [ctypes.POINTER(_Layer), *[pointer] * 4, integer, integer]
    return loops


def run(loop: Callable[..., int], layer: _Layer, tensors: tuple[Tensor, ...], images: int) -> None:
    """Run a loop over all images. Raises MemoryError if its buffers find no memory."""
    if any(run_on_threads(loop, (layer, *tensors), images)):
        raise MemoryError("no memory for the buffers of response normalisation")
