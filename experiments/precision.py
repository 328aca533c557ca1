"""`python experiments/precision.py --data DIR`: does training in bf16 cost accuracy?

The same seed is trained twice, epoch by epoch: in float32, and as a processor with bf16 would. If
this processor lacks bf16, it is emulated here, because autocast's emulation is far slower: the
inputs and outputs of each layer, forward and backward, are rounded to bf16, and products are summed
in float32, as such processors do.
"""

import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

if not __package__:
    # Run as a script, Python puts this file's folder on the path, not the project's root.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from model.weights.loaded_network import find_device
from storage.home import home_from_environment
from storage.runs import Epoch
from training.dataset.find_source import find_source
from training.dataset.prepare import prepare
from training.optimisation.device import compile_network, has_bf16, keep_freed_memory
from training.optimisation.loop import run_epoch
from training.optimisation.precision import Precision
from training.optimisation.state import EpochProgress, TrainingState, init_state
from training.recipe.config import SMALL
from training.recipe.schedule import schedule_epoch
from training.records.callbacks import Callbacks


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train in float32 and in bf16 with the same seed."""

    data: str
    """Folder of photographs."""
    epochs: int = 10
    """Epochs of each training."""
    seed: int = 0
    """Seed of both trainings."""


def main() -> None:
    """Train both, one epoch each in turn, and print their errors side by side."""
    options = tyro.cli(Options)
    keep_freed_memory()
    data = prepare(find_source(options.data), home_from_environment().prepared, lambda _: None)
    recipe = replace(SMALL, epochs=options.epochs, seed=options.seed)
    device = find_device()
    native = has_bf16(device)
    precisions: dict[bool, Precision] = {False: "f32", True: "bf16" if native else "f32"}
    states: dict[bool, TrainingState] = {}
    for bf16 in (False, True):
        states[bf16] = init_state(recipe.network(len(data.class_names)), recipe, device)
        images = options.epochs * len(data.train)
        compile_network(states[bf16], "auto", images, precisions[bf16])
        if bf16 and not native:
            round_to_bf16(states[bf16].network)
    for _ in range(options.epochs):
        for bf16, state in states.items():
            step = schedule_epoch([epoch.top1_error for epoch in state.history], recipe)
            state.history.append(
                run_epoch(state, data, recipe, step, precisions[bf16], Callbacks())
            )
            state.progress = EpochProgress()
        Console().print(epochs_table(states[False].history, states[True].history))


def round_to_bf16(network: nn.Module) -> None:
    """Make every layer with weights round its inputs and outputs as a bf16 processor would."""
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for layer in layers:
        layer.forward = partial(forward_rounded, layer, last=layer is layers[-1])  # type: ignore[method-assign]


def forward_rounded(layer: nn.Conv2d | nn.Linear, x: Tensor, *, last: bool) -> Tensor:
    """Compute one layer: bf16 in, sums in float32, bf16 out; float32 before the softmax."""
    assert layer.bias is not None
    x, weight, bias = (value.bfloat16().float() for value in (x, layer.weight, layer.bias))
    if isinstance(layer, nn.Linear):
        out = F.linear(x, weight, bias)
    else:
        out = F.conv2d(x, weight, bias, layer.stride, layer.padding, groups=layer.groups)
    return out.bfloat16().float() if last else out.bfloat16()


def epochs_table(exact: list[Epoch[float]], other: list[Epoch[float]]) -> Table:
    """Format both trainings, one epoch per row."""
    table = Table(title="float32 and bf16, the same seed")
    for heading in ("epoch", "loss", "loss, bf16", "top-1", "top-1, bf16", "top-5", "top-5, bf16"):
        table.add_column(heading, justify="right")
    for a, b in zip(exact, other, strict=True):
        losses = f"{a.loss:.3f}", f"{b.loss:.3f}"
        errors = a.top1_error, b.top1_error, a.top5_error, b.top5_error
        table.add_row(str(a.epoch), *losses, *(f"{error:.2%}" for error in errors))
    return table


if __name__ == "__main__":
    torch.set_float32_matmul_precision("highest")
    main()
