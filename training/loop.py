"""The training loop: forward, backward, update (§5); after each epoch the validation error."""

import time

import torch
import torch.nn.functional as F
from torch import Tensor

from model.counter_rng import derive_image_keys
from storage.runs import Epoch
from training.callbacks import Callbacks, all_reduce_status, save_and_stop
from training.config import Recipe
from training.data import Batch, Batches
from training.dataset.prepare import PreparedDataset
from training.device import read_peak_memory
from training.divergence import check_loss, check_weights
from training.resident import keep_on_gpu
from training.schedule import EpochSchedule, schedule_epoch
from training.state import EpochProgress, TrainingState
from training.validate import validate


def train_network(
    state: TrainingState, data: PreparedDataset, recipe: Recipe, bf16: bool, callbacks: Callbacks
) -> None:
    """Train from `state` until the recipe or a callback ends the run.

    A GPU with room keeps the images.

    Raises DivergedError if the run diverges, and StoppedError, after saving a checkpoint, if a
    signal stops it; in all processes alike.
    """
    data = keep_on_gpu(data, state.device)
    while True:
        schedule = schedule_epoch([epoch.top1_error for epoch in state.history], recipe)
        if schedule.stop or callbacks.is_finished(state):
            return
        state.history.append(run_epoch(state, data, recipe, schedule, bf16, callbacks))
        state.progress = EpochProgress()
        callbacks.on_epoch(state)


def run_epoch(
    state: TrainingState,
    data: PreparedDataset,
    recipe: Recipe,
    schedule: EpochSchedule,
    bf16: bool,
    callbacks: Callbacks,
) -> Epoch[float]:
    """Train on the rest of the epoch's batches, then measure the validation error."""
    number, progress = len(state.history) + 1, state.progress
    batches = Batches(
        data,
        recipe.augmentation(state.network.config, number),
        fixed_order=recipe.fixed_order,
        batch=recipe.batch,
        seed=recipe.seed,
        epoch=number,
        first=progress.step,
        replica_slice=state.mesh.replica_slice,
        hold_out=recipe.held_out(number),
    )
    train_epoch(state, batches, recipe, schedule, bf16, callbacks)
    check_weights(state)
    validation_start = time.perf_counter()
    top1, top5 = validate(state, data, recipe, bf16, callbacks)
    images = len(batches) * batches.batch_images
    return Epoch(
        epoch=number,
        rate=schedule.rate,
        loss=progress.loss / len(batches),
        top1_error=top1,
        top5_error=top5,
        images_per_second=images / progress.seconds,
        data_wait=progress.wait,
        seconds=progress.seconds + time.perf_counter() - validation_start,
        memory=read_peak_memory(state.device),
    )


def train_epoch(
    state: TrainingState,
    batches: Batches,
    recipe: Recipe,
    schedule: EpochSchedule,
    bf16: bool,
    callbacks: Callbacks,
) -> None:
    """Update the weights with every remaining batch, counting in `state.progress`."""
    state.network.train()
    progress, start = state.progress, time.perf_counter()
    images = batches.batch_images
    for step, batch in enumerate(batches, start=progress.step + 1):
        progress.wait += time.perf_counter() - start
        keys = derive_image_keys(batches.seed, batches.epoch, batch.rows)
        loss = backward_pass(state, batch, keys, images, bf16, recipe.smoothing)
        mean, stop, save = all_reduce_status(state.mesh, loss, callbacks)
        state.recent_losses.append(mean)
        check_loss(state, batch, keys, bf16, step, batches.epoch)
        state.sgd.set_rates(schedule.step_rates(step, len(batches)))
        state.sgd.step()
        progress.step, progress.loss = step, progress.loss + mean
        progress.seconds += time.perf_counter() - start
        start = time.perf_counter()
        callbacks.on_step(step, len(batches), mean)
        if save or stop:
            save_and_stop(state, stop, callbacks)


def backward_pass(
    state: TrainingState,
    batch: Batch,
    keys: Tensor,
    images: int,
    bf16: bool,
    smoothing: float = 0.0,
) -> float:
    """Compute the gradients of the mean negative log-probability of the classes (§3.5).

    keys: int64 [B], the images' dropout keys. images: how many the whole batch has, over all
    replicas. smoothing: the share of each label that is spread over all classes.

    Returns this process's share of the whole batch's mean loss.
    """
    device = state.device
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        x = batch.x.to(device, next(state.network.parameters()).dtype, non_blocking=True)
        logits = state.forward(x, keys.to(device)).logits
    logits = logits.float() if bf16 else logits
    classes = batch.classes.to(device)
    loss = F.cross_entropy(logits, classes, reduction="sum", label_smoothing=smoothing) / images
    state.sgd.zero_grad(set_to_none=True)
    # DistributedDataParallel averages the gradients over the replicas; the sum is wanted.
    (loss * state.mesh.replicas).backward()  # type: ignore[no-untyped-call]
    return float(loss.detach())
