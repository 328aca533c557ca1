"""The training loop: forward, backward, update (§5); after each epoch the validation error."""

import math
import time
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from model.network.counter_rng import derive_image_keys
from storage.runs import Epoch
from training.batches.batches import Batch, Batches
from training.batches.streaming import place_images
from training.dataset.prepare import PreparedDataset
from training.optimisation.device import read_peak_memory, trains_on_all_cores
from training.optimisation.divergence import (
    check_loss,
    check_measured,
    check_skipped,
    check_weights,
)
from training.optimisation.norms import measure_norms
from training.optimisation.precision import Precision, autocast
from training.optimisation.state import EpochProgress, TrainingState
from training.optimisation.validate import validate
from training.recipe.config import Recipe
from training.recipe.schedule import EpochSchedule, schedule_epoch
from training.records.callbacks import Callbacks, all_reduce_status, save_and_stop


def train_network(
    state: TrainingState,
    data: PreparedDataset,
    recipe: Recipe,
    precision: Precision,
    callbacks: Callbacks,
) -> None:
    """Train from `state` until the recipe or a callback ends the run.

    A GPU augments the images, and with room keeps them.

    Raises DivergedError if the run diverges, and StoppedError, after saving a checkpoint, if a
    signal stops it; in all processes alike.
    """
    data = place_images(data, state.device)
    while True:
        errors = [epoch.top1_error for epoch in state.history]
        schedule = schedule_epoch(errors, recipe, state.planned_epochs(recipe))
        if schedule.stop or callbacks.is_finished(state):
            return
        state.history.append(run_epoch(state, data, recipe, schedule, precision, callbacks))
        state.progress, state.epoch_recipe = EpochProgress(), None
        callbacks.on_epoch(state)


def run_epoch(
    state: TrainingState,
    data: PreparedDataset,
    recipe: Recipe,
    schedule: EpochSchedule,
    precision: Precision,
    callbacks: Callbacks,
) -> Epoch[float]:
    """Train on the rest of the epoch's batches, then measure the validation error."""
    number, progress = len(state.history) + 1, state.progress
    drawn = state.epoch_recipe or recipe
    batches = Batches(
        data,
        drawn.augmentation(state.network.config, number),
        fixed_order=drawn.fixed_order,
        batch=drawn.batch,
        seed=drawn.seed,
        epoch=number,
        first=progress.step,
        replica_slice=state.mesh.replica_slice,
        hold_out=drawn.held_out(number),
        together=trains_on_all_cores(state.device),
    )
    train_epoch(state, batches, recipe, schedule, precision, callbacks)
    check_weights(state)
    validation_start = time.perf_counter()
    validated = validate(state, data, recipe, precision, callbacks)
    images, measured = len(batches) * batches.batch_images, len(batches) - progress.unmeasured
    check_measured(measured, number)
    return Epoch(
        epoch=number,
        rate=schedule.rate,
        loss=progress.loss / measured,
        top1_error=validated.top1_error,
        top5_error=validated.top5_error,
        images_per_second=images / progress.seconds,
        data_wait=progress.wait,
        seconds=progress.seconds + time.perf_counter() - validation_start,
        memory=read_peak_memory(state.device),
        training_top1_error=progress.wrong / (measured * batches.batch_images),
        validation_loss=validated.loss,
        planned=recipe.epochs,
        skipped_steps=progress.skipped if precision == "f16" else None,
    )


def train_epoch(
    state: TrainingState,
    batches: Batches,
    recipe: Recipe,
    schedule: EpochSchedule,
    precision: Precision,
    callbacks: Callbacks,
) -> None:
    """Update the weights with every remaining batch, counting in `state.progress`."""
    state.network.train()
    progress, start = state.progress, time.perf_counter()
    images = batches.batch_images
    for step, batch in enumerate(batches, start=progress.step + 1):
        progress.wait += time.perf_counter() - start
        keys = derive_image_keys(batches.seed, batches.epoch, batch.rows)
        computed = compute_gradients(state, batch, keys, images, precision, recipe.smoothing)
        status = all_reduce_status(
            state.mesh,
            callbacks,
            computed.loss,
            computed.wrong,
            overflow=computed.overflow,
            in_step=True,
        )
        if status.overflow and not math.isfinite(status.loss):
            progress.unmeasured += 1
        else:
            state.recent_losses.append(status.loss)
            check_loss(state, batch, keys, precision, step, batches.epoch)
            progress.loss += status.loss
            progress.wrong += status.wrong
        if status.overflow:
            # Its rates are not set either: their change belongs to an update's momentum.
            state.loss_scale.skip()
            state.sgd.zero_grad(set_to_none=True)
            progress.skipped += 1
            check_skipped(state, batch, keys, precision, step, batches.epoch)
        else:
            state.sgd.set_rates(schedule.step_rates(step, len(batches)))
            state.sgd.step()
            if precision == "f16":
                state.loss_scale.keep()
        progress.step = step
        progress.seconds += time.perf_counter() - start
        callbacks.on_step(step, len(batches), status.loss)
        if status.report:
            callbacks.on_report(state, len(batches), images, measure_norms(state))
        if status.save or status.stop:
            save_and_stop(state, status.stop, callbacks)
        # Neither reports nor checkpoints count as waiting for data.
        start = time.perf_counter()


class ComputedGradients(NamedTuple):
    """What computing the gradients gives besides these.

    loss: this process's share of the whole batch's mean loss. wrong: how many of its images have a
    class that is not the most probable one. overflow: whether a gradient is not finite, in float16.
    """

    loss: float
    wrong: int
    overflow: bool


def compute_gradients(
    state: TrainingState,
    batch: Batch,
    keys: Tensor,
    images: int,
    precision: Precision,
    smoothing: float = 0.0,
) -> ComputedGradients:
    """Compute the gradients of the mean negative log-probability of the classes (§3.5).

    keys: int64 [B], the images' dropout keys. images: how many the whole batch has, over all
    replicas. smoothing: the share of each label that is spread over all classes.
    """
    device = state.device
    with autocast(device, precision):
        x = batch.x.to(device, next(state.network.parameters()).dtype, non_blocking=True)
        logits = state.forward(x, keys.to(device)).logits
    logits = logits if precision == "f32" else logits.float()
    classes = batch.classes.to(device)
    loss = F.cross_entropy(logits, classes, reduction="sum", label_smoothing=smoothing) / images
    state.sgd.zero_grad(set_to_none=True)
    # DistributedDataParallel averages the gradients over the replicas; the sum is wanted.
    factor = state.mesh.replicas * (state.loss_scale.value if precision == "f16" else 1)
    (loss * factor).backward()  # type: ignore[no-untyped-call]
    overflow = precision == "f16" and state.loss_scale.unscale(state.network.parameters())
    wrong = (logits.detach().argmax(1) != classes).sum()
    # One transfer, since each waits for the device.
    values = torch.stack([loss.detach(), wrong.to(loss.dtype)]).tolist()
    return ComputedGradients(values[0], int(values[1]), overflow)
