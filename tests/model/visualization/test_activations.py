"""What each layer computes, against the paper's two towers written out with torch's functions."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import skimage.data
import torch
from torch import Tensor
from torch.nn import functional

from model.image.preprocess import CENTRE_CROP
from model.network.architectures import VARIANTS
from model.network.config import AlexNetConfig
from model.predict import Predictor
from model.visualization.activations import trace_activations
from model.visualization.conv1_responses import Conv1Responses

Pixels = npt.NDArray[np.uint8]
HALVES = (0, 1)


@pytest.fixture(scope="module")
def predictor(make_predictor) -> Predictor:
    return make_predictor(AlexNetConfig(classes=7, init="he", input_scale=60))


@pytest.fixture(scope="module")
def square() -> Pixels:
    return skimage.data.astronaut()[100:356, 50:306]


def half(predictor: Predictor, name: str, tower: int) -> tuple[Tensor, Tensor]:
    """The weights and biases that one GPU holds of a layer."""
    state = predictor.loaded.weights.state
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    return weight.chunk(2)[tower], bias.chunk(2)[tower]


def normalised_and_pooled(x: Tensor) -> Tensor:
    """§3.3 and §3.4; torch divides α by n."""
    return functional.max_pool2d(
        functional.local_response_norm(x, 5, alpha=5e-4, beta=0.75, k=2), 3, 2
    )


def by_hand(predictor: Predictor, square: Pixels) -> dict[str, list[Tensor]]:
    """Each layer's output after the ReLU, GPU by GPU, exchanging only where the paper does."""
    pixels = torch.from_numpy(np.array(square[None, 16:240, 16:240])).permute(0, 3, 1, 2).float()
    image = (pixels - predictor.loaded.weights.mean[:, 16:240, 16:240]) / 60

    def conv(name: str, inputs: list[Tensor], stride: int = 1, pad: int = 0) -> list[Tensor]:
        pairs = [half(predictor, name, tower) for tower in HALVES]
        return [
            functional.conv2d(inputs[t], *pairs[t], stride=stride, padding=pad).clamp(min=0)
            for t in HALVES
        ]

    def dense(name: str, x: Tensor) -> list[Tensor]:
        return [
            functional.linear(x, *half(predictor, name, tower)).clamp(min=0) for tower in HALVES
        ]

    found = {"conv1": conv("conv1", [functional.pad(image, (0, 3, 0, 3))] * 2, stride=4)}
    found["conv2"] = conv("conv2", [normalised_and_pooled(x) for x in found["conv1"]], pad=2)
    both = torch.cat([normalised_and_pooled(x) for x in found["conv2"]], dim=1)
    found["conv3"] = conv("conv3", [both] * 2, pad=1)
    found["conv4"] = conv("conv4", found["conv3"], pad=1)
    found["conv5"] = conv("conv5", found["conv4"], pad=1)
    pooled = torch.cat([functional.max_pool2d(x, 3, 2) for x in found["conv5"]], dim=1)
    found["fc6"] = dense("fc6", pooled.flatten(1))
    found["fc7"] = dense("fc7", torch.cat(found["fc6"], dim=1) / 2)
    return found


def test_each_tower_computes_what_its_gpu_did(predictor: Predictor, square: Pixels) -> None:
    expected, found = by_hand(predictor, square), trace_activations(predictor, square)
    assert [maps.name for maps in found.layers] == [*expected, "fc8"]
    for maps in found.layers[:-1]:
        assert len(maps.towers) == 2
        for tower, truth in zip(maps.towers, expected[maps.name], strict=True):
            assert tower.dtype == np.float32
            np.testing.assert_allclose(tower, truth[0].numpy(), rtol=1e-3, atol=1e-4)
        assert maps.largest == pytest.approx(
            max(float(t.max()) for t in expected[maps.name]), rel=1e-3
        )


def test_the_shapes_are_those_stated(predictor: Predictor, square: Pixels) -> None:
    for maps in trace_activations(predictor, square).layers[:-1]:
        side = (maps.layer.side,) * 2 if maps.layer.kind == "maps" else ()
        assert [tower.shape for tower in maps.towers] == [(maps.layer.maps, *side)] * 2


def test_fc7_and_the_labels_are_those_of_the_centre_crop(
    predictor: Predictor, square: Pixels
) -> None:
    found, look = trace_activations(predictor, square), predictor.predict(square)
    np.testing.assert_allclose(
        found.probabilities, look.crop_probabilities[CENTRE_CROP], rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        np.concatenate(found.layers[-2].towers), look.fc7, rtol=1e-3, atol=1e-4
    )


def test_conv1_before_its_relu_is_what_the_index_keeps_the_strongest_of(
    predictor: Predictor, square: Pixels
) -> None:
    found = trace_activations(predictor, square).conv1
    assert found.shape == (96, 55, 55)
    assert (found < 0).any()
    values, spots = Conv1Responses(predictor).find_strongest(square)
    np.testing.assert_allclose(found.reshape(96, -1).max(1), values, rtol=1e-5)
    assert np.array_equal(found.reshape(96, -1).argmax(1), spots)


@pytest.mark.parametrize("name", ["original", "torchvision", "tanh"])
def test_other_networks_are_read_where_their_layers_are(
    make_predictor, square: Pixels, name: str
) -> None:
    """Against hooks on the modules, whatever follows each of them."""
    config = replace(VARIANTS[name].config, classes=5, side=104, crop=72)
    predictor, seen = make_predictor(config), {}
    for module_name, module in predictor.network.named_children():
        if module_name.startswith(("conv", "fc")):
            module.register_forward_hook(
                lambda _, __, out, name=module_name: seen.update({name: out[0].clone()})
            )
    found = trace_activations(predictor, square[:104, :104])
    assert [maps.name for maps in found.layers] == list(seen)
    for maps in found.layers[:-1]:
        after = seen[maps.name].tanh() if name == "tanh" else seen[maps.name].clamp(min=0)
        assert len(maps.towers) == config.towers
        np.testing.assert_allclose(np.concatenate(maps.towers), after.numpy(), rtol=1e-5, atol=1e-6)
