"""Validation errors: of the centre crop after each epoch, of ten crops at the end."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor

from model.image.ten_crop import ten_crop_forward
from storage.progress import show_progress_bar
from training.batches.batches import Batch, load_validation_crops, load_validation_squares
from training.batches.streaming import place_for_one_pass
from training.dataset.prepare import PreparedDataset
from training.distributed.mesh import Mesh
from training.optimisation.device import stop_expanding
from training.optimisation.precision import Precision, autocast
from training.optimisation.state import TrainingState
from training.recipe.config import Recipe
from training.records.callbacks import Callbacks, StoppedError, all_reduce_status, save_and_stop
from training.records.run_folder import RunSpec

VALIDATION_BATCH_SIZE = 128
"""Images per batch when each is seen in its centre crop."""
TOP_GUESSES = 5
"""Guesses of the top-5 error."""
TEN_CROP_BATCH_SIZE = 16
"""Images per batch when each is seen in ten crops."""


class ValidationResult(NamedTuple):
    """Top-1 and top-5 error, 0–1, and the mean cross-entropy."""

    top1_error: float
    top5_error: float
    loss: float


@torch.no_grad()
def validate(
    state: TrainingState,
    data: PreparedDataset,
    recipe: Recipe,
    precision: Precision,
    callbacks: Callbacks,
) -> ValidationResult:
    """Measure the errors and the loss of the validation images' centre crops.

    Raises StoppedError, after saving a checkpoint, if a signal stops the run.
    """
    state.network.eval()
    augmentation = recipe.augmentation(state.network.config)
    batches = load_validation_crops(
        data, augmentation, VALIDATION_BATCH_SIZE, state.mesh.replica_slice
    )
    wrong, loss = torch.zeros(2, dtype=torch.int64), 0.0
    for batch in pad_batches(batches, len(data.val), VALIDATION_BATCH_SIZE, state.mesh):
        if batch is not None:
            logits = predict_logits(state, batch.x, precision)
            wrong += count_errors(logits, batch.classes)
            loss += float(F.cross_entropy(logits, batch.classes, reduction="sum"))
        if stop := all_reduce_status(state.mesh, callbacks).stop:
            save_and_stop(state, stop, callbacks)
    sums = state.mesh.sum_over_replicas(*wrong.tolist(), loss)
    return ValidationResult(*(total / len(data.val) for total in sums))


@torch.inference_mode()
def measure_ten_crops(
    state: TrainingState,
    spec: RunSpec,
    precision: Precision,
    console: Console,
    callbacks: Callbacks,
) -> tuple[float, float]:
    """Return the top-1 and top-5 error, 0–1, averaging the predictions of ten crops (§4.1).

    Networks for CIFAR-10 are tested on nine (model/image/ten_crop.py).

    Raises StoppedError if a signal stops the run.
    """
    network, mesh = state.network.eval(), state.mesh
    data = place_for_one_pass(spec.data, state.device)
    stop_expanding(network)
    wrong = torch.zeros(2, dtype=torch.int64)
    augmentation = spec.recipe.augmentation(network.config)
    squares = load_validation_squares(data, augmentation, TEN_CROP_BATCH_SIZE, mesh.replica_slice)
    with show_progress_bar(console, "ten crops", len(data.val)) as advance:
        for batch in pad_batches(squares, len(data.val), TEN_CROP_BATCH_SIZE, mesh):
            if stop := all_reduce_status(mesh, callbacks).stop:
                raise StoppedError(stop)
            if batch is None:
                continue
            with autocast(state.device, precision):
                probabilities, _ = ten_crop_forward(network, batch.x.to(state.device))
            wrong += count_errors(probabilities.mean(1).float().cpu(), batch.classes)
            advance(len(batch.classes) * mesh.replicas)
    top1, top5 = (count / len(data.val) for count in mesh.sum_over_replicas(*wrong.tolist()))
    crops = network.config.test_crops.capitalize()
    said = f", top-5 {top5:.2%}" if network.config.classes > TOP_GUESSES else ""
    console.print(f"{crops} crops: validation error top-1 {top1:.2%}{said}.")
    return top1, top5


def pad_batches(
    batches: Iterator[Batch], images: int, size: int, mesh: Mesh
) -> Iterator[Batch | None]:
    """Yield equally many items in every process, None where a replica has one batch fewer.

    Every process must take part in each all-reduce.
    """
    for _ in range(math.ceil(math.ceil(images / mesh.replicas) / size)):
        yield next(batches, None)


def predict_logits(state: TrainingState, x: Tensor, precision: Precision) -> Tensor:
    """Compute logits: float32 [B, 3, 224, 224] → float32 [B, classes], on the CPU."""
    device, dtype = state.device, next(state.network.parameters()).dtype
    with autocast(device, precision):
        logits: Tensor = state.network(x.to(device, dtype)).logits
    return logits.float().cpu()


def count_errors(scores: Tensor, classes: Tensor) -> Tensor:
    """Count the images wrong with one guess, and with five: [B, classes] → int64 [2]."""
    hits = scores.topk(min(TOP_GUESSES, scores.shape[1])).indices == classes[:, None]
    return torch.stack([(~hits[:, 0]).sum(), (~hits.any(1)).sum()])
