"""The recipes that experiments are run with, by kind of data, and the networks they compare."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from experiments.claims.experiment import Contrast, DataKind, MakeArms, Setting
from model.network.architectures import VARIANTS
from model.network.config import AlexNetConfig
from model.network.definition import DEFINED, describe_definition
from model.network.layers import Conv, Dense, Drop, Layer
from model.network.paper_layers import list_layers
from training.recipe.config import FIGURE_1, ORIGINAL, PAPER, SMALL, Recipe, fit_cifar

CIFAR_IMAGES, CIFAR_EPOCHS = 10_000, 10
CIFAR_TEST_IMAGES = 2500
"""Of 10,000: to test them all on nine crops would take as long as to train a short run."""
CIFAR_DROPS = (0.8, 0.9)
"""Shares of a short run on CIFAR-10 after which the rate is divided by ten."""
Changes = Mapping[str, Mapping[str, Any]]
"""By arm, the values of its recipe that differ from the others'."""


def fit_short_cifar(variant: str, epochs: int) -> Recipe:
    """Return the authors' recipe for CIFAR-10 in so many epochs, all on the same images.

    The images that they first held out are not trained on later: the experiments hold out others.
    """
    return replace(
        fit_cifar(variant, epochs),
        hold_out=0.0,
        hold_out_until=None,
        drop_after=tuple(sorted({max(1, round(share * epochs)) for share in CIFAR_DROPS})),
    )


def make_cifar_arms(changes: Mapping[str, tuple[str, Mapping[str, Any]]]) -> MakeArms:
    """Make the arms of four-layer nets on CIFAR-10: each a variant, and changes of its recipe."""

    def make(epochs: int) -> Mapping[str, Recipe]:
        return {
            name: replace(fit_short_cifar(variant, epochs), **changed)
            for name, (variant, changed) in changes.items()
        }

    return make


def cifar_setting(changes: Mapping[str, tuple[str, Mapping[str, Any]]], **more: Any) -> Setting:
    """Set an experiment on CIFAR-10 with the authors' four-layer nets, on a fifth of the images."""
    defaults = {"epochs": CIFAR_EPOCHS, "seeds": 5, "minutes": 60, "images": CIFAR_IMAGES}
    parts = {"held_out": 5, "sample": 1000, "test_images": CIFAR_TEST_IMAGES}
    return Setting(make_arms=make_cifar_arms(changes), **(defaults | parts | more))


def make_photograph_arms(base: Recipe, changes: Changes) -> MakeArms:
    """Make the arms of the whole network: the recipe, and changes of it."""

    def make(epochs: int) -> Mapping[str, Recipe]:
        return {
            name: replace(base, **({"epochs": epochs} | dict(own))) for name, own in changes.items()
        }

    return make


def imagenette_setting(changes: Changes, base: Recipe = SMALL, **more: Any) -> Setting:
    """Set an experiment on some thousand photographs, with the preset `small`."""
    defaults = {"epochs": 20, "seeds": 2, "minutes": 150}
    return Setting(make_arms=make_photograph_arms(base, changes), **(defaults | more))


def imagenet_setting(changes: Changes, base: Recipe = PAPER, **more: Any) -> Setting:
    """Set an experiment on ImageNet, with the paper's recipe."""
    defaults = {"epochs": 90, "seeds": 1, "minutes": 100_000, "held_out": 100}
    return Setting(make_arms=make_photograph_arms(base, changes), **(defaults | more))


def pair(more: str, less: str) -> tuple[Contrast, ...]:
    """Return the only contrast of a claim: by the claim, the first arm has more."""
    return (Contrast(more=more, less=less),)


def photograph_settings(changes: Changes, **more: Any) -> dict[DataKind, Setting]:
    """Return the settings on Imagenette and, with the paper's recipe, on ImageNet."""
    return {
        "imagenette": imagenette_setting(changes, **more),
        "imagenet": imagenet_setting(changes),
    }


def make_figure_1_arms(epochs: int) -> Mapping[str, Recipe]:
    """Make the arms of Figure 1: the four-layer net, without any regularisation."""
    relu = replace(FIGURE_1, epochs=epochs, patience=epochs)
    return {"ReLU": relu, "tanh": replace(relu, variant="cifar-tanh")}


def define_network(config: AlexNetConfig, layers: list[Layer], dropout: float) -> dict[str, Any]:
    """Return the values of a recipe that trains a network of these layers."""
    defined = AlexNetConfig(
        net="defined",
        layers=tuple(layers),
        classes=config.classes,
        side=config.side,
        crop=config.crop,
        test_crops=config.test_crops,
        dropout=dropout,
    )
    return {"variant": DEFINED, "definition": describe_definition(defined)}


def define_cifar_without_overlap() -> dict[str, Any]:
    """Define the four-layer net with pooling of z = 2, s = 2."""
    config = VARIANTS["cifar-24"].config
    return define_network(config, list_layers(replace(config, overlapping=False)), 0.0)


def define_cifar_with_dropout() -> dict[str, Any]:
    """Define the four-layer net with dropout of what its fully connected layer sees.

    The paper drops fc6's and fc7's neurons, which the four-layer net lacks.
    """
    config = VARIANTS["cifar-24"].config
    *layers, last = list_layers(config)
    return define_network(config, [*layers, Drop("drop", 0.5), last], 0.5)


def define_start(*, biases: bool = True, sigma: float | None = None) -> dict[str, Any]:
    """Define the paper's network with another start.

    biases: whether those of conv2, conv4, conv5, fc6 and fc7 start at one. sigma: the deviation of
    the initial weights of conv3 to conv5; None: the paper's.
    """
    layers = [change_start(one, biases=biases, sigma=sigma) for one in list_layers(AlexNetConfig())]
    return define_network(AlexNetConfig(), layers, 0.5)


def change_start(layer: Layer, *, biases: bool, sigma: float | None) -> Layer:
    """Return a layer with another start, as `define_start` has it."""
    if isinstance(layer, Conv | Dense) and not biases:
        layer = replace(layer, bias=0.0)
    if isinstance(layer, Conv) and sigma is not None and layer.name in ("conv3", "conv4", "conv5"):
        layer = replace(layer, sigma=sigma)
    return layer


TOWERS: Changes = {
    "two towers": {},
    "one half": {"variant": "one-gpu"},
    "towers apart": {"variant": "separate-towers"},
}
"""The networks of two GPUs that differ in how these exchange maps, and that of one."""
APART, ONE_TOWER = ("separate-towers", "original-150"), ("one-gpu",)
"""Variants whose towers never meet before fc6; and those of one tower, half as large."""
AS_RUN: Mapping[str, Mapping[str, Any]] = {
    "network": {"variant": "original"},
    "biases": {"bias_rate": ORIGINAL.bias_rate, "bias_decay": ORIGINAL.bias_decay},
    "colours": {"colour": ORIGINAL.colour},
    "crops shared by 32": {"sharing": ORIGINAL.sharing, "all_offsets": ORIGINAL.all_offsets},
    "fixed order": {"fixed_order": ORIGINAL.fixed_order},
}
"""What was done in 2012 otherwise than the paper says, each part alone."""
