"""Which runtime is chosen, and when torch computes."""

from collections.abc import Callable

import numpy as np
import pytest

from model.network.config import AlexNetConfig
from model.predict import Predictor
from model.runtime import agreement, choice, protocol
from model.weights.checkpoint import Weights

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


def test_the_fastest_that_agrees_is_chosen(weights: Weights) -> None:
    found = Predictor.from_weights(weights, "cpu", "auto").choice
    assert set(found.milliseconds) >= {"torch"}
    assert found.name == min(found.milliseconds, key=lambda name: found.milliseconds[name])


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


def test_without_openvino_torch_computes(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "find_spec", lambda _: None)
    assert Predictor.from_weights(weights, "cpu", "auto").runtime.name == "torch"
