"""Gradients in NumPy against torch's, and Grad-CAM against its closed form."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from model.attribution.explain import (
    backpropagate_guided,
    compute_grad_cam,
    isolate_tower,
    trace_forward_pass,
)
from model.attribution.gradients import compute_gradient, record_forward_pass
from model.network.config import AlexNetConfig
from model.network.layers import Border, Conv, Dense, Flatten
from model.predict import Predictor
from model.runtime.protocol import Floats
from model.weights.checkpoint import Weights

Pixels = npt.NDArray[np.uint8]
MakePredictor = Callable[[AlexNetConfig], Predictor]
LABEL = 2


def noise(side: int) -> Pixels:
    return np.random.default_rng(5).integers(0, 256, (side, side, 3), dtype=np.uint8)


def differentiate(predictor: Predictor, square: Pixels) -> tuple[Floats, Floats]:
    """The logits of the centre crop, and the gradient of one of them, by torch."""
    config = predictor.config
    first = (config.side - config.crop) // 2
    inside = slice(first, first + config.crop)
    x = predictor.prepare_input(square[None])[:, :, inside, inside].clone().requires_grad_()
    logits = predictor.network(x).logits
    logits[0, LABEL].backward()
    assert x.grad is not None
    return logits[0].detach().numpy(), x.grad[0].numpy()


@pytest.mark.parametrize("name", ["two_towers", "every_kind"])
def test_the_gradient_is_torchs(
    name: str, make_predictor: MakePredictor, request: pytest.FixtureRequest
) -> None:
    predictor = make_predictor(request.getfixturevalue(name))
    square = noise(predictor.config.side)
    forward = trace_forward_pass(predictor, square)
    logits, truth = differentiate(predictor, square)
    np.testing.assert_allclose(forward.logits, logits, rtol=1e-5, atol=1e-6)
    found = compute_gradient(forward, LABEL)
    assert found.dtype == np.float32
    assert np.abs(truth).max() > 0
    np.testing.assert_allclose(found, truth, rtol=1e-3, atol=1e-5 * np.abs(truth).max())


def test_guided_backpropagation_is_torchs_with_other_relus(
    make_predictor: MakePredictor, two_towers: AlexNetConfig
) -> None:
    predictor, square = make_predictor(two_towers), noise(two_towers.side)
    found = backpropagate_guided(trace_forward_pass(predictor, square), LABEL)
    for module in predictor.network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
            module.register_full_backward_hook(lambda _, grads, __: (grads[0].clamp(min=0),))
    _, truth = differentiate(predictor, square)
    np.testing.assert_allclose(found, truth, rtol=1e-3, atol=1e-5 * np.abs(truth).max())


def test_grad_cam_of_a_linear_network_is_its_closed_form(two_towers: AlexNetConfig) -> None:
    """Without a nonlinearity α is the mean of the label's weights over a map's positions."""
    random = np.random.default_rng(0)
    kernels = random.standard_normal((4, 3, 3, 3)).astype(np.float32)
    dense = random.standard_normal((5, 4 * 6 * 6)).astype(np.float32)
    crop = random.standard_normal((3, 8, 8)).astype(np.float32)
    maps = torch.nn.functional.conv2d(torch.from_numpy(crop)[None], torch.from_numpy(kernels))[0]
    layers = [Border("none", 0), Conv("conv1", 4, 3), Flatten("flat"), Dense("fc8", 5)]
    outputs = [maps.numpy(), dense @ maps.numpy().reshape(-1)]
    forward = record_forward_pass(layers, crop, outputs, [kernels, dense], towers=2)
    found = compute_grad_cam(forward, two_towers, LABEL)
    alpha = dense[LABEL].reshape(4, 36).mean(axis=1)
    parts = [np.tensordot(alpha[half], maps.numpy()[half], 1) for half in (slice(2), slice(2, 4))]
    for tower, part in zip(found.towers, parts, strict=True):
        np.testing.assert_allclose(tower, part, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.heat, np.maximum(sum(parts), 0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", ["fc8", "fc6", "conv5"])
def test_grad_cam_changes_when_weights_are_drawn_again(
    layer: str,
    make_predictor: MakePredictor,
    weights_of: Callable[..., Weights],
    two_towers: AlexNetConfig,
) -> None:
    """The sanity check of Adebayo et al. (2018): an explanation must depend on what was learned."""
    predictor, square = make_predictor(two_towers), noise(two_towers.side)
    state = dict(predictor.loaded.weights.state)
    own = state[f"{layer}.weight"]
    order = torch.randperm(own.numel(), generator=torch.Generator().manual_seed(2))
    state[f"{layer}.weight"] = own.flatten()[order].reshape(own.shape)
    mean = predictor.loaded.weights.mean
    other = Predictor.from_weights(weights_of(two_towers, mean=mean, state=state), "cpu")
    before, after = (
        compute_grad_cam(trace_forward_pass(one, square), two_towers, LABEL)
        for one in (predictor, other)
    )
    first, second = (np.sum(found.towers, axis=0).ravel() for found in (before, after))
    closeness = first @ second / (np.linalg.norm(first) * np.linalg.norm(second))
    assert abs(closeness) < 0.95


@pytest.mark.parametrize("tower", [1, 2])
def test_a_silenced_tower_gives_zero_and_passes_nothing_on(
    tower: int, make_predictor: MakePredictor, two_towers: AlexNetConfig
) -> None:
    """Against a network whose silenced half has neither weights nor biases."""
    predictor, square = make_predictor(two_towers), noise(two_towers.side)
    gains = isolate_tower(two_towers, tower)
    outputs = predictor.runtime.run_layers(square, gains)
    for output in outputs[:-1]:
        halves = np.split(output, 2)
        assert not halves[2 - tower].any()
        assert halves[tower - 1].any()
    network = predictor.network
    with torch.no_grad():
        for layer in ("conv1", "conv2", "conv3", "conv5", "fc6", "fc7"):
            for tensor in network.get_submodule(layer).parameters():
                tensor.chunk(2)[2 - tower].zero_()
    truth = predictor.runtime.run_logits(square[None])
    np.testing.assert_allclose(outputs[-1], truth[0], rtol=1e-4, atol=1e-5)
    forward = trace_forward_pass(predictor, square, gains)
    np.testing.assert_allclose(
        compute_gradient(forward, LABEL),
        differentiate(predictor, square)[1],
        rtol=1e-3,
        atol=1e-7,
    )


def test_there_is_no_third_tower(two_towers: AlexNetConfig) -> None:
    for tower in (0, 3):
        with pytest.raises(ValueError, match="no tower"):
            isolate_tower(two_towers, tower)
