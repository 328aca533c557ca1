"""A network with parts switched off against networks that are made without these parts."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage.data

from model.network.config import AlexNetConfig
from model.network.switches import Switches, make_masks
from model.predict import Predictor
from model.runtime.protocol import Pixels
from model.visualization.activations import trace_activations, trace_switched_activations
from model.weights.checkpoint import Weights

SMALL = AlexNetConfig(classes=5, init="he", input_scale=60, side=104, crop=72)
EVERY = [
    Switches(neurons="none"),
    Switches(neurons="tanh", lrn=False),
    Switches(lrn=False, crop=0),
    Switches(silent_tower=2, crop=7),
    Switches(silent_tower=1, dropout_samples=3, seed=5),
]


@pytest.fixture(scope="module")
def image() -> Pixels:
    square: Pixels = skimage.data.astronaut()[100:204, 50:154]
    return square


@pytest.fixture(scope="module")
def predictor(make_predictor: Callable[[AlexNetConfig], Predictor]) -> Predictor:
    return make_predictor(SMALL)


@pytest.fixture(scope="module")
def remake(
    predictor: Predictor, weights_of: Callable[..., Weights]
) -> Callable[[AlexNetConfig, dict[str, object]], Predictor]:
    """Makes another network with the same weights, some of them replaced."""
    known = predictor.loaded.weights

    def make(config: AlexNetConfig, changed: dict[str, object]) -> Predictor:
        state = {**known.state, **changed}
        return Predictor.from_weights(weights_of(config, state=state, mean=known.mean), "cpu")

    return make


def test_without_a_switch_nothing_changes(predictor: Predictor, image: Pixels) -> None:
    outputs = predictor.runtime.run_switched(image, SMALL, Switches())
    for ours, theirs in zip(outputs, predictor.runtime.run_layers(image), strict=True):
        np.testing.assert_array_equal(ours[0], theirs)


@pytest.mark.parametrize(
    ("config", "switches"),
    [
        (replace(SMALL, activation="tanh"), Switches(neurons="tanh")),
        (replace(SMALL, lrn=False), Switches(lrn=False)),
    ],
)
def test_it_is_the_network_that_is_built_so(
    predictor: Predictor, remake, image: Pixels, config: AlexNetConfig, switches: Switches
) -> None:
    truth = trace_activations(remake(config, {}), image)
    found = trace_switched_activations(predictor, image, switches).activations
    for ours, theirs in zip(found.layers, truth.layers, strict=True):
        for one, other in zip(ours.towers, theirs.towers, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_silent_tower_is_one_whose_weights_are_zero(
    predictor: Predictor, remake, image: Pixels
) -> None:
    changed = {}
    for name, tensor in predictor.loaded.weights.state.items():
        if not name.startswith("fc8"):
            tensor = tensor.clone()
            tensor[len(tensor) // 2 :] = 0  # the second GPU's kernels and biases
            changed[name] = tensor
    truth = trace_activations(remake(SMALL, changed), image)
    found = trace_switched_activations(predictor, image, Switches(silent_tower=2)).activations
    assert any(layer.towers[0].any() for layer in found.layers)
    for ours, theirs in zip(found.layers, truth.layers, strict=True):
        for one, other in zip(ours.towers, theirs.towers, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("crop", [0, 3, 4, 6, 9])
def test_the_crop_is_that_of_the_ten(predictor: Predictor, image: Pixels, crop: int) -> None:
    ten = predictor.runtime.run_ten_crops(image[None]).probabilities[0]
    found = trace_switched_activations(predictor, image, Switches(crop=crop))
    np.testing.assert_allclose(found.probabilities[0], ten[crop], atol=1e-6)


def test_dropped_neurons_are_those_drawn(predictor: Predictor, image: Pixels) -> None:
    switches = Switches(dropout_samples=4, seed=3)
    outputs = predictor.runtime.run_switched(image, SMALL, switches)
    mask = make_masks(SMALL, switches)[5]  # after fc6, the sixth layer
    assert set(np.unique(mask)) == {0, 2}
    assert abs((mask == 0).mean() - 0.5) < 0.02
    assert len({row.tobytes() for row in mask}) == 4
    state = predictor.loaded.weights.state
    weight, bias = (state[f"fc7.{name}"].numpy() for name in ("weight", "bias"))
    # As in training: what is kept is neither halved nor doubled.
    kept = np.maximum(outputs[5], 0) * (mask > 0)
    np.testing.assert_allclose(outputs[6], kept @ weight.T + bias, rtol=1e-3, atol=1e-3)
    again = predictor.runtime.run_switched(image, SMALL, switches)
    np.testing.assert_array_equal(outputs[7], again[7])
    other = predictor.runtime.run_switched(image, SMALL, replace(switches, seed=4))
    assert not np.allclose(outputs[7], other[7])


@pytest.mark.parametrize("switches", EVERY)
def test_a_stored_graph_is_changed_as_torch_changes_its_modules(
    predictor: Predictor, image: Pixels, switches: Switches, stored, tmp_path: Path
) -> None:
    ours = stored.run_switched(image, SMALL, switches)
    theirs = predictor.runtime.run_switched(image, SMALL, switches)
    assert len(ours) == len(theirs) == 8
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


@pytest.fixture(scope="module")
def stored(predictor: Predictor, tmp_path_factory: pytest.TempPathFactory):
    """The network's graph, stored and compiled from the file as a server does."""
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    from model.runtime.graph_file import StoredGraphs, save_graphs
    from model.runtime.openvino_graph import BuiltGraphs
    from model.runtime.openvino_runtime import OpenVinoRuntime

    file = tmp_path_factory.mktemp("graph") / "network.xml"
    graphs = BuiltGraphs(predictor.network, predictor.loaded.mean)
    save_graphs(graphs, predictor.conv1, file)
    return OpenVinoRuntime(StoredGraphs(file), "openvino-f32")
