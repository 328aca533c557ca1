"""How often the nearest images have the query's class: by fc7, by pixels, by chance (§6.1)."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.arms import Arm
from experiments.claims.experiment import Experiment, Setting, find_data_kind
from experiments.claims.measures import NEIGHBOURS
from experiments.claims.result import PerImage, ResultError, RunData, RunResult, name_result, pack
from experiments.claims.runner import Workplace
from experiments.claims.train import Parts, describe_run
from experiments.held_out import digest_split, take_images
from index.sample import make_thumbnail
from model.predict import Predictor
from model.weights.checkpoint import load_weights
from training.dataset.store import Split
from training.recipe.config import PAPER
from training.records.callbacks import StoppedError

QUERIES = 1000
"""Validation images that are looked up, of all classes alike."""
SHIFT = 16
"""Pixels by which a query is shifted to the right and down."""
IMAGES_PER_BLOCK = 64
Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Vectors = Mapping[str, Floats]
CHANGES: Mapping[str, Callable[[Pixels], Pixels]] = {
    "": lambda squares: squares,
    ", mirrored": lambda squares: squares[:, :, ::-1],
    ", shifted": lambda squares: shift(squares),
}
"""What is done to a query, by what is added to the arm's name."""


def measure_neighbours(
    experiment: Experiment, setting: Setting, file: Path, work: Workplace
) -> None:
    """Look up validation images among all training images, and write the results.

    Raises StoppedError; then nothing is kept. Raises ResultError for weights of other images.
    """
    data, weights = work.data, load_weights(file)
    if weights.config.side != data.side:
        raise ResultError(f"{file} takes squares of {weights.config.side} pixels, not {data.side}")
    queries = take_images(data.val, QUERIES)
    train = take_images(data.train, setting.images or len(data.train))
    parts = Parts(
        train=data,
        test=replace(data, val=queries),
        sample=data,
        data=RunData(
            kind=find_data_kind(data.class_names),
            fingerprint=f"{digest_split(train)} {digest_split(queries)}",
            classes=len(data.class_names),
            train=len(train),
            held_out=0,
            test=len(queries),
        ),
    )
    described = replace(
        describe_run(
            experiment.name, Arm(name="fc7", recipe=PAPER), parts, work.precision, search=False
        ),
        recipe={},
        weights=weights.identity,
        precision="f32",
    )
    cpu, start = time.process_time(), time.perf_counter()
    predictor = Predictor.from_weights(weights, work.options.device)
    wanted = describe_queries(predictor, queries)
    nearest = {name: Nearest(len(queries)) for name in wanted}
    for rows, squares in iter_blocks(train):
        if stop := work.is_time_over():
            raise StoppedError(stop)
        block = describe_squares(predictor, squares)
        for name, found in nearest.items():
            found.add(wanted[name], block[name.split(",")[0]], rows)
    shares = np.bincount(train.classes, minlength=len(data.class_names)) / len(train)
    times = {
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "seconds": round(time.perf_counter() - start, 1),
    }
    for name, found in nearest.items():
        same = train.classes[found.rows] == queries.classes[:, None]
        hits: PerImage = same.sum(1).astype(np.uint8)
        measured = {"precision": round(float(hits.mean()) / NEIGHBOURS, 6)}
        # All arms were computed together: the first counts the time.
        own: dict[str, Any] = times if name == "fc7" else {}
        save(
            replace(described, arm=name, per_image={"hits": pack(hits)}, measured=measured, **own),
            work,
        )
    chance = {"precision": round(float(shares[queries.classes].mean()), 6)}
    save(replace(described, arm="chance", measured=chance), work)


def save(result: RunResult, work: Workplace) -> None:
    """Write a result and say what it is."""
    name = name_result(result.experiment, result.data, 0, result.arm, result.seed)
    result.write(work.results / name)
    work.console.print(f"{name}: precision {result.measured['precision']:.1%}")


def describe_queries(predictor: Predictor, queries: Split) -> dict[str, Floats]:
    """Compute the vectors of every query as it is, mirrored and shifted, by the arm's name."""
    parts: dict[str, list[Floats]] = {}
    for _, squares in iter_blocks(queries):
        for change, apply in CHANGES.items():
            for kind, vectors in describe_squares(predictor, apply(squares)).items():
                parts.setdefault(f"{kind}{change}", []).append(vectors)
    return {name: np.concatenate(vectors) for name, vectors in parts.items()}


def describe_squares(predictor: Predictor, squares: Pixels) -> dict[str, Floats]:
    """Compute fc7 and the pixels of thumbnails: uint8 [N, 256, 256, 3] → float32 [N, …] each."""
    squares = np.ascontiguousarray(squares)
    thumbnails = np.stack([make_thumbnail(square) for square in squares])
    return {
        "fc7": predictor.extract_features(squares),
        "pixels": thumbnails.reshape(len(squares), -1).astype(np.float32),
    }


def iter_blocks(split: Split) -> Iterator[tuple[npt.NDArray[np.int64], Pixels]]:
    """Yield the rows and squares of a split, some at a time."""
    for start in range(0, len(split), IMAGES_PER_BLOCK):
        rows = np.arange(start, min(start + IMAGES_PER_BLOCK, len(split)))
        yield rows, np.stack(list(split.iter_images(rows)))


def shift(squares: Pixels) -> Pixels:
    """Move squares to the right and down, repeating their left and upper edges."""
    padded = np.pad(squares, ((0, 0), (SHIFT, 0), (SHIFT, 0), (0, 0)), "edge")
    return padded[:, :-SHIFT, :-SHIFT]


class Nearest:
    """The nearest images of each query so far, by Euclidean distance."""

    def __init__(self, queries: int) -> None:
        self.rows = np.zeros((queries, 0), np.int64)
        self.squared = np.zeros((queries, 0), np.float64)

    def add(self, wanted: Floats, block: Floats, rows: npt.NDArray[np.int64]) -> None:
        """Compare all queries, float32 [Q, D], with a block of images, float32 [B, D]."""
        a, b = wanted.astype(np.float64), block.astype(np.float64)
        squared = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
        every = np.concatenate([self.squared, squared], 1)
        named = np.concatenate([self.rows, np.broadcast_to(rows, squared.shape)], 1)
        order = np.argsort(every, axis=1, kind="stable")[:, :NEIGHBOURS]
        self.squared = np.take_along_axis(every, order, 1)
        self.rows = np.take_along_axis(named, order, 1)
