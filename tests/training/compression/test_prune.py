"""Pruning: the largest weights stay, the others are zero and stay so while the network trains."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from model.network.alexnet import AlexNet
from model.network.architectures import VARIANTS
from training.compression.prune import Pruning, choose_largest, compute_density
from training.dataset.prepare import PreparedDataset
from training.optimisation.loop import train_network
from training.optimisation.state import TrainingState, init_state
from training.recipe.config import CIFAR
from training.records.callbacks import Callbacks

DENSITIES = {"conv1.weight": 0.5, "conv2.weight": 0.3, "local3.weight": 0.1, "fc10.weight": 0.25}


@pytest.mark.parametrize("density", [0.001, 0.1, 0.37, 0.999, 1.0])
@pytest.mark.parametrize("shape", [(96, 3, 11, 11), (1000, 50)])
def test_the_largest_magnitudes_are_chosen(density: float, shape: tuple[int, ...]) -> None:
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    mask = choose_largest(weights, density)
    count = round(density * weights.numel())
    order = np.argsort(-np.abs(weights.numpy().ravel()), kind="stable")
    expected = np.zeros(weights.numel(), bool)
    expected[order[:count]] = True
    assert np.array_equal(mask.numpy().ravel(), expected)


def test_zeros_are_not_chosen_and_pruning_again_changes_nothing() -> None:
    weights = torch.tensor([0.0, 3.0, -1.0, 1.0, 0.0, -2.0])
    assert choose_largest(weights, 1.0).tolist() == [False, True, True, True, False, True]
    pruned = weights * choose_largest(weights, 1 / 3)
    assert pruned.tolist() == [0, 3, 0, 0, 0, -2]
    assert torch.equal(pruned * choose_largest(pruned, 1 / 3), pruned)
    assert not choose_largest(torch.zeros(5), 0.5).any()


def test_the_density_falls_from_all_to_the_final_one() -> None:
    densities = [compute_density(0.1, share / 10) for share in range(11)]
    assert (densities[0], densities[-1]) == (1.0, 0.1)
    steps = -np.diff(densities)
    assert (steps > 0).all()
    assert (np.diff(steps) < 0).all()  # ever more slowly


@pytest.fixture
def state(tiny: PreparedDataset) -> TrainingState:
    config = replace(VARIANTS["cifar"].config, classes=3, init="he", input_scale=60.0)
    return init_state(config, CIFAR, torch.device("cpu"))


def count_kept(network: AlexNet, name: str) -> int:
    return int(network.get_parameter(name).count_nonzero())


def test_pruned_weights_stay_zero_while_the_others_learn(
    state: TrainingState, tiny: PreparedDataset
) -> None:
    recipe = replace(CIFAR, epochs=4, batch=4, rate=1e-3, hold_out=0.0)
    pruning, seen = Pruning(DENSITIES), list[dict[str, torch.Tensor]]()

    def on_step(step: int, steps: int, _loss: float) -> None:
        pruning.update(state, (len(state.history) + step / steps) / recipe.epochs)
        seen.append({n: state.network.get_parameter(n).detach().clone() for n in DENSITIES})

    train_network(state, tiny, recipe, "f32", Callbacks(on_step=on_step))
    assert len(seen) == 24
    for name, density in DENSITIES.items():
        for before, after in pairwise(seen):
            zero = before[name] == 0
            assert not after[name][zero].any(), name
            assert not torch.equal(after[name], before[name]), name
        # Half of the training is left to recover in.
        for values in seen[12:]:
            assert values[name].count_nonzero() == round(density * values[name].numel())
        parameter = state.network.get_parameter(name)
        velocity = state.sgd.velocity(parameter)
        assert velocity is not None
        assert not velocity[parameter == 0].any()
        assert velocity[parameter != 0].any()
    assert state.network.get_parameter("local4.weight").count_nonzero() > 0.99 * (64 * 32 * 288)


def test_a_training_without_pruning_is_the_same_as_one_with_all_kept(
    tiny: PreparedDataset, state: TrainingState
) -> None:
    recipe = replace(CIFAR, epochs=1, batch=4, hold_out=0.0)
    other = init_state(state.network.config, CIFAR, torch.device("cpu"))
    pruning = Pruning(dict.fromkeys(DENSITIES, 1.0))
    update: Callable[[int, int, float], None] = lambda n, of, _: pruning.update(state, n / of)  # noqa: E731
    train_network(state, tiny, recipe, "f32", Callbacks(on_step=update))
    train_network(other, tiny, recipe, "f32", Callbacks())
    for name, tensor in other.network.state_dict().items():
        assert torch.equal(state.network.state_dict()[name], tensor), name
