"""Where the time of a step goes: each layer alone, other ways to compute some, and the kernels.

Times are of a forward and a backward pass in bf16, channels last, not compiled except where it
says so.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_harness.job import Job
from benchmarks.gpu_parts.speed import RECIPE, Setting, Setup, compile_ours, make_setup, train
from benchmarks.gpu_parts.synthetic import SameBatches, make_batch
from benchmarks.gpu_parts.timing import median_seconds
from model.network.alexnet import AlexNet
from model.network.lrn import LocalResponseNorm
from training.optimisation.state import init_state

MAX_KERNELS = 15
"""Kernels that the report lists, those that take longest."""


def measure(job: Job) -> None:
    """Measure the layers, other ways to compute convolutions and LRN, and list the kernels."""
    setup, settings = make_setup(job)
    device, batch, rounds = setup.device, settings[0].batch, 1 if job.quick else 20
    torch.manual_seed(0)
    network = AlexNet(setup.config).to(device).to(memory_format=torch.channels_last)
    x, layers = make_batch(batch, setup.config, device).x, dict[str, float]()
    for name, module in network.named_children():
        layers[name] = time_layer(module, x, device, rounds)
        job.record(ms_per_layer=layers)
        for other, call in list_other_ways(module, job.quick):
            job.attempt(f"{name}, {other}", partial(time_layer, call, x, device, rounds))
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            x = module(x)
    job.attempt("kernels", lambda: list_kernels(setup, settings[0]))


def time_layer(
    call: Callable[[Tensor], Tensor], x: Tensor, device: torch.device, rounds: int
) -> float:
    """Return the milliseconds of a forward and a backward pass through one layer."""

    def run() -> None:
        # A copy, since some layers work in place; its gradient is needed behind conv1 only.
        own = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        with torch.autocast(device.type, torch.bfloat16):
            y = call(own * 1)
        torch.autograd.backward(y, torch.ones_like(y))

    def copy() -> None:
        own = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        y = own * 1
        torch.autograd.backward(y, torch.ones_like(y))

    return 1000 * (median_seconds(run, device, rounds) - median_seconds(copy, device, rounds))


def list_other_ways(module: nn.Module, quick: bool) -> list[tuple[str, Callable[[Tensor], Tensor]]]:
    """List other ways to compute a layer: grouped convolutions apart, LRN by additions."""
    if isinstance(module, nn.Conv2d) and module.groups == 2:
        return [("as two convolutions", TwoConvolutions(module))]
    if not isinstance(module, LocalResponseNorm):
        return []
    values = (module.maps, module.towers, module.k, module.n, module.alpha, module.beta)
    expanded = LocalResponseNorm(*values)
    expanded.expand()
    ways: list[tuple[str, Callable[[Tensor], Tensor]]] = [("by additions", expanded)]
    if not quick:
        ways.append(("by additions, compiled", torch.compile(expanded)))
    return ways


class TwoConvolutions:
    """A convolution of two groups as two convolutions, of one half of the maps each."""

    def __init__(self, both: nn.Conv2d) -> None:
        self.halves = []
        assert both.bias is not None
        for weight, bias in zip(both.weight.chunk(2), both.bias.chunk(2), strict=True):
            half = nn.Conv2d(1, 1, 1, both.stride, both.padding)  # type: ignore[arg-type]
            half.weight = nn.Parameter(weight.detach().clone(memory_format=torch.preserve_format))
            half.bias = nn.Parameter(bias.detach().clone())
            self.halves.append(half)

    def __call__(self, x: Tensor) -> Tensor:
        """Convolve each half of [N, C, H, W], and put the results together."""
        parts = zip(self.halves, x.chunk(2, 1), strict=True)
        return torch.cat([half(part) for half, part in parts], 1)


def list_kernels(setup: Setup, setting: Setting) -> list[dict[str, Any]]:
    """Profile a few steps of training; list what takes longest, in milliseconds a step."""
    state = init_state(setup.config, RECIPE, setup.device)
    compile_ours(state, setting.mode)
    steps = min(setup.steps, 5)
    batches = SameBatches(
        setup.data,
        RECIPE.augmentation(setup.config),
        setting.batch,
        same=make_batch(setting.batch, setup.config, setup.device),
        steps=steps,
    )
    for _ in range(2):
        train(state, batches, RECIPE)
    cuda = setup.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as found:
        train(state, batches, RECIPE)
    which = "self_device_time_total" if cuda else "self_cpu_time_total"
    events = sorted(found.key_averages(), key=lambda e: -getattr(e, which))
    total = sum(getattr(event, which) for event in events) or 1
    return [
        {
            "name": event.key[:120],
            "ms_per_step": getattr(event, which) / 1000 / steps,
            "share": getattr(event, which) / total,
            "calls_per_step": event.count / steps,
        }
        for event in events[:MAX_KERNELS]
    ]
