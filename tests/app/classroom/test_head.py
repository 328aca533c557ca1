"""The quick classifier: against a fit without each photograph, and its whole way over the pages."""

import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import Ridge

from app.classroom.datasets import read_dataset
from app.classroom.head import PENALTIES, fit_ridge, scale_features
from model.predict import Predictor
from model.weights.checkpoint import load_weights
from storage.activity import record_activity
from storage.progress import ignore_progress


def draw_features(classes: int, each: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of classes that overlap: float32 [N, 40], and their labels."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    centres = random.normal(size=(classes, 40))
    noise = random.normal(scale=2.5, size=(len(labels), 40))
    return np.abs(centres[labels] + noise).astype(np.float32), labels


@pytest.mark.parametrize(("classes", "each"), [(2, 6), (4, 7)])
def test_leaving_out_in_closed_form_is_fitting_without(classes: int, each: int) -> None:
    features, labels = draw_features(classes, each, seed=classes)
    fitted = fit_ridge(features, labels, classes)
    scaled = scale_features(features)
    targets = 2.0 * np.eye(classes)[labels] - 1

    def fit_without(left: np.ndarray, penalty: float) -> Ridge:
        # The constant is one of the features.
        return Ridge(alpha=penalty, fit_intercept=False).fit(scaled[~left], targets[~left])

    errors, guesses = {}, {}
    for penalty in PENALTIES:
        scores = np.concatenate(
            [fit_without(left, penalty).predict(scaled[left]) for left in np.eye(len(labels)) > 0]
        )
        errors[penalty] = ((scores - targets) ** 2).mean()
        guesses[penalty] = scores.argmax(1)
    assert fitted.penalty == min(errors, key=errors.__getitem__)
    assert fitted.left_out.tolist() == guesses[fitted.penalty].tolist()
    assert 0 < (fitted.left_out == labels).sum() < len(labels)
    whole = fit_without(np.zeros(len(labels), bool), fitted.penalty)
    assert pytest.approx(whole.coef_, abs=1e-8) == fitted.weights.T


def test_a_classifier_is_made_and_used(school, teacher, two_classes, page, settings) -> None:
    teacher.send_zip(two_classes, "quick")
    made = teacher.post("/new/quick/head")
    assert (made.status_code, made.location) == (303, "/new/quick#quick")
    shown = page(teacher.client.get("/new/quick"))
    fitter = school.extensions["head_fitter"]
    folder = school.extensions["settings"].home.datasets / "quick"
    dataset_files = sorted(folder.glob("train/*/*")) + sorted(folder.glob("val/*/*"))

    # The truth: features by torch, and a fit of scikit-learn's without each photograph.
    predictor = Predictor.from_weights(load_weights(settings.home.weights), "cpu")
    squares = np.stack([predictor.read_square(file) for file in dataset_files])
    scaled = scale_features(predictor.extract_features(squares))
    labels = np.array([file.parent.name == "coffee" for file in dataset_files])
    (penalty,) = {float(text) for text in re.findall(r"penalty ([\d.e-]+)", shown.text)}
    penalty = min(PENALTIES, key=lambda one: abs(one - penalty))
    right = 0
    for left in np.eye(len(labels)) > 0:
        fitted = Ridge(alpha=penalty, fit_intercept=False).fit(
            scaled[~left], np.where(labels[~left], 1.0, -1.0)
        )
        right += int((fitted.predict(scaled[left])[0] > 0) == labels[left][0])
    assert f"{right} of 12" in shown.text

    # One of its own photographs is its own nearest neighbour.
    data = dataset_files[3].read_bytes()
    answer = teacher.post("/new/quick/classify?part", image=(io.BytesIO(data), "mine.jpg"))
    part = page(answer)
    assert part.all("ol", "bars")[0].all("span", "label")[0].text.strip() == "brick"
    nearest = part.one("ol", "nearest")
    assert len(nearest.all("li")) == 6
    square = teacher.client.get(nearest.all("img")[0].attributes["src"])
    pixels = np.asarray(Image.open(io.BytesIO(square.data)), float)
    assert np.abs(pixels - squares[3]).mean() < 5
    whole = teacher.post("/new/quick/classify", image=(io.BytesIO(data), "mine.jpg"))
    assert "mine.jpg" in whole.text
    assert teacher.post("/new/quick/classify", image=(io.BytesIO(b"x"), "x.jpg")).status_code == 415

    # Other weights in service: refused, and offered to be made anew.
    dataset = read_dataset(school.extensions["settings"].home, "quick")
    head = fitter.read(dataset)
    state = school.extensions["loader"].get_state()
    weights = load_weights(settings.home.weights)
    changed = replace(weights, mean=weights.mean + 1)
    other = replace(state, predictor=Predictor.from_weights(changed, "cpu"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(school.extensions["loader"], "get_state", lambda: other)
        patch.setattr(school.extensions["loader"], "require_predictor", lambda: other.predictor)
        sent = (io.BytesIO(data), "mine.jpg")
        assert teacher.post("/new/quick/classify", image=sent).status_code == 409
        offered = page(teacher.client.get("/new/quick"))
        assert "/new/quick/head" in {f.attributes.get("action") for f in offered.all("form")}
        teacher.post("/new/quick/head")
    assert fitter.read(dataset).identity == other.predictor.identity != head.identity


def test_while_one_is_made_no_second_is_begun_and_a_failure_is_told(
    school, teacher, two_classes, page
) -> None:
    teacher.send_zip(two_classes, "slow")
    folder = school.extensions["settings"].home.datasets / "slow"
    with record_activity(folder / ".head.json", ignore_progress) as report:
        report("Computing features", 12)(5)
        shown = page(teacher.client.get("/new/slow"))
        assert "5 of 12" in shown.text
        assert shown.one("progress").attributes["value"] == "5"
        assert teacher.post("/new/slow/head").status_code == 409
    next(folder.glob("val/*/*")).write_bytes(b"no longer a photograph")
    teacher.post("/new/slow/head")
    assert page(teacher.client.get("/new/slow")).all("p", "problem")
    assert not (folder / "head.safetensors").exists()
