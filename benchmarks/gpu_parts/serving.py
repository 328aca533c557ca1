"""The network as the application uses it: an upload's ten crops, and features in batches."""

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from statistics import quantiles
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.gpu_harness.job import Job
from benchmarks.gpu_parts.timing import time_call
from model.dataset.folder import ClassName
from model.image.preprocess import decode_square
from model.network.alexnet import AlexNet
from model.network.config import AlexNetConfig
from model.predict import Predictor
from model.weights.checkpoint import Pca, Weights
from model.weights.header import Provenance


def measure(job: Job) -> None:
    """Measure predictions of one image and of batches, features, and decoding."""
    config = AlexNetConfig()
    if job.quick:
        config = replace(config, classes=10, side=99, crop=67)
    predictor = Predictor.from_weights(make_weights(config), job.device)
    device, random = job.torch_device, np.random.default_rng(0)
    rounds = 2 if job.quick else 50
    figures: dict[str, Any] = {}
    for count in (1, 2) if job.quick else (1, 8, 16, 64, 256):
        images = random.integers(0, 256, (count, config.side, config.side, 3), np.uint8)
        calls: dict[str, Callable[[np.ndarray[Any, Any]], object]] = {
            "ten crops": predictor.predict_batch,
            "features": predictor.extract_features,
        }
        for name, call in calls.items():
            own = rounds if count <= 16 else max(2, rounds // 5)
            times = [time_call(lambda c=call, i=images: c(i), device) for _ in range(own + 2)][2:]  # type: ignore[misc]
            figures[f"{name}, {count}"] = summarise(times, count)
            job.record(predictions=figures)
    upload = BytesIO()
    Image.fromarray(random.integers(0, 256, (480, 640, 3), np.uint8)).save(upload, "JPEG")
    times = [time_call(lambda: decode_square(upload.getvalue()), device) for _ in range(rounds)]
    job.record(decoding=summarise(times, 1))


def make_weights(config: AlexNetConfig) -> Weights:
    """Make weights that nothing was trained on."""
    torch.manual_seed(0)
    return Weights(
        config=config,
        classes=tuple(ClassName(str(n), str(n)) for n in range(config.classes)),
        mean=torch.full((3, config.side, config.side), 120.0),
        pca=Pca(torch.ones(3), torch.eye(3)),
        provenance=Provenance(
            data="noise",
            images=0,
            epochs=0,
            preset="paper",
            top1_error=None,
            top5_error=None,
            commit="unknown",
            created="",
        ),
        state=AlexNet(config).state_dict(),
    )


def summarise(times: list[float], images: int) -> dict[str, float]:
    """Return the median and the 95th percentile in milliseconds, and images a second."""
    cuts = quantiles(times, n=20, method="inclusive")
    return {
        "p50_ms": 1000 * cuts[9],
        "p95_ms": 1000 * cuts[18],
        "images_per_second": images / cuts[9],
    }
