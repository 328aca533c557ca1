"""Exported networks against this one, and what the model card says."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from model.formats.exporting import export_weights
from model.formats.onnx_export import ExportError
from model.image.preprocess import CENTRE_CROP
from model.network.alexnet import AlexNet
from model.network.architectures import VARIANTS
from model.network.config import AlexNetConfig
from model.predict import Predictor
from model.weights.checkpoint import Weights

WARPED = replace(
    VARIANTS["caffenet"].config,
    classes=4,
    crop=67,
    init="he",
    resize="warp",
    input_scale=60.0,
    channel_scales=(0.5, 1.0, 2.0),
)


@pytest.fixture(scope="module")
def weights(weights_of: Callable[..., Weights]) -> Weights:
    mean = torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(2)) * 255
    return weights_of(WARPED, ["ant", "bee", "cat", "dog"], mean, seed=3)


@pytest.fixture(scope="module")
def cifar(weights_of: Callable[..., Weights]) -> Weights:
    """A network with its own kernels for each position."""
    return weights_of(replace(VARIANTS["cifar-lrn"].config, init="he"), seed=1)


@pytest.mark.parametrize(("name", "ten_crops"), [("weights", True), ("cifar", False)])
def test_onnx_runtime_computes_the_same(
    request: pytest.FixtureRequest, tmp_path: Path, name: str, ten_crops: bool
) -> None:
    weights, file = request.getfixturevalue(name), tmp_path / "net.onnx"
    export_weights(weights, file, ten_crops=ten_crops)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    predictor, side = Predictor.from_weights(weights, "cpu"), weights.config.side
    for count in (1, 5):
        pixels = np.random.default_rng(9).integers(0, 256, (count, side, side, 3), np.uint8)
        probabilities, features = session.run(["probabilities", "features"], {"pixels": pixels})
        for row, one in enumerate(predictor.predict_batch(pixels)):
            own = one.probabilities if ten_crops else one.crop_probabilities[CENTRE_CROP]
            np.testing.assert_allclose(probabilities[row], own, rtol=0, atol=1e-4)
            np.testing.assert_allclose(features[row], one.fc7, rtol=1e-4, atol=1e-4)
        assert np.ptp(probabilities) > 0.01
    told = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    assert json.loads(told["labels"]) == [known.label for known in weights.classes]
    assert told["weights"] == weights.identity
    assert told["crops"] == ("ten" if ten_crops else "centre")


def test_a_state_dict_holds_the_tensors_alone(weights: Weights, tmp_path: Path) -> None:
    export_weights(weights, tmp_path / "net.pth")
    state = torch.load(tmp_path / "net.pth", weights_only=True)
    network = AlexNet(weights.config)
    network.load_state_dict(state)
    assert all(torch.equal(state[name], tensor) for name, tensor in weights.state.items())


def test_the_model_card_says_what_is_known_and_what_is_not(
    weights: Weights, weights_of: Callable[..., Weights], tmp_path: Path
) -> None:
    export_weights(weights, tmp_path / "card.md")
    card = (tmp_path / "card.md").read_text()
    assert weights.identity in card
    assert "both sides scaled to 256 pixels" in card
    assert "67 × 67" in card
    assert "30.000, 60.000, 120.000" in card
    trained = weights_of(
        AlexNetConfig(classes=2, crop=67), ["a", "b"], data="/data/pets", images=1234, epochs=7
    )
    trained = replace(trained, provenance=replace(trained.provenance, top1_error=0.25))
    export_weights(trained, tmp_path / "trained.md")
    card = (tmp_path / "trained.md").read_text()
    for said in ("| trained on | pets |", "1,234", "25.00 %", "unknown, not measured"):
        assert said in card
    assert "/data" not in card


def test_a_suffix_that_says_nothing_is_refused(weights: Weights, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"\.safetensors \(a state dict\)"):
        export_weights(weights, tmp_path / "net.h5")
    assert not list(tmp_path.iterdir())
