"""Fine-tuning: fc8 is drawn anew, everything else is kept."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from model.network.alexnet import AlexNet, match_lrn_to_he_start
from model.network.architectures import VARIANTS
from model.network.config import AlexNetConfig
from model.network.paper_layers import count_features
from model.weights.checkpoint import Weights, list_network_shapes, load_weights, save_weights
from tests.narrow_networks import narrow_network
from training.batches.batches import load_validation_squares
from training.dataset.prepare import PreparedDataset
from training.optimisation.start import StartLayers, fits, init_from_weights
from training.optimisation.state import TrainingState, init_state
from training.recipe.config import (
    CIFAR,
    FINETUNE,
    FINETUNE_2012,
    PAPER,
    Recipe,
    RecipeError,
    finetune_config,
    fit_finetuning,
)
from training.recipe.options import parse_options
from training.recipe.schedule import compute_group_rates

CPU = torch.device("cpu")
RunTraining = Callable[..., tuple[str, str]]
Make = Callable[[AlexNetConfig, PreparedDataset], Weights]


@pytest.fixture(scope="session")
def made(weights_of: Callable[..., Weights]) -> Make:
    """Make weights of other classes, every number of them drawn."""

    def make(config: AlexNetConfig, data: PreparedDataset) -> Weights:
        generator = torch.Generator().manual_seed(5)
        state = {
            name: torch.randn(tensor.shape, generator=generator) * 0.01
            for name, tensor in AlexNet(config).state_dict().items()
        }
        return weights_of(config, mean=data.mean, pca=data.pca, state=state)

    return make


@pytest.mark.parametrize("variant", ["cifar", "cifar-lrn-24"])
def test_only_the_last_layer_is_drawn_anew(made: Make, tiny: PreparedDataset, variant: str) -> None:
    weights = made(replace(VARIANTS[variant].config, classes=22), tiny)
    config = finetune_config(weights, PAPER, 3)
    assert config == replace(weights.config, classes=3)
    state, drawn = (
        init_state(config, CIFAR, CPU),
        init_state(config, CIFAR, CPU).network.state_dict(),
    )
    init_from_weights(weights, state)
    for name, tensor in state.network.state_dict().items():
        expected = drawn[name] if name.startswith("fc10.") else weights.state[name]
        assert torch.equal(tensor, expected), name
    assert state.network.get_parameter("fc10.weight").shape[0] == 3


def test_scale_and_dropout_are_those_that_the_kept_layers_learned_with(
    made: Make, tiny: PreparedDataset
) -> None:
    weights = made(replace(VARIANTS["cifar"].config, input_scale=60.0, dropout=0.25), tiny)
    assert finetune_config(weights, PAPER, 3).input_scale == 60.0
    assert finetune_config(weights, PAPER, 3).dropout == 0.25
    assert finetune_config(weights, replace(PAPER, dropout=0.5), 3).dropout == 0.5


def test_imported_weights_see_photographs_as_their_authors_had_them(
    made: Make, tiny: PreparedDataset
) -> None:
    theirs = replace(
        VARIANTS["cifar"].config, resize="warp", input_scale=255.0, channel_scales=(0.2, 0.3, 0.4)
    )
    config = finetune_config(made(theirs, tiny), replace(PAPER, variant="cifar"), 3)
    assert (config.resize, config.channel_scales) == ("warp", (0.2, 0.3, 0.4))
    augmentation = PAPER.augmentation(config)
    batch = next(load_validation_squares(tiny, augmentation, size=4))
    pixels = torch.from_numpy(tiny.val.read(np.arange(4))).permute(0, 3, 1, 2)
    divisors = 255 * torch.tensor([0.2, 0.3, 0.4])[:, None, None]
    torch.testing.assert_close(batch.x, (pixels - tiny.mean) / divisors)


def start(
    made: Make, data: PreparedDataset, ours: str, recipe: Recipe
) -> tuple[Weights, TrainingState, StartLayers]:
    """Start a network of the recipe's from weights of another variant."""
    weights = made(replace(VARIANTS[ours].config, classes=22), data)
    state = init_state(finetune_config(weights, recipe, 3), recipe, CPU)
    return weights, state, init_from_weights(weights, state, recipe.from_layers)


def test_another_network_takes_the_layers_that_fit_by_name_and_shape(
    made: Make, tiny: PreparedDataset
) -> None:
    recipe = replace(CIFAR, variant="cifar-lrn", seed=8)
    weights, state, found = start(made, tiny, "cifar", recipe)
    # The other net has 64 local kernels where this one has 32.
    assert found.kept == ("conv1", "conv2")
    assert found.new == ("local3", "local4", "fc10")
    assert found.unused == ("local3", "local4")
    drawn = init_state(state.network.config, recipe, CPU).network.state_dict()
    for name, tensor in state.network.state_dict().items():
        expected = weights.state[name] if name.startswith("conv") else drawn[name]
        assert torch.equal(tensor, expected), name
    assert "Kept conv1, conv2" in found.describe()
    assert "new: local3" in found.describe()


def test_only_the_layers_that_are_named_are_taken(made: Make, tiny: PreparedDataset) -> None:
    recipe = replace(CIFAR, variant="cifar", from_layers=("conv1", "local3"))
    _, _, found = start(made, tiny, "cifar", recipe)
    assert found.kept == ("conv1", "local3")
    for wanted in ("fc10", "conv9"):
        with pytest.raises(RecipeError, match=f"--from-layers: {wanted} cannot be taken"):
            start(
                made, tiny, "cifar", replace(CIFAR, variant="cifar", from_layers=("conv1", wanted))
            )


def test_a_network_whose_first_layer_differs_is_refused(made: Make, tiny: PreparedDataset) -> None:
    with pytest.raises(RecipeError, match="their conv1 does not fit; leave --variant out"):
        start(made, tiny, "cifar", replace(PAPER, variant="torchvision", from_layers=()))


def test_conv6_and_a_bottleneck_are_added_to_what_is_kept() -> None:
    weights_config = replace(VARIANTS["paper"].config, classes=5, input_scale=4.0, init="he")
    with torch.device("meta"):
        theirs = AlexNet(match_lrn_to_he_start(weights_config)).state_dict()
    header = SimpleNamespace(config=match_lrn_to_he_start(weights_config), state=theirs)
    recipe = replace(FINETUNE, variant="conv6", bottleneck=1024)
    config = finetune_config(header, recipe, 7)  # type: ignore[arg-type]
    assert (config.conv6, config.bottleneck, config.input_scale) == (True, 1024, 4.0)
    assert config.lrn_alpha_factors == header.config.lrn_alpha_factors
    shapes = list_network_shapes(config)
    assert shapes["linear1.weight"] == (1024, 4096)
    assert shapes["linear2.weight"] == (1024, 1024)
    assert shapes["fc8.weight"] == (7, 1024)
    assert count_features(config) == 4096
    kept = [layer for layer in ("conv1", "conv5", "fc6", "fc7") if fits(layer, header, shapes)]  # type: ignore[arg-type]
    assert kept == ["conv1", "conv5", "fc6", "fc7"]


def test_layers_learn_at_rates_of_their_own(made: Make, tiny: PreparedDataset) -> None:
    recipe = replace(CIFAR, bias_rate=None, rate=0.5, layer_rates=("conv1=0.1", "local4=0"))
    _, state, _ = start(made, tiny, "cifar", recipe)
    held = {group["name"]: len(group["params"]) for group in state.sgd.param_groups}
    assert held == {
        **{"conv1": 1, "conv1 bias": 1, "conv": 1, "dense": 2, "bias": 3},
        **{"local4": 1, "local4 bias": 1},
    }
    rates = compute_group_rates([], recipe)
    assert (rates["conv1"], rates["conv"], rates["local4"]) == (0.05, 0.5, 0.0)
    assert rates["local4 bias"] == 0.0
    before = {name: p.detach().clone() for name, p in state.network.named_parameters()}
    state.sgd.set_rates(rates)
    for parameter in state.network.parameters():
        parameter.grad = torch.ones_like(parameter)
    state.sgd.step()
    for name, parameter in state.network.named_parameters():
        layer = name.split(".")[0]
        moved = float((before[name] - parameter.detach()).abs().max())
        expected = {"conv1": 0.05, "local4": 0.0}.get(layer, 0.5)
        assert moved == pytest.approx(expected, rel=0.02, abs=1e-9), name
    with pytest.raises(RecipeError, match="--layer-rates names fc8"):
        init_state(VARIANTS["cifar"].config, replace(CIFAR, layer_rates=("fc8=2",)), CPU)


@pytest.mark.parametrize("rate", ["conv1", "conv1=", "=2", "conv1=x", "conv1=-1", "conv1=1e999"])
def test_a_rate_that_is_none_is_refused(rate: str) -> None:
    with pytest.raises(RecipeError, match="--layer-rates cannot be"):
        replace(PAPER, layer_rates=(rate,))


def test_the_schedule_of_2012_stretches_with_the_run() -> None:
    # ORIGINAL.md: conv1 at 1e-4, the others at 1e-3, fc8 at 0.01 to epoch 9; conv1 frozen at 7;
    # divided by ten at 22 and at 42; colour noise off at 38.
    whole = [compute_group_rates([0.5] * done, FINETUNE_2012) for done in range(50)]
    assert whole[0]["conv1"] == pytest.approx(1e-4)
    assert [rates["conv1"] == 0 for rates in whole] == [done >= 7 for done in range(50)]
    assert [rates["fc8"] for rates in whole[8:10]] == pytest.approx([0.01, 0.001])
    for epoch, rate in ((0, 1e-3), (21, 1e-3), (22, 1e-4), (41, 1e-4), (42, 1e-5)):
        assert whole[epoch]["dense"] == pytest.approx(rate)
    assert fit_finetuning(50) == FINETUNE_2012
    tenth = fit_finetuning(5)
    assert (tenth.drop_after, tenth.freeze_conv1_after) == ((2, 4), 1)
    assert parse_options(["--preset", "finetune", "--epochs", "5"]).recipe == tenth
    longer = parse_options(["--preset", "finetune", "--epochs", "100", "--rate", "0.002"]).recipe
    assert longer == replace(fit_finetuning(100), rate=0.002)
    for epochs in range(1, 9):
        assert fit_finetuning(epochs).epochs == epochs


@pytest.fixture
def small_weights(made: Make, tiny: PreparedDataset, tmp_path: Path) -> Path:
    """Narrow weights of the paper's layers for five classes, at the smallest crop."""
    config = narrow_network(AlexNetConfig(classes=5, side=72, crop=67, input_scale=60.0))
    path = tmp_path / "five.safetensors"
    save_weights(made(config, replace(tiny, mean=torch.full((3, 72, 72), 120.0))), path)
    return path


@pytest.mark.slow
def test_a_tiny_rate_leaves_the_kept_layers_as_they_were(
    run_training: RunTraining, small_weights: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    words = ["--from", small_weights, "--batch", "12", "--epochs", "1"]
    run_training(home, *words, "--seed", "4", "--rate", "1e-35", "--precision", "f32")
    before, after = load_weights(small_weights), load_weights(home / "weights.safetensors")
    assert after.config.classes == len(after.classes) == 3
    drawn = init_state(after.config, Recipe(seed=4), CPU).network.state_dict()
    for name, tensor in after.state.items():
        expected = drawn[name] if name.startswith("fc8.") else before.state[name]
        # The rate is not zero, so a zero may change.
        torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-30)
    (run,) = (home / "runs").glob("*/run.json")
    description = json.loads(run.read_text())
    assert description["from"] == before.identity
    assert description["start_file"] == str(small_weights)


@pytest.mark.slow
def test_frozen_convolutions_stay_as_they_are_and_the_rest_learns_in_two_towers(
    run_training: RunTraining, small_weights: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    words = ["--from", small_weights, "--towers", "2", "--batch", "12", "--epochs", "1"]
    run_training(home, *words, "--freeze-conv", "--no-ten-crops", "--precision", "f32")
    before, after = load_weights(small_weights), load_weights(home / "weights.safetensors")
    for name, tensor in after.state.items():
        if not name.startswith("fc8."):
            assert torch.equal(tensor, before.state[name]) == name.startswith("conv"), name
    assert after.provenance.top1_error is not None
    assert after.provenance.ten_crop_top1_error is None


def test_frozen_layers_get_no_gradient_and_no_velocity(made: Make, tiny: PreparedDataset) -> None:
    recipe = replace(CIFAR, freeze_conv=True)
    state = init_state(replace(VARIANTS["cifar-lrn"].config, classes=3), recipe, CPU)
    learning = {n for n, p in state.network.named_parameters() if p.requires_grad}
    assert learning
    assert all(name.startswith("fc") for name in learning)
    held = sum(len(group["params"]) for group in state.sgd.param_groups)
    assert held == len(learning)


def test_nothing_to_freeze_without_weights_to_start_from(
    run_training: RunTraining, tmp_path: Path
) -> None:
    _, errors = run_training(tmp_path / "home", "--freeze-conv", "--variant", "cifar", code=2)
    (line,) = errors.splitlines()
    assert "--from" in line


def test_the_command_refuses_another_network_in_one_line(
    run_training: RunTraining, small_weights: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    _, errors = run_training(home, "--from", small_weights, "--variant", "torchvision", code=2)
    (line,) = errors.splitlines()
    assert "conv1 does not fit" in line
    assert not home.joinpath("runs").exists()
