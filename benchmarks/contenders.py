"""What benchmarks/training.py lets run against each other, each in processes of its own."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import alexnet

from model.predict import find_device
from storage.home import Home
from training.callbacks import Callbacks
from training.config import SMALL
from training.data import Batch, Batches, ahead
from training.dataset.demo import make_demo
from training.dataset.prepare import Prepared, prepare
from training.dataset.source import find_source
from training.device import (
    compile_network,
    has_bf16,
    keep_freed_memory,
    read_peak_memory,
    share_cores,
)
from training.distributed.mesh import join_mesh
from training.loop import train_epoch
from training.machine import cores
from training.state import TrainingState, init_state

SIZE = 3072
"""Side of the matrices whose product measures the limit."""
Turn = Callable[[], tuple[int, float]]
"""Does a turn's steps; gives how many images it trained on, and the seconds it waited."""


@dataclass(frozen=True)
class Contender:
    """How many processes it has, and what makes its turns."""

    processes: int
    make: Callable[[dict[str, Any]], Turn]


def contend(told: dict[str, Any], rank: int) -> None:
    """Be one process of a contender: a turn for each line that comes in."""
    contender = CONTENDERS[told["name"]]
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(contender.processes),
        "LOCAL_WORLD_SIZE": str(contender.processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": told["port"],
    }
    torch.set_num_threads(cores())
    turn = contender.make(told)
    say({})
    for _ in sys.stdin:
        began = time.perf_counter()
        images, waited = turn()
        seconds = time.perf_counter() - began
        device = find_device()
        say(
            {
                "images_per_second": images / seconds,
                "wait": waited / seconds,
                "memory": read_peak_memory(device),
            }
        )


def say(values: dict[str, float]) -> None:
    """Write a line of JSON to the process that asked."""
    print(json.dumps(values), flush=True)  # noqa: T201


def ours(told: dict[str, Any]) -> Turn:
    """The run's own loop on photographs, augmented while it trains."""
    keep_freed_memory()
    share_cores()
    device = find_device()
    data = photographs(told)
    config = SMALL.network(max(1000, len(data.names)))
    mesh = join_mesh(config, None, device)
    state = init_state(config, SMALL, device, mesh)
    compile_network(state, "on", 0)
    batches = endless(state, data, told)
    bf16 = in_bf16(told, device)

    def turn() -> tuple[int, float]:
        state.progress.wait = 0.0
        # One turn is what the loop does with the next few batches.
        train_epoch(state, next(batches), bf16, Callbacks())
        return told["steps"] * told["batch"], state.progress.wait

    return turn


@dataclass(frozen=True)
class Slice(Batches):
    """The next few batches of an epoch, made in their own turn: none is ready when it begins."""

    taken: Iterator[Batch] = field(default_factory=lambda: iter(()))
    steps: int = 0

    def __iter__(self) -> Iterator[Batch]:
        return ahead(islice(self.taken, self.steps))


def endless(state: TrainingState, data: Prepared, told: dict[str, Any]) -> Iterator[Batches]:
    """A turn's batches, again and again."""
    augmentation, steps = SMALL.augmentation(state.network.config), told["steps"]
    for epoch in range(1, 10**6):
        values = (data, augmentation, told["batch"], 0, epoch, 0, state.mesh.replica_slice)
        whole = Batches(*values)
        taken = whole.generate()
        for _ in range(len(whole) // steps):
            state.progress.step = 0
            yield Slice(*values, taken, steps)


def photographs(told: dict[str, Any]) -> Prepared:
    """The folder that was named, or the demo photographs, prepared as for a run."""
    home = Home(root=Path(told["home"]))
    folder = told["data"] or str(make_demo(home.demo))
    return prepare(find_source(folder), home.prepared, lambda _count: None)


def torchvisions(told: dict[str, Any], *, same: bool) -> Turn:
    """A step of torchvision's AlexNet on images that lie in memory."""
    device = find_device()
    if same:
        keep_freed_memory()
    memory_format = torch.channels_last if same else torch.contiguous_format
    network = alexnet().to(device).to(memory_format=memory_format)
    sgd = torch.optim.SGD(
        network.parameters(), 0.01, momentum=0.9, weight_decay=0.0005, fused=same or None
    )
    x = torch.randn(told["batch"], 3, 224, 224, device=device).to(memory_format=memory_format)
    classes = torch.randint(0, 1000, (told["batch"],), device=device)
    bf16 = same and in_bf16(told, device)

    def turn() -> tuple[int, float]:
        for _ in range(told["steps"]):
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits = network(x)
            loss = F.cross_entropy(logits.float(), classes)
            sgd.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            sgd.step()
            float(loss.detach())
        return told["steps"] * told["batch"], 0.0

    return turn


def limit(told: dict[str, Any]) -> Turn:
    """As many products of big matrices as have our network's multiplications in a turn."""
    device = find_device()
    keep_freed_memory()
    dtype = torch.bfloat16 if in_bf16(told, device) else torch.float32
    a = torch.randn(SIZE, SIZE, device=device, dtype=dtype)
    images = told["steps"] * told["batch"]
    products = max(1, round(images * operations_a_step() / (2 * SIZE**3)))
    done = round(products * 2 * SIZE**3 / operations_a_step())

    def turn() -> tuple[int, float]:
        for _ in range(products):
            a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        return done, 0.0

    return turn


def operations_a_step() -> float:
    """Multiplications and additions of one image's forward and backward pass.

    Without the response normalisation, whose sum is a convolution only by our own choice.
    """
    config = replace(SMALL.network(1000), lrn=False)
    state = init_state(config, SMALL, torch.device("cpu"))
    with FlopCounterMode(display=False) as counter:
        state.network(torch.zeros(1, 3, 224, 224)).logits.sum().backward()
    return float(counter.get_total_flops())


def in_bf16(told: dict[str, Any], device: torch.device) -> bool:
    """Whether layers compute in bf16, by the rule of a run."""
    if told["precision"] == "auto":
        return has_bf16(device)
    return bool(told["precision"] == "bf16")


CONTENDERS = {
    "ours": Contender(1, ours),
    "two towers": Contender(2, ours),
    "torchvision": Contender(1, lambda told: torchvisions(told, same=False)),
    "same settings": Contender(1, lambda told: torchvisions(told, same=True)),
    "limit": Contender(1, limit),
}
