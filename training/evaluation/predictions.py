"""Predict labelled photographs, and reduce the predictions to what error rates need.

The photographs are decoded ahead on other threads. Of an image's probabilities only those of the
guess and the true class, and the true class's rank, are kept, so memory does not grow with the
number of classes.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.dataset.folder import Photograph
from model.image.decode import ImageError
from model.image.preprocess import CENTRE_CROP, read_square
from model.image.ten_crop import centre_crop, ten_crop_forward
from model.network.config import Resize
from model.predict import Predictor
from storage.evaluations import ENSEMBLE, Crops
from storage.parallel import map_ahead, split_batches
from training.evaluation.confidence import Wrong

Pixels = npt.NDArray[np.uint8]
BATCHES_AHEAD = 2
"""Batches that are decoded ahead."""


class PredictionError(ValueError):
    """A network whose outputs are not finite, or photographs none of which can be read."""


@dataclass(frozen=True)
class EvaluatedModel:
    """A network to evaluate.

    order: int64 [classes], which of its outputs belongs to each class, in the order common to all
           models.
    """

    name: str
    predictor: Predictor
    order: Tensor

    @property
    def square(self) -> "SquareKind":
        """The kind of square that crops are cut from."""
        config = self.predictor.config
        return SquareKind(config.side, config.resize)


class SquareKind(NamedTuple):
    """The side of a square in pixels, and how a photograph becomes one."""

    side: int
    resize: Resize


class ResultKey(NamedTuple):
    """Identifies a result: a model's name, or "ensemble", and the kind of crops."""

    name: str
    crops: Crops


@dataclass(frozen=True)
class Predictions:
    """Predictions for N images.

    guess:            int64 [N], the most probable class.
    probability:      float32 [N], its probability.
    true_probability: float32 [N], that of the true class.
    rank:             int64 [N], how many classes are ranked above the true one; 0: guess is right.
    """

    guess: npt.NDArray[np.int64]
    probability: npt.NDArray[np.float32]
    true_probability: npt.NDArray[np.float32]
    rank: npt.NDArray[np.int64]

    def is_wrong(self, guesses: int) -> Wrong:
        """Return whether the true class is missing from the first `guesses` guesses: bool [N]."""
        return self.rank >= guesses


@dataclass(frozen=True)
class PredictedPhotographs:
    """All predictions for the photographs that could be read.

    unreadable: the other photographs, each as its path and the reason.
    """

    photographs: tuple[Photograph, ...]
    unreadable: tuple[str, ...]
    predictions: dict[ResultKey, Predictions]


def predict_photographs(
    models: Sequence[EvaluatedModel],
    root: Path,
    photographs: Sequence[Photograph],
    *,
    crops: Sequence[Crops],
    bf16: bool,
    batch: int,
    progress: Callable[[int], None],
) -> PredictedPhotographs:
    """Predict with every model and, if there are several, their ensemble.

    batch: images per batch. progress: called after each batch with its number of photographs.

    Raises PredictionError if no photograph can be read, or probabilities are not finite.
    """
    seen: list[Photograph] = []
    unreadable: list[str] = []
    parts: dict[ResultKey, list[Predictions]] = {}
    for chunk in decode_batches(root, photographs, sorted({m.square for m in models}), batch):
        readable = [(p, s) for p, s in chunk if not isinstance(s, str)]
        unreadable += [s for _, s in chunk if isinstance(s, str)]
        if readable:
            seen += (p for p, _ in readable)
            squares = {kind: np.stack([s[kind] for _, s in readable]) for kind in readable[0][1]}
            true = torch.tensor([p.class_index for p, _ in readable])
            for key, probabilities in predict_all(models, squares, crops, bf16).items():
                parts.setdefault(key, []).append(rank_predictions(probabilities, true, key))
        progress(len(chunk))
    if not seen:
        raise PredictionError(f"none of the photographs can be read; the first: {unreadable[0]}")
    return PredictedPhotographs(
        tuple(seen), tuple(unreadable), {k: concatenate_predictions(v) for k, v in parts.items()}
    )


DecodedBatch = list[tuple[Photograph, dict[SquareKind, Pixels] | str]]


def decode_batches(
    root: Path, photographs: Sequence[Photograph], kinds: Sequence[SquareKind], batch: int
) -> Generator[DecodedBatch, None, None]:
    """Yield batches of photographs with their squares by kind, uint8 [side, side, 3].

    A photograph that cannot be read has the reason in place of its squares.
    """

    def decode(photograph: Photograph) -> tuple[Photograph, dict[SquareKind, Pixels] | str]:
        try:
            squares = {k: read_square(root / photograph.path, **k._asdict()) for k in kinds}
        except ImageError as error:
            return photograph, str(error).removeprefix(f"{root}/")
        return photograph, squares

    with closing(map_ahead(decode, photographs, BATCHES_AHEAD * batch)) as decoded:
        yield from split_batches(decoded, batch)


def predict_all(
    models: Sequence[EvaluatedModel],
    squares: dict[SquareKind, Pixels],
    crops: Sequence[Crops],
    bf16: bool,
) -> dict[ResultKey, Tensor]:
    """Compute every model's probabilities and their mean: float32 [B, classes], in common order."""
    each = {m.name: predict_crops(m, squares[m.square], crops, bf16) for m in models}
    results = {
        ResultKey(name, c): probabilities[c] for name, probabilities in each.items() for c in crops
    }
    if len(models) > 1:
        for c in crops:
            results[ResultKey(ENSEMBLE, c)] = torch.stack(
                [probabilities[c] for probabilities in each.values()]
            ).mean(0)
    return results


@torch.inference_mode()
def predict_crops(
    model: EvaluatedModel, pixels: Pixels, crops: Sequence[Crops], bf16: bool
) -> dict[Crops, Tensor]:
    """Compute one model's probabilities by kind of crops, float32 [B, classes] each.

    pixels: uint8 [B, side, side, 3].
    """
    network, x = model.predictor.network, model.predictor.prepare_input(pixels)
    probabilities: dict[Crops, Tensor]
    with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
        if "ten" in crops:
            each = ten_crop_forward(network, x)[0]
            probabilities = {"ten": each.mean(1), "centre": each[:, CENTRE_CROP]}
        else:
            logits = network(centre_crop(x, network.config.crop)).logits
            probabilities = {"centre": logits.float().softmax(1)}
    return {c: probabilities[c].float().cpu()[:, model.order] for c in crops}


def rank_predictions(probabilities: Tensor, true: Tensor, key: ResultKey) -> Predictions:
    """Determine the guess and the rank of the true class; of equal probabilities the first wins.

    probabilities: float32 [B, classes]. true: int64 [B]. Raises PredictionError for probabilities
    that are not finite.
    """
    if not torch.isfinite(probabilities).all():
        raise PredictionError(f"{key.name} predicts NaN or infinity: its training diverged")
    own = probabilities.gather(1, true[:, None])
    earlier = torch.arange(probabilities.shape[1]) < true[:, None]
    above = (probabilities > own) | ((probabilities == own) & earlier)
    guess = probabilities.argmax(1)
    return Predictions(
        guess=guess.numpy(),
        probability=probabilities.gather(1, guess[:, None])[:, 0].numpy(),
        true_probability=own[:, 0].numpy(),
        rank=above.sum(1).numpy(),
    )


def concatenate_predictions(parts: Sequence[Predictions]) -> Predictions:
    """Concatenate the predictions of several batches."""
    return Predictions(
        guess=np.concatenate([part.guess for part in parts]),
        probability=np.concatenate([part.probability for part in parts]),
        true_probability=np.concatenate([part.true_probability for part in parts]),
        rank=np.concatenate([part.rank for part in parts]),
    )
