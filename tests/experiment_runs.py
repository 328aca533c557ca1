"""Results of experiments that were never run, for the tests of what is made of results."""

from collections.abc import Sequence

import numpy as np

from experiments.claims.result import Count, Point, RunData, RunResult, pack


def make_result(arm: str, seed: int, errors: Sequence[float], wrong: int = 50) -> RunResult:
    """A run with a curve of training errors."""
    points = (
        Point(epoch=n, rate=0.1, loss=1, held_out_error=error, training_error=error)
        for n, error in enumerate(errors, 1)
    )
    masks = {
        name: pack(np.arange(200) < wrong - extra) for name, extra in (("centre", 0), ("crops", 2))
    }
    return RunResult(
        experiment="figure1",
        arm=arm,
        seed=seed,
        data=RunData(kind="cifar10", fingerprint="f", classes=10, train=100, held_out=10, test=200),
        recipe={"epochs": 40, "seed": seed},
        precision="f32",
        curve=tuple(points),
        errors={
            "crops top-1": Count(wrong=wrong - 2, images=200),
            "centre top-1": Count(wrong=wrong, images=200),
        },
        per_image=masks,
        measured={},
        cpu_seconds=1,
        seconds=1,
        machine="m",
        cores=1,
        versions={},
        commit="c",
    )
