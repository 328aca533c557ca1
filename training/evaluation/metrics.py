"""Compute errors, comparisons, confusion matrices and the worst mistakes from predictions."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from model.dataset.folder import ClassName
from storage.evaluations import (
    EVALUATION_FORMAT,
    ClassErrors,
    Comparison,
    Evaluation,
    EvaluationData,
    Mistake,
    ModelInfo,
    Result,
)
from training.evaluation.confidence import error_rate, paired_difference
from training.evaluation.predictions import (
    EvaluatedModel,
    PredictedPhotographs,
    Predictions,
    ResultKey,
)

GUESSES = (1, 5)
"""Guesses that count for the top-1 and the top-5 error."""


def compute_metrics(
    predicted: PredictedPhotographs,
    models: Sequence[EvaluatedModel],
    classes: Sequence[ClassName],
    data: EvaluationData,
    *,
    precision: str,
    mistakes: int,
) -> Evaluation:
    """Compute errors, comparisons, confusions and mistakes from the predictions.

    classes: those that the predictions' indices refer to. mistakes: how many to list per result.
    """
    return Evaluation(
        format=EVALUATION_FORMAT,
        data=data,
        precision=precision,
        models=tuple(describe_model(model) for model in models),
        labels={known.folder: known.label for known in classes},
        results=tuple(
            compute_result(key, predictions, predicted, classes, mistakes)
            for key, predictions in predicted.predictions.items()
        ),
        differences=tuple(compare_results(predicted.predictions)),
    )


def describe_model(model: EvaluatedModel) -> ModelInfo:
    """Describe a network for the evaluation's file."""
    weights = model.predictor.loaded.weights
    return ModelInfo(
        name=model.name,
        identity=model.predictor.identity,
        classes=weights.config.classes,
        side=weights.config.side,
        crop=weights.config.crop,
        preset=weights.provenance.preset,
        epochs=weights.provenance.epochs,
        images=weights.provenance.images,
    )


def compute_result(
    key: ResultKey,
    predictions: Predictions,
    predicted: PredictedPhotographs,
    classes: Sequence[ClassName],
    mistakes: int,
) -> Result:
    """Compute the errors, confusions and mistakes of one network with one kind of crops."""
    true = np.array([photograph.class_index for photograph in predicted.photographs])
    return Result(
        name=key.name,
        crops=key.crops,
        top1=error_rate(predictions.is_wrong(1)),
        top5=error_rate(predictions.is_wrong(5)),
        classes=tuple(
            compute_class_errors(predictions, true == i, classes[i]) for i in np.unique(true)
        ),
        confusion=count_confusions(predictions, true, classes),
        mistakes=tuple(find_confident_mistakes(predictions, true, predicted, classes, mistakes)),
    )


def compute_class_errors(predictions: Predictions, own: np.ndarray, name: ClassName) -> ClassErrors:
    """Compute the errors on the images of one class. own: bool [N], which images they are."""
    top1, top5 = (error_rate(predictions.is_wrong(guesses)[own]) for guesses in GUESSES)
    return ClassErrors(folder=name.folder, label=name.label, top1=top1, top5=top5)


def count_confusions(
    predictions: Predictions, true: np.ndarray, classes: Sequence[ClassName]
) -> dict[str, dict[str, int]]:
    """Count the nonzero entries of the confusion matrix. true: int64 [N], class indices."""
    pairs, counts = np.unique(np.stack([true, predictions.guess]), axis=1, return_counts=True)
    confusions: dict[str, dict[str, int]] = {}
    for actual, guess, count in zip(*pairs, counts, strict=True):
        confusions.setdefault(classes[actual].folder, {})[classes[guess].folder] = int(count)
    return confusions


def find_confident_mistakes(
    predictions: Predictions,
    true: np.ndarray,
    predicted: PredictedPhotographs,
    classes: Sequence[ClassName],
    count: int,
) -> list[Mistake]:
    """Return up to `count` wrong guesses, by descending probability."""
    (wrong,) = predictions.is_wrong(1).nonzero()
    order = wrong[np.argsort(-predictions.probability[wrong], kind="stable")][:count]
    return [
        Mistake(
            path=predicted.photographs[i].path,
            true=classes[true[i]].folder,
            true_label=classes[true[i]].label,
            true_probability=float(predictions.true_probability[i]),
            guess=classes[predictions.guess[i]].folder,
            guess_label=classes[predictions.guess[i]].label,
            probability=float(predictions.probability[i]),
            rank=int(predictions.rank[i]) + 1,
        )
        for i in order
    ]


def compare_results(predictions: dict[ResultKey, Predictions]) -> list[Comparison]:
    """Compare all pairs with the same crops, and each network's ten crops with its centre crop."""
    pairs = [
        (a, b) for a, b in combinations(predictions, 2) if a.crops == b.crops or a.name == b.name
    ]
    return [
        Comparison(
            first=a.name,
            first_crops=a.crops,
            second=b.name,
            second_crops=b.crops,
            guesses=guesses,
            found=paired_difference(
                predictions[a].is_wrong(guesses), predictions[b].is_wrong(guesses)
            ),
        )
        for a, b in pairs
        for guesses in GUESSES
    ]
