"""Fine-tuning: fc8 is drawn anew, everything else is kept."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.alexnet import AlexNet
from model.architectures import VARIANTS
from model.checkpoint import Weights, load_weights, save_weights
from model.config import AlexNetConfig
from training.config import CIFAR, PAPER, Recipe, RecipeError, finetune_config
from training.dataset.prepare import Prepared
from training.state import init_from, init_state

CPU = torch.device("cpu")
Begin = Callable[..., subprocess.Popen[str]]
End = Callable[..., tuple[str, str]]
Make = Callable[[AlexNetConfig, Prepared], Weights]


@pytest.fixture(scope="session")
def made(weights_of: Callable[..., Weights]) -> Make:
    """Make weights of other classes, every number of them drawn."""

    def make(config: AlexNetConfig, data: Prepared) -> Weights:
        generator = torch.Generator().manual_seed(5)
        state = {
            name: torch.randn(tensor.shape, generator=generator) * 0.01
            for name, tensor in AlexNet(config).state_dict().items()
        }
        return weights_of(config, mean=data.mean, pca=data.pca, state=state)

    return make


@pytest.mark.parametrize("variant", ["cifar", "cifar-lrn-24"])
def test_only_the_last_layer_is_drawn_anew(made: Make, tiny: Prepared, variant: str) -> None:
    weights = made(replace(VARIANTS[variant].config, classes=22), tiny)
    config = finetune_config(weights, PAPER, 3)
    assert config == replace(weights.config, classes=3)
    state, drawn = (
        init_state(config, CIFAR, CPU),
        init_state(config, CIFAR, CPU).network.state_dict(),
    )
    init_from(weights, state)
    for name, tensor in state.network.state_dict().items():
        expected = drawn[name] if name.startswith("fc10.") else weights.state[name]
        assert torch.equal(tensor, expected), name
    assert state.network.get_parameter("fc10.weight").shape[0] == 3


def test_scale_and_dropout_are_those_that_the_kept_layers_learned_with(
    made: Make, tiny: Prepared
) -> None:
    weights = made(replace(VARIANTS["cifar"].config, input_scale=60.0, dropout=0.25), tiny)
    assert finetune_config(weights, PAPER, 3).input_scale == 60.0
    assert finetune_config(weights, PAPER, 3).dropout == 0.25
    assert finetune_config(weights, replace(PAPER, dropout=0.5), 3).dropout == 0.5


@pytest.mark.parametrize(
    ("ours", "asked"),
    [("cifar", "cifar-lrn"), ("cifar", "cifar-tanh"), ("cifar", "cifar-24"), ("cifar", "one-gpu")],
)
def test_a_variant_that_is_not_the_weights_is_refused(
    made: Make, tiny: Prepared, ours: str, asked: str
) -> None:
    weights = made(VARIANTS[ours].config, tiny)
    with pytest.raises(RecipeError, match=f"--variant {asked} does not go with --from"):
        finetune_config(weights, replace(PAPER, variant=asked), 3)
    assert finetune_config(weights, replace(PAPER, variant=ours), 3).classes == 3


@pytest.fixture(scope="module")
def whole(made: Make, prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the paper's network for five classes."""
    path = tmp_path_factory.mktemp("weights") / "five.safetensors"
    save_weights(made(AlexNetConfig(classes=5, input_scale=60.0), prepared), path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("towers", ["1", "2"])
def test_a_rate_of_next_to_nothing_leaves_the_kept_layers_as_they_were(
    begin: Begin, end: End, whole: Path, tmp_path: Path, towers: str
) -> None:
    words = ["--from", whole, "--towers", towers, "--batch", "12", "--epochs", "1", "--seed", "4"]
    end(begin(tmp_path, *words, "--rate", "1e-35", "--precision", "f32"))
    before, after = load_weights(whole), load_weights(tmp_path / "weights.safetensors")
    assert after.config.classes == len(after.classes) == 3
    recipe = Recipe(seed=4)
    drawn = init_state(after.config, recipe, CPU).network.state_dict()
    for name, tensor in after.state.items():
        expected = drawn[name] if name.startswith("fc8.") else before.state.get(name)
        assert expected is not None
        # Beside a zero even next to nothing is something.
        torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-30)
    (run,) = (tmp_path / "runs").glob("*/run.json")
    told = json.loads(run.read_text())
    assert (told["from"], told["start_file"]) == (before.identity, str(whole))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "said"),
    [("tanh", "--variant tanh does not go"), ("one-gpu", "--variant one-gpu does not go")],
)
def test_the_command_refuses_another_variant_in_one_line(
    begin: Begin, end: End, whole: Path, tmp_path: Path, variant: str, said: str
) -> None:
    _, errors = end(begin(tmp_path, "--from", whole, "--variant", variant), 2)
    assert said in errors
    assert len(errors.splitlines()) == 1
    assert list(tmp_path.rglob("*")) == []
