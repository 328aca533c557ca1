"""Fine-tuning: fc8 is drawn anew, everything else is kept."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.alexnet import AlexNet
from model.architectures import VARIANTS
from model.checkpoint import Weights, load_weights, save_weights
from model.config import AlexNetConfig
from training.config import CIFAR, PAPER, Recipe, RecipeError, finetune_config
from training.data import load_validation_squares
from training.dataset.prepare import PreparedDataset
from training.state import init_from_weights, init_state

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


@pytest.mark.parametrize(
    ("ours", "asked"),
    [("cifar", "cifar-lrn"), ("cifar", "cifar-tanh"), ("cifar", "cifar-24"), ("cifar", "one-gpu")],
)
def test_a_variant_that_is_not_the_weights_is_refused(
    made: Make, tiny: PreparedDataset, ours: str, asked: str
) -> None:
    weights = made(VARIANTS[ours].config, tiny)
    with pytest.raises(RecipeError, match=f"--variant {asked} does not go with --from"):
        finetune_config(weights, replace(PAPER, variant=asked), 3)
    assert finetune_config(weights, replace(PAPER, variant=ours), 3).classes == 3


@pytest.fixture
def small_weights(made: Make, tiny: PreparedDataset, tmp_path: Path) -> Path:
    """Weights of the paper's layers for five classes, at the smallest crop."""
    config = AlexNetConfig(classes=5, side=72, crop=67, input_scale=60.0)
    path = tmp_path / "five.safetensors"
    save_weights(made(config, replace(tiny, mean=torch.full((3, 72, 72), 120.0))), path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("towers", ["1", "2"])
def test_a_tiny_rate_leaves_the_kept_layers_as_they_were(
    run_training: RunTraining,
    small_weights: Path,
    tmp_path: Path,
    towers: str,
) -> None:
    home = tmp_path / "home"
    words = ["--from", small_weights, "--towers", towers, "--batch", "12", "--epochs", "1"]
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
@pytest.mark.parametrize("towers", ["1", "2"])
def test_frozen_convolutions_stay_as_they_are_and_the_rest_learns(
    run_training: RunTraining, small_weights: Path, tmp_path: Path, towers: str
) -> None:
    home = tmp_path / "home"
    words = ["--from", small_weights, "--towers", towers, "--batch", "12", "--epochs", "1"]
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


@pytest.mark.parametrize("variant", ["tanh", "one-gpu"])
def test_the_command_refuses_another_variant_in_one_line(
    run_training: RunTraining, small_weights: Path, tmp_path: Path, variant: str
) -> None:
    home = tmp_path / "home"
    _, errors = run_training(home, "--from", small_weights, "--variant", variant, code=2)
    (line,) = errors.splitlines()
    assert f"--variant {variant}" in line
    assert not home.exists()
