"""Where training starts from: the layers of other weights, by name and shape."""

from collections.abc import Collection
from dataclasses import dataclass

from model.weights.checkpoint import Weights, list_network_shapes
from training.optimisation.state import TrainingState
from training.recipe.config import RecipeError


@dataclass(frozen=True, kw_only=True)
class StartLayers:
    """What became of the layers of a network that starts from weights.

    kept: taken from the weights. new: drawn. unused: of the weights only.
    """

    kept: tuple[str, ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]

    def describe(self) -> str:
        """Return a sentence for the terminal."""
        parts = [f"Kept {', '.join(self.kept)}", f"new: {', '.join(self.new)}"]
        if self.unused:
            parts.append(f"not used: {', '.join(self.unused)}")
        return "; ".join(parts) + "."


def init_from_weights(
    weights: Weights, state: TrainingState, wanted: Collection[str] = ()
) -> StartLayers:
    """Copy the layers of other weights that have the same name and shapes into a fresh state.

    wanted: the layers to copy; empty: all that fit. The last layer keeps its initial weights, since
    it stands for other classes (fine-tuning, as for the last rows of Table 2). Raises RecipeError
    if a layer that is wanted is missing or of another shape, or if the first does not fit.
    """
    config = state.network.config
    shapes = list_network_shapes(config)
    last = state.network.layers[-1].name
    layers = list(dict.fromkeys(name.rsplit(".", 1)[0] for name in shapes))
    theirs = dict.fromkeys(name.rsplit(".", 1)[0] for name in weights.state)
    fitting = [layer for layer in layers if layer != last and fits(layer, weights, shapes)]
    if unfit := [layer for layer in wanted if layer not in fitting]:
        raise RecipeError(
            f"--from-layers: {', '.join(unfit)} cannot be taken from these weights; what fits is "
            f"{', '.join(fitting) or 'nothing'}"
        )
    if layers[0] not in fitting:
        raise RecipeError(
            f"the weights to start from belong to another network, of the architecture "
            f"{weights.config.net}: their {layers[0]} does not fit; leave --variant out to train "
            "their network"
        )
    kept = [layer for layer in fitting if not wanted or layer in wanted]
    reused = {
        name: tensor for name, tensor in weights.state.items() if name.rsplit(".", 1)[0] in kept
    }
    state.network.load_state_dict(state.mesh.split(reused, config), strict=False)
    return StartLayers(
        kept=tuple(kept),
        new=tuple(layer for layer in layers if layer not in kept),
        unused=tuple(layer for layer in theirs if layer not in kept and layer != last),
    )


def fits(layer: str, weights: Weights, shapes: dict[str, tuple[int, ...]]) -> bool:
    """Whether weights have all tensors of a layer, in its shapes."""
    names = [name for name in shapes if name.rsplit(".", 1)[0] == layer]
    return all(
        name in weights.state and tuple(weights.state[name].shape) == shapes[name] for name in names
    )
