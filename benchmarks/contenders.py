"""The contenders of benchmarks/training.py."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, count, islice, repeat
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import alexnet

from benchmarks.workers import write_answer
from model.weights.loaded_network import find_device
from storage.home import Home
from storage.parallel import cores, map_ahead
from training.batches.batches import MAX_AHEAD, Batch, Batches, count_threads
from training.dataset.demo import make_demo
from training.dataset.find_source import find_source
from training.dataset.prepare import PreparedDataset, prepare
from training.distributed.mesh import join_mesh
from training.optimisation.device import (
    compile_network,
    has_bf16,
    keep_freed_memory,
    read_peak_memory,
    share_cores,
    trains_on_all_cores,
)
from training.optimisation.loop import train_epoch
from training.optimisation.precision import Precision
from training.optimisation.state import TrainingState, init_state
from training.recipe.config import SMALL
from training.recipe.schedule import schedule_epoch
from training.records.callbacks import Callbacks

Turn = Callable[[], tuple[int, float]]
"""Takes a turn's steps; returns the number of images and the seconds spent waiting for data."""


@dataclass(frozen=True)
class Contender:
    """How many processes a contender has, and the function that sets one up."""

    processes: int
    make: Callable[[dict[str, Any]], Turn]


def run_contender(job: dict[str, Any], rank: int) -> None:
    """Run one process of a contender: take a turn for each line on standard input."""
    contender = CONTENDERS[job["name"]]
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(contender.processes),
        "LOCAL_WORLD_SIZE": str(contender.processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": job["port"],
    }
    torch.set_num_threads(cores())
    turn = contender.make(job)
    write_answer({})
    for _ in sys.stdin:
        began = time.perf_counter()
        images, waited = turn()
        seconds = time.perf_counter() - began
        device = find_device()
        write_answer(
            {
                "images_per_second": images / seconds,
                "wait": waited / seconds,
                "memory": read_peak_memory(device),
            }
        )


def train_ours(job: dict[str, Any], *, in_memory: bool = False) -> Turn:
    """Set up the training loop of a run, on photographs that are augmented meanwhile.

    in_memory: on one batch that is ready, again and again.
    """
    keep_freed_memory()
    share_cores()
    device = find_device()
    data = prepare_photographs(job)
    config = SMALL.network(max(1000, len(data.class_names)))
    mesh = join_mesh(config, None, device)
    state = init_state(config, SMALL, device, mesh)
    batches = endless_batches(state, data, job, in_memory=in_memory)
    precision: Precision = "bf16" if uses_bf16(job, device) else "f32"
    compile_network(state, job["compile"], 0, precision)
    schedule = schedule_epoch([], SMALL)

    def turn() -> tuple[int, float]:
        state.progress.wait = 0.0
        train_epoch(state, next(batches), SMALL, schedule, precision, Callbacks())
        return job["steps"] * job["batch"], state.progress.wait

    return turn


@dataclass(frozen=True)
class BatchSlice(Batches):
    """The next few batches of `rest`, or of those that need no thread that works ahead.

    None is prepared before its turn begins.
    """

    rest: Iterator[Callable[[], Batch]] = field(default_factory=lambda: iter(()))
    steps: int = 0
    ready: Iterator[Batch] | None = None

    def __iter__(self) -> Iterator[Batch]:
        if self.ready is not None:
            yield from islice(self.ready, self.steps)
            return
        threads = count_threads()
        own = islice(self.rest, self.steps)
        ahead = max(MAX_AHEAD, threads)
        yield from map_ahead(lambda make: make(), own, ahead, threads=threads, yielding=True)


def endless_batches(
    state: TrainingState, data: PreparedDataset, job: dict[str, Any], *, in_memory: bool
) -> Iterator[Batches]:
    """Yield the batches of each turn, without end, one epoch after the other.

    in_memory: the first one only.
    """
    augmentation, steps = SMALL.augmentation(state.network.config), job["steps"]

    def plan_epoch(epoch: int) -> Batches:
        return Batches(data, augmentation, job["batch"], 0, epoch, 0, state.mesh.replica_slice)

    def list_batches() -> Iterator[Callable[[], Batch]]:
        for epoch in count(1):
            batches = plan_epoch(epoch)
            make = batches.plan_batches()
            yield from (partial(make, number) for number in range(len(batches)))

    rest = list_batches()
    ready: Iterator[Batch] | None = None
    if in_memory:
        ready = repeat(next(rest)())
    elif trains_on_all_cores(state.device):
        ready = chain.from_iterable(replace(plan_epoch(n), together=True) for n in count(1))
    while True:
        state.progress.step = 0
        yield BatchSlice(**vars(plan_epoch(1)), rest=rest, steps=steps, ready=ready)


def prepare_photographs(job: dict[str, Any]) -> PreparedDataset:
    """Prepare the given folder, or the demo photographs, as for a run."""
    home = Home(root=Path(job["home"]))
    folder = job["data"] or str(make_demo(home.demo))
    return prepare(find_source(folder), home.prepared, lambda _count: None)


def train_torchvision(job: dict[str, Any], *, same: bool) -> Turn:
    """Set up torchvision's AlexNet on images in memory; `same`: with our settings."""
    device = find_device()
    if same:
        keep_freed_memory()
    memory_format = torch.channels_last if same else torch.contiguous_format
    network = alexnet().to(device).to(memory_format=memory_format)
    sgd = torch.optim.SGD(
        network.parameters(), 0.01, momentum=0.9, weight_decay=0.0005, fused=same or None
    )
    x = torch.randn(job["batch"], 3, 224, 224, device=device).to(memory_format=memory_format)
    classes = torch.randint(0, 1000, (job["batch"],), device=device)
    bf16 = same and uses_bf16(job, device)

    def turn() -> tuple[int, float]:
        for _ in range(job["steps"]):
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits = network(x)
            loss = F.cross_entropy(logits.float(), classes)
            sgd.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            sgd.step()
            float(loss.detach())
        return job["steps"] * job["batch"], 0.0

    return turn


def compute_layers(job: dict[str, Any]) -> Turn:
    """Set up our layers with weights, each alone: its output and its gradients, in our precision.

    Inputs and the gradients of outputs are in memory. So this is the arithmetic of a step, with its
    shapes and by the library that computes it, without what lies between the layers, the
    conversions of weights, and the update.
    """
    keep_freed_memory()
    device = find_device()
    dtype = torch.bfloat16 if uses_bf16(job, device) else torch.float32
    network = init_state(SMALL.network(1000), SMALL, device).network.eval()
    inputs = record_inputs(network, torch.zeros(1, 3, 224, 224, device=device))
    calls = []
    for number, (layer, shape) in enumerate(inputs.items()):
        x = torch.randn(job["batch"], *shape[1:], device=device, dtype=dtype)
        if x.dim() == 4:
            x = x.to(memory_format=torch.channels_last)
        # Nothing needs the gradient of the image.
        x.requires_grad_(number > 0)
        out = layer.to(dtype)(x)
        calls.append((layer, x, torch.randn_like(out)))

    def turn() -> tuple[int, float]:
        for _ in range(job["steps"]):
            for layer, x, gradient in calls:
                layer(x).backward(gradient)
                layer.zero_grad(set_to_none=True)
                x.grad = None
        if device.type == "cuda":
            torch.cuda.synchronize()
        return job["steps"] * job["batch"], 0.0

    return turn


def record_inputs(network: nn.Module, x: Tensor) -> dict[nn.Module, torch.Size]:
    """Return the shape of what each layer with weights is given, in the order of the layers."""
    shapes: dict[nn.Module, torch.Size] = {}

    def record(layer: nn.Module, given: tuple[Tensor, ...], _out: Tensor) -> None:
        shapes[layer] = given[0].shape

    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(record) for layer in layers]
    with torch.no_grad():
        network(x)
    for hook in hooks:
        hook.remove()
    return shapes


def uses_bf16(job: dict[str, Any], device: torch.device) -> bool:
    """Whether layers compute in bf16, by the same rule as in a run."""
    if job["precision"] == "auto":
        return has_bf16(device)
    return bool(job["precision"] == "bf16")


CONTENDERS = {
    "ours": Contender(1, train_ours),
    "ours in memory": Contender(1, lambda job: train_ours(job, in_memory=True)),
    "two towers": Contender(2, train_ours),
    "torchvision": Contender(1, lambda job: train_torchvision(job, same=False)),
    "same settings": Contender(1, lambda job: train_torchvision(job, same=True)),
    "limit": Contender(1, compute_layers),
}
