"""Which runtime is chosen, and what is remembered of it."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from model.checkpoint import Weights
from model.config import AlexNetConfig
from model.predict import Predictor
from model.runtime import agreement, choice, protocol

pytest.importorskip("openvino", reason="OpenVINO is not installed")
SMALL = AlexNetConfig(classes=3, init="he", input_scale=60, side=104, crop=72)


@pytest.fixture(scope="module")
def weights(weights_of: Callable[..., Weights]) -> Weights:
    return weights_of(SMALL)


def test_torch_unless_something_else_is_wished(weights: Weights) -> None:
    assert Predictor.from_weights(weights, "cpu").runtime.name == "torch"


def test_a_wish_is_followed_and_agrees(weights: Weights) -> None:
    images = agreement.make_test_images(104, 2)
    wished = Predictor.from_weights(weights, "cpu", "openvino-f32")
    assert wished.choice.name == wished.runtime.name == "openvino-f32"
    truth = Predictor.from_weights(weights, "cpu").predict_probabilities(images)
    np.testing.assert_allclose(wished.predict_probabilities(images), truth, atol=1e-5)


def test_what_was_measured_once_is_taken_again(
    weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "runtimes"
    first = Predictor.from_weights(weights, "cpu", "auto", folder).choice
    (file,) = folder.iterdir()
    assert set(first.milliseconds) >= {"torch"}
    assert first.name == min(first.milliseconds, key=lambda name: first.milliseconds[name])
    with monkeypatch.context() as patch:
        patch.setattr(choice, "find_best", None)  # nothing is measured
        assert Predictor.from_weights(weights, "cpu", "auto", folder).choice == first
    stored = json.loads(file.read_text())
    for damaged in (
        file.read_text()[:50],
        json.dumps(stored | {"choice": 3}),
        json.dumps(stored | {"machine": stored["machine"] | {"processor": "another"}}),
    ):
        file.write_text(damaged)
        again = Predictor.from_weights(weights, "cpu", "auto", folder)
        assert again.runtime.name == again.choice.name
        assert json.loads(file.read_text())["machine"] == stored["machine"]


def test_a_runtime_that_departs_too_far_is_refused(
    weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "MAX_FEATURE_ERROR", 1e-12)
    for wish in ("auto", "openvino-f32"):
        predictor = Predictor.from_weights(weights, "cpu", wish)
        assert predictor.runtime.name == predictor.choice.name == "torch"
        assert "openvino-f32" in predictor.choice.reason


def test_a_network_that_cannot_be_converted_stays_with_torch(
    weights_of: Callable[..., Weights],
) -> None:
    weights = weights_of(AlexNetConfig(classes=3, net="cifar", side=32, crop=24))
    predictor = Predictor.from_weights(weights, "cpu", "auto")
    assert predictor.runtime.name == "torch"


def test_without_openvino_torch_computes(
    weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "find_spec", lambda _: None)
    predictor = Predictor.from_weights(weights, "cpu", "auto", tmp_path)
    assert predictor.runtime.name == "torch"
    assert not any(tmp_path.iterdir())  # once it is installed it is tried


def test_a_home_that_cannot_be_written_to_is_no_error(
    weights: Weights, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "runtimes").write_text("a file")
    with caplog.at_level(logging.WARNING):
        predictor = Predictor.from_weights(weights, "cpu", "auto", tmp_path / "runtimes")
    assert predictor.runtime.name == predictor.choice.name
    assert "runtimes" in caplog.text
