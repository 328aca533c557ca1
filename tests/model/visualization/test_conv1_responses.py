"""What conv1 answers and sees, against torch's own convolution."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn.functional import conv2d, pad

from model.network.architectures import VARIANTS
from model.network.config import AlexNetConfig
from model.predict import Predictor
from model.visualization.conv1_responses import Conv1Responses
from model.weights.checkpoint import Weights

Pixels = npt.NDArray[np.uint8]
BORDERS = {"paper": (0, 3), "one-gpu": (0, 3), "caffe-alexnet": (0, 0), "torchvision": (2, 2)}
"""Zero pixels that each net has before and after its crop."""
SIDE = 104
SQUARES = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)


@pytest.fixture(scope="module")
def conv1_of(weights_of: Callable[..., Weights]) -> Callable[[AlexNetConfig], Conv1Responses]:
    """conv1 with seeded weights and a mean image of whole numbers, which rise from the left."""

    def make(config: AlexNetConfig) -> Conv1Responses:
        weights = weights_of(config, mean=torch.arange(float(SIDE)).expand(3, SIDE, SIDE))
        return Conv1Responses(Predictor.from_weights(weights, "cpu"))

    return make


@pytest.fixture(scope="module", params=list(BORDERS))
def conv1(
    request: pytest.FixtureRequest, conv1_of: Callable[[AlexNetConfig], Conv1Responses]
) -> Conv1Responses:
    config = VARIANTS[request.param].config
    crop = 75 if config.crop == 227 else 72
    return conv1_of(replace(config, classes=2, side=SIDE, crop=crop, input_scale=50.0))


def truth(conv1: Conv1Responses) -> npt.NDArray[np.float64]:
    """The maps by torch's function in float64: [3, K, side, side]."""
    network = conv1.predictor.network
    crop, mean = network.config.crop, np.arange(float(SIDE))[:, None]
    margin = (SIDE - crop) // 2
    cut = (SQUARES - mean)[:, margin : margin + crop, margin : margin + crop] / 50
    before, after = BORDERS[network.config.net]
    x = pad(torch.from_numpy(cut).permute(0, 3, 1, 2), (before, after, before, after))
    weight, bias = network.conv1.weight.detach(), network.conv1.bias
    assert bias is not None
    found: npt.NDArray[np.float64] = conv2d(
        x, weight.double(), bias.detach().double(), stride=4
    ).numpy()
    return found


def test_the_maps_and_the_strongest_places(conv1: Conv1Responses) -> None:
    right = truth(conv1)
    maps = conv1.compute_maps(SQUARES).numpy()
    np.testing.assert_allclose(maps, right, atol=1e-4)
    assert conv1.map_side == right.shape[-1]
    for square, true in zip(SQUARES, right, strict=True):
        values, spots = conv1.find_strongest(square)
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, true.max(axis=(1, 2)), atol=1e-4)
        places = conv1.unravel(spots)
        at = true[np.arange(conv1.kernel_count), places[:, 0], places[:, 1]]
        np.testing.assert_allclose(at, values, atol=1e-4)


def test_a_patch_is_what_the_kernels_see(conv1: Conv1Responses) -> None:
    """Its product with the kernels, the mean subtracted, is their answer there."""
    network, right, width = conv1.predictor.network, truth(conv1), conv1.map_side
    kernels = network.conv1.weight.detach().double().numpy()
    assert network.conv1.bias is not None
    bias = network.conv1.bias.detach().double().numpy()
    first = (SIDE - network.config.crop) // 2 - BORDERS[network.config.net][0]
    for row, column in ((0, 0), (0, width - 1), (width - 1, 0), (width - 1, width - 1), (7, 12)):
        patch = conv1.cut_patch(SQUARES[1], row * width + column)
        assert patch.shape == (11, 11, 3)
        assert patch.dtype == np.uint8
        mean = np.arange(float(SIDE))[first + 4 * column : first + 4 * column + 11]
        seen = ((patch - mean[:, None]) / 50).transpose(2, 0, 1)
        answers = (kernels * seen).sum(axis=(1, 2, 3)) + bias
        np.testing.assert_allclose(answers, right[1, :, row, column], atol=1e-9)
