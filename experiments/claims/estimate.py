"""What a run on ImageNet takes, estimated from the network's floating-point operations."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from model.network.alexnet import AlexNet

IMAGES, EPOCHS = 1_281_167, 90
"""Training images of ILSVRC-2012, and the paper's passes over them."""
PAPER_DAYS, PAPER_PEAK = 5.5, 2 * 1.581e12
"""The paper's time, "between five and six days", and the peak of its two GTX 580 in float32."""
CARDS = {
    "RTX 4090, bf16": 165e12,
    "A100, bf16": 312e12,
    "H100, bf16": 989e12,
}
"""Peaks by their makers' data sheets, dense, in operations per second."""
DISK = (
    ("the archives of ILSVRC-2012", 147),
    ("the photographs as files", 147),
    ("prepared squares, as JPEG", 45),
)
"""What has to be stored, in GB; the last by extrapolation (docs/measurements.md)."""


class Estimate(NamedTuple):
    """The hours that a card takes for 90 epochs, if it reaches the share of its peak that is said.

    hours: at the share that the paper's GPUs reached.
    """

    card: str
    hours: float


def count_operations() -> int:
    """Count the floating-point operations of one image's forward pass, by torch's counter."""
    with torch.device("meta"):
        network = AlexNet().eval()
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            network(torch.zeros(1, 3, 224, 224))
    return int(counter.get_total_flops())


def compute_training_operations() -> float:
    """Compute the operations of the whole training: a backward pass costs two forward ones."""
    return 3.0 * count_operations() * IMAGES * EPOCHS


def compute_paper_share() -> float:
    """Compute which share of their peak the paper's GPUs reached."""
    return compute_training_operations() / (PAPER_PEAK * PAPER_DAYS * 86_400)


def list_estimates() -> Iterator[Estimate]:
    """Yield the hours of each card."""
    operations, share = compute_training_operations(), compute_paper_share()
    for card, peak in CARDS.items():
        yield Estimate(card, operations / (share * peak) / 3600)
