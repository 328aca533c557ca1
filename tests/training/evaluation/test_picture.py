"""The confusion matrix that is drawn, of few classes and of many."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.dataset.folder import ClassName, Photograph
from storage.evaluations import Evaluation, EvaluationData
from training.evaluation.metrics import compute_metrics
from training.evaluation.picture import OTHER_CLASS, build_confusion_matrix, draw_evaluation
from training.evaluation.predictions import PredictedPhotographs, Predictions, ResultKey


def verdict(true: list[int], guess: list[int], classes: int) -> Evaluation:
    answers = Predictions(
        guess=np.array(guess),
        probability=np.linspace(0.9, 0.6, len(guess), dtype=np.float32),
        true_probability=np.full(len(guess), 0.1, np.float32),
        rank=np.array([0 if t == g else 7 for t, g in zip(true, guess, strict=True)]),
    )
    photographs = tuple(Photograph(f"gone/{i}.jpg", t) for i, t in enumerate(true))
    return compute_metrics(
        PredictedPhotographs(photographs, (), {ResultKey("net", "ten"): answers}),
        [],
        [ClassName(f"n{i}", f"${i}_$ [label] {'long ' * 9}") for i in range(classes)],
        EvaluationData(
            folder="x",
            layout="folders",
            split=None,
            images=len(true),
            classes=classes,
            unreadable=(),
            unknown={},
        ),
        precision="f32",
        mistakes=12,
    )


def test_guesses_of_classes_without_images_have_a_column_of_their_own() -> None:
    found = verdict(true=[0, 0, 0, 2, 2], guess=[0, 2, 9, 2, 1], classes=10)
    columns, counts = build_confusion_matrix(found.results[0])
    assert columns == ["n0", "n2", OTHER_CLASS]
    assert counts.tolist() == [[1, 1, 1], [0, 1, 1]]
    columns, counts = build_confusion_matrix(
        verdict(true=[0, 1, 1], guess=[1, 1, 1], classes=10).results[0]
    )
    assert (columns, counts.tolist()) == (["n0", "n1"], [[0, 1], [0, 2]])


@pytest.mark.parametrize("classes", [2, 31])
def test_it_is_drawn_though_photographs_are_gone_and_labels_odd(
    classes: int, tmp_path: Path
) -> None:
    random = np.random.default_rng(classes)
    true = [*range(classes)] * 3
    guess = [int(random.integers(classes)) if random.random() < 0.3 else t for t in true]
    picture = Image.open(io.BytesIO(draw_evaluation(verdict(true, guess, classes), tmp_path)))
    assert picture.size[0] == 1800
    assert np.asarray(picture.convert("L")).std() > 10


def test_without_a_mistake_there_is_no_contact_sheet(tmp_path: Path) -> None:
    picture = Image.open(io.BytesIO(draw_evaluation(verdict([0, 1], [0, 1], 2), tmp_path)))
    assert picture.size == (1800, 1000)
