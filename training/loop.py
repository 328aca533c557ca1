"""The training loop: forward, backward, update (§5); after each epoch the validation error."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.alexnet import AlexNet
from training.config import Recipe
from training.data import Batch, Batches, validation
from training.prepare import Prepared
from training.schedule import plan
from training.sgd import PaperSGD


class DivergedError(ArithmeticError):
    """The loss is no longer a number."""


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one pass over the training set gave."""

    epoch: int
    """Counted from 1."""
    rate: float
    """Its learning rate."""
    loss: float
    """Mean cross-entropy of its training batches, dropout and augmentation on."""
    top1_error: float
    """Of the validation images' centre crops, 0–1."""
    top5_error: float
    """The same for five guesses."""
    images_per_second: float
    """Training speed, validation left out."""
    data_wait: float
    """Seconds the loop waited for batches."""
    seconds: float
    """In all, validation included."""


@dataclass
class State:
    """A run between two epochs."""

    network: AlexNet
    sgd: PaperSGD
    history: list[Epoch]


@dataclass(frozen=True, kw_only=True)
class Reports:
    """Who is told: after each step (its number, of how many, its loss) and each epoch."""

    steps: Callable[[int, int, float], None]
    epochs: Callable[[State], None]


def start(data: Prepared, recipe: Recipe, device: torch.device) -> State:
    """Draw the initial weights."""
    torch.manual_seed(recipe.seed)
    network = AlexNet(recipe.network(len(data.names)))
    network = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    sgd = PaperSGD(network.parameters(), recipe.rate, recipe.momentum, recipe.decay)
    return State(network, sgd, [])


def train(state: State, data: Prepared, recipe: Recipe, bf16: bool, reports: Reports) -> None:
    """Go on from `state` until the recipe ends the run.

    Raises DivergedError when the loss is no longer finite; `state` then holds the epochs before.
    """
    while True:
        step = plan([epoch.top1_error for epoch in state.history], recipe)
        if step.stop:
            return
        state.sgd.set_rate(step.rate)
        state.history.append(run_epoch(state, data, recipe, bf16, reports))
        reports.epochs(state)


def run_epoch(state: State, data: Prepared, recipe: Recipe, bf16: bool, reports: Reports) -> Epoch:
    """One pass over the training set, then the validation set."""
    number = len(state.history) + 1
    began = time.perf_counter()
    # Dropout follows from the seed and the epoch, so that a resumed run draws the same.
    torch.manual_seed(recipe.seed * 1_000_003 + number)
    batches = Batches(data, recipe, number)
    loss, wait = train_epoch(state, batches, bf16, reports.steps)
    trained = time.perf_counter() - began
    top1, top5 = errors(state.network, validation(data, recipe), bf16)
    return Epoch(
        epoch=number,
        rate=state.sgd.rate,
        loss=loss,
        top1_error=top1,
        top5_error=top5,
        images_per_second=len(batches) * min(recipe.batch, len(data.train.classes)) / trained,
        data_wait=wait,
        seconds=time.perf_counter() - began,
    )


def train_epoch(
    state: State, batches: Batches, bf16: bool, report: Callable[[int, int, float], None]
) -> tuple[float, float]:
    """Update the weights with every batch; give the mean loss and the seconds of waiting."""
    state.network.train()
    total, wait, asked = 0.0, 0.0, time.perf_counter()
    for number, (x, classes) in enumerate(batches, start=1):
        wait += time.perf_counter() - asked
        loss = update(state, x, classes, bf16)
        if not torch.isfinite(torch.tensor(loss)):
            raise DivergedError(
                f"the loss became {loss} at step {number} of epoch {batches.epoch}; "
                "a lower --rate or the preset `small` may help"
            )
        total += loss
        report(number, len(batches), loss)
        asked = time.perf_counter()
    return total / len(batches), wait


def update(state: State, x: Tensor, classes: Tensor, bf16: bool) -> float:
    """One step of the update rule: maximise the mean log-probability of the classes (§3.5)."""
    device = next(state.network.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        logits = state.network(x.to(device, non_blocking=True)).logits
    loss = F.cross_entropy(logits.float(), classes.to(device))
    state.sgd.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    state.sgd.step()
    return float(loss.detach())


@torch.inference_mode()
def errors(network: AlexNet, batches: Iterable[Batch], bf16: bool) -> tuple[float, float]:
    """Top-1 and top-5 error, 0–1, of float32 [B, 3, 224, 224] crops with their classes."""
    network.eval()
    device = next(network.parameters()).device
    wrong, images = torch.zeros(2, dtype=torch.int64), 0
    for x, classes in batches:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = network(x.to(device)).logits.float().cpu()
        wrong += count_errors(logits, classes)
        images += len(classes)
    return int(wrong[0]) / images, int(wrong[1]) / images


def count_errors(scores: Tensor, classes: Tensor) -> Tensor:
    """How many of these are wrong with one guess, and with five: [B, classes] → int64 [2]."""
    hits = scores.topk(min(5, scores.shape[1])).indices == classes[:, None]
    return torch.stack([(~hits[:, 0]).sum(), (~hits.any(1)).sum()])
