"""The training loop: forward, backward, update (§5); after each epoch the validation error."""

import time

import torch
import torch.nn.functional as F
from torch import Tensor

from model.counter_rng import image_keys
from storage.runs import Epoch
from training.config import Recipe
from training.data import Batch, Batches
from training.dataset.prepare import Prepared
from training.divergence import check_loss, check_weights
from training.machine import read_peak_memory
from training.schedule import EpochSchedule, schedule_epoch
from training.state import (
    Callbacks,
    EpochProgress,
    TrainingState,
    all_reduce_status,
    save_and_stop,
)
from training.validate import validate


def train_network(
    state: TrainingState, data: Prepared, recipe: Recipe, bf16: bool, reports: Callbacks
) -> None:
    """Go on from `state` until the recipe ends the run.

    Raises DivergedError when the loss is no longer finite or grows beyond all bounds, and
    StoppedError, after a checkpoint, when a signal came; in all processes alike.
    """
    while True:
        step = schedule_epoch([epoch.top1_error for epoch in state.history], recipe)
        if step.stop:
            return
        state.sgd.set_rates(step.rates)
        state.history.append(run_epoch(state, data, recipe, step, bf16, reports))
        state.progress = EpochProgress()
        reports.on_epoch(state)


def run_epoch(
    state: TrainingState,
    data: Prepared,
    recipe: Recipe,
    step: EpochSchedule,
    bf16: bool,
    reports: Callbacks,
) -> Epoch[float]:
    """One pass over the training set, or what is left of it, then the validation set."""
    number, partial = len(state.history) + 1, state.progress
    augmentation = recipe.augmentation(state.network.config, number)
    batches = Batches(
        data,
        augmentation,
        batch=recipe.batch,
        seed=recipe.seed,
        epoch=number,
        first=partial.step,
        replica_slice=state.mesh.replica_slice,
    )
    train_epoch(state, batches, bf16, reports)
    check_weights(state)
    began = time.perf_counter()
    top1, top5 = validate(state, data, recipe, bf16, reports)
    images = len(batches) * min(recipe.batch, len(data.train))
    return Epoch(
        epoch=number,
        rate=step.rate,
        loss=partial.loss / len(batches),
        top1_error=top1,
        top5_error=top5,
        images_per_second=images / partial.seconds,
        data_wait=partial.wait,
        seconds=partial.seconds + time.perf_counter() - began,
        memory=read_peak_memory(state.device),
    )


def train_epoch(state: TrainingState, batches: Batches, bf16: bool, reports: Callbacks) -> None:
    """Update the weights with every batch that is left, keeping count in `state.partial`."""
    state.network.train()
    partial, began = state.progress, time.perf_counter()
    for number, batch in enumerate(batches, start=partial.step + 1):
        partial.wait += time.perf_counter() - began
        keys = image_keys(batches.seed, batches.epoch, batch.rows)
        loss = backward_pass(state, batch, keys, min(batches.batch, len(batches.data.train)), bf16)
        mean, stop, save = all_reduce_status(state.mesh, loss, reports)
        state.recent_losses.append(mean)
        check_loss(state, batch, keys, bf16, number, batches.epoch)
        state.sgd.step()
        partial.step, partial.loss = number, partial.loss + mean
        partial.seconds += time.perf_counter() - began
        began = time.perf_counter()
        reports.on_step(number, len(batches), mean)
        if save or stop:
            save_and_stop(state, stop, reports)


def update(state: TrainingState, batch: Batch, keys: Tensor, images: int, bf16: bool) -> float:
    """One step of the update rule (§5); gives this process's share of the batch's loss."""
    loss = backward_pass(state, batch, keys, images, bf16)
    state.sgd.step()
    return loss


def backward_pass(
    state: TrainingState, batch: Batch, keys: Tensor, images: int, bf16: bool
) -> float:
    """The gradients of what is maximised: the classes' mean log-probability (§3.5).

    Gives this process's share of the loss of the whole batch, which has so many images.
    """
    device = state.device
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        x = batch.x.to(device, next(state.network.parameters()).dtype, non_blocking=True)
        logits = state.forward(x, keys.to(device)).logits
    scores = logits.float() if bf16 else logits
    loss = F.cross_entropy(scores, batch.classes.to(device), reduction="sum") / images
    state.sgd.zero_grad(set_to_none=True)
    # Gradients are averaged over the replicas; what is wanted is their sum.
    (loss * state.mesh.replicas).backward()  # type: ignore[no-untyped-call]
    return float(loss.detach())
