"""OpenVINO against torch, crop by crop, on a photograph."""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import skimage.data
import torch

from model.network.config import AlexNetConfig
from model.predict import Predictor
from model.runtime.agreement import make_test_images, measure_disagreement
from model.runtime.choice import make_openvino
from model.runtime.protocol import Pixels, RuntimeUnavailableError
from model.weights.checkpoint import Weights

pytest.importorskip("openvino", reason="OpenVINO is not installed")

SMALL = AlexNetConfig(classes=5, init="he", input_scale=60, side=104, crop=72)
CONFIGS = {
    "paper": SMALL,
    "plain pooling": replace(SMALL, overlapping=False),
    "α of its own": replace(SMALL, lrn_alpha_factors=(65.0, 7.4)),
    "another β": replace(SMALL, lrn_beta=0.6, channel_scales=(0.9, 1.0, 1.1)),
    "tanh, one GPU": replace(SMALL, activation="tanh", net="one-gpu"),
    "crops 8 apart": replace(SMALL, side=80),
    "bottleneck": replace(SMALL, bottleneck=16),
    "Caffe's": replace(SMALL, net="caffe-alexnet", crop=75, resize="warp"),
}


@pytest.fixture(scope="module")
def images() -> Pixels:
    picture = skimage.data.astronaut()
    return np.stack([picture[100:204, 50:154], picture[:104, 200:304], picture[300:404, :104]])


@pytest.mark.parametrize("name", CONFIGS)
def test_each_crop_is_what_the_network_says_of_it(
    name: str, make_predictor: Callable[[AlexNetConfig], Predictor], images: Pixels
) -> None:
    predictor = make_predictor(CONFIGS[name])
    config = predictor.config
    runtime = make_openvino(predictor.network, predictor.loaded.mean, "openvino-f32")
    squares = images[:, : config.side, : config.side]
    for some in (squares, squares[:1]):
        found = runtime.run_ten_crops(some)
        pixels = predictor.prepare_input(some)
        for square, probabilities, fc7 in zip(pixels, *found, strict=True):
            end, middle = config.side - config.crop, (config.side - config.crop) // 2
            places = [(0, 0), (0, end), (end, 0), (end, end), (middle, middle)]
            crops = [square[:, y : y + config.crop, x : x + config.crop] for y, x in places]
            crops += [crop.flip(-1) for crop in crops]
            with torch.inference_mode():
                truth = predictor.network(torch.stack(crops))
            np.testing.assert_allclose(probabilities, truth.logits.softmax(1), atol=1e-5)
            np.testing.assert_allclose(fc7, truth.fc7[4], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        runtime.run_centre_crop(squares), predictor.extract_features(squares), rtol=1e-3, atol=1e-4
    )
    layers = list(
        zip(runtime.run_layers(squares[0]), predictor.runtime.run_layers(squares[0]), strict=True)
    )
    for ours, theirs in layers:
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)
    draws = np.random.default_rng(1)
    gains = [draws.uniform(0, 2, len(layer)).astype(np.float32) for layer, _ in layers[:-1]]
    np.testing.assert_allclose(
        runtime.run_layers(squares[0], gains)[0],
        layers[0][1] * gains[0][:, None, None],
        rtol=1e-3,
        atol=1e-3,
    )
    np.testing.assert_allclose(
        runtime.run_logits(squares, gains),
        predictor.runtime.run_logits(squares, gains),
        rtol=1e-3,
        atol=1e-3,
    )
    np.testing.assert_allclose(runtime.run_logits(squares[:1])[0], layers[-1][0], atol=1e-4)
    units = [unit.ravel() for layer, _ in layers for unit in layer]
    peaks = runtime.find_peaks(squares)
    assert peaks.values.shape == peaks.places.shape == (len(squares), len(units))
    np.testing.assert_allclose(peaks.values[0], [u.max() for u in units], rtol=1e-3, atol=1e-4)
    at_places = [u[place] for u, place in zip(units, peaks.places[0].tolist(), strict=True)]
    np.testing.assert_allclose(at_places, peaks.values[0], rtol=1e-3, atol=1e-4)
    assert np.array_equal(runtime.read_mean(), predictor.loaded.mean.numpy())
    for ours, theirs in zip(runtime.read_weights(), predictor.runtime.read_weights(), strict=True):
        assert np.array_equal(ours, theirs)


def test_what_few_requests_need_is_discarded_and_compiled_again(
    make_predictor: Callable[[AlexNetConfig], Predictor],
    images: Pixels,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    predictor = make_predictor(SMALL)
    runtime = make_openvino(predictor.network, predictor.loaded.mean, "openvino-f32")
    first = runtime.run_centre_crop(images)
    assert set(runtime.spares) == {"centre crop"}  # type: ignore[attr-defined]
    monkeypatch.setattr("model.runtime.openvino_runtime.KEPT_SECONDS", 0.0)
    np.testing.assert_array_equal(runtime.run_centre_crop(images), first)
    end = time.monotonic() + 60
    while runtime.spares:  # type: ignore[attr-defined]
        assert time.monotonic() < end
        time.sleep(0.001)
    np.testing.assert_array_equal(runtime.run_centre_crop(images), first)


@pytest.mark.parametrize("net", ["original", "torchvision", "cifar"])
def test_other_layers_are_refused(
    net: str, make_predictor: Callable[[AlexNetConfig], Predictor]
) -> None:
    config = AlexNetConfig(classes=5, net="cifar", side=32, crop=24) if net == "cifar" else SMALL
    predictor = make_predictor(replace(config, net=net))
    with pytest.raises(RuntimeUnavailableError):
        make_openvino(predictor.network, predictor.loaded.mean, "openvino-f32")


def test_bf16_departs_and_agrees(
    make_predictor: Callable[[AlexNetConfig], Predictor], images: Pixels
) -> None:
    predictor = make_predictor(SMALL)
    try:
        runtime = make_openvino(predictor.network, predictor.loaded.mean, "openvino-bf16")
    except RuntimeUnavailableError as error:
        pytest.skip(str(error))
    found = measure_disagreement(runtime, predictor.runtime, images, features=True)
    assert found.is_small
    assert found.feature > 1e-4
    ours, theirs = (one.find_peaks(images).values for one in (runtime, predictor.runtime))
    assert 0 < np.abs(ours - theirs).max() < 0.02 * np.abs(theirs).max()


def test_broken_weights_agree_with_nothing(weights_of: Callable[..., Weights]) -> None:
    weights = weights_of(SMALL)
    truth = Predictor.from_weights(weights, "cpu")
    state = {name: tensor.clone() for name, tensor in weights.state.items()}
    state["fc7.bias"][0] = torch.nan
    broken = Predictor.from_weights(weights_of(SMALL, state=state), "cpu")
    found = measure_disagreement(broken.runtime, truth.runtime, make_test_images(104, 2))
    assert not found.is_small
    assert found.feature == np.inf


def test_images_to_compare_with_are_like_photographs() -> None:
    images = make_test_images(104)
    assert images.shape == (4, 104, 104, 3)
    assert (images == make_test_images(104)).all()
    grey = images.mean(3)
    assert 30 < grey.std() < 90
    # Neighbouring pixels of a photograph are alike; those of noise are not.
    assert np.abs(np.diff(grey, axis=2)).mean() < 0.75 * grey.std()
