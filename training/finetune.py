"""Start from weights of other classes: the last layer anew, the rest kept (Table 2's last rows)."""

from dataclasses import replace

from model.alexnet import AlexNetConfig
from model.checkpoint import Weights
from model.variants import VARIANTS
from training.config import PAPER, Recipe, RecipeError
from training.state import TrainingState


def finetune_config(weights: Weights, recipe: Recipe, classes: int) -> AlexNetConfig:
    """The network of the weights, for other classes.

    Its variant, its pixels' scale and its dropout are the weights' own, since the layers kept
    learned with them. Raises RecipeError when the recipe names another variant.
    """
    named = VARIANTS[recipe.variant].config
    if recipe.variant != PAPER.variant and layers_of(named) != layers_of(weights.config):
        raise RecipeError(
            f"--variant {recipe.variant} does not go with --from: those weights are of another "
            f"network of the list {weights.config.net}; leave --variant out"
        )
    dropout = weights.config.dropout if recipe.dropout is None else recipe.dropout
    return replace(weights.config, classes=classes, dropout=dropout)


def layers_of(config: AlexNetConfig) -> AlexNetConfig:
    """What of a configuration the layers kept depend on."""
    return replace(config, classes=1000, dropout=0.0, init="paper", input_scale=1.0)


def init_from(weights: Weights, state: TrainingState) -> None:
    """Put the weights into a fresh state, but for the last layer's, which stay as drawn."""
    mesh, config = state.mesh, state.network.config
    last = state.network.layers[-1].name
    kept = {k: v for k, v in weights.state.items() if not k.startswith(f"{last}.")}
    missing, odd = state.network.load_state_dict(mesh.split(kept, config), strict=False)
    assert not odd
    assert all(name.startswith(f"{last}.") for name in missing)
