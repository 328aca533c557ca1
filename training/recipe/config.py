"""The training recipe of §4 and §5 as one frozen dataclass, and its presets."""

from dataclasses import dataclass, replace
from typing import Literal

from model.network.alexnet import match_lrn_to_he_start
from model.network.architectures import VARIANTS
from model.network.config import AlexNetConfig, ConfigError
from model.network.definition import DEFINED, parse_definition
from model.weights.checkpoint import Weights
from storage.recipe import RecipeFields
from training.batches.augment import Augmentation
from training.recipe.layer_values import LAYER_VALUES, check_layer_values, parse_layer_values


class RecipeError(ValueError):
    """A value that a run cannot be trained with."""


@dataclass(frozen=True, kw_only=True)
class Recipe(RecipeFields):
    """How weights are learned. The defaults are the paper's (storage/recipe.py).

    Raises RecipeError for a value out of range, naming its flag.
    """

    def __post_init__(self) -> None:
        # JSON and the command line give lists.
        for name in ("drop_after", "from_layers", *LAYER_VALUES):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        infinity = float("inf")
        checks = {
            "variant": self.variant in VARIANTS
            or (self.variant == DEFINED and bool(self.definition)),
            "definition": self.variant == DEFINED or not self.definition,
            "epochs": self.epochs >= 1,
            "batch": self.batch >= 1,
            "rate": 0 < self.rate < infinity,
            "smoothing": 0 <= self.smoothing < 1,
            "schedule": self.schedule in ("plateau", "cosine", "linear", "exponential"),
            "fall": 1 <= self.fall < infinity,
            "warmup": self.warmup >= 0,
            "crops": self.crops in ("offsets", "areas"),
            "smallest_area": 0 < self.smallest_area <= 1,
            "bias_rate": self.bias_rate is None or 0 < self.bias_rate < infinity,
            "layer_rates": check_layer_values(self.layer_rates),
            "layer_bias_rates": check_layer_values(self.layer_bias_rates),
            "layer_decays": check_layer_values(self.layer_decays),
            "layer_momenta": check_layer_values(self.layer_momenta, 1, biases=True),
            "hold_out": 0 <= self.hold_out < 1,
            "hold_out_until": self.hold_out_until is None or self.hold_out_until >= 1,
            "layer_rates_until": self.layer_rates_until is None or self.layer_rates_until >= 1,
            "bottleneck": self.bottleneck >= 0 and self.bottleneck % 2 == 0,
            "momentum": 0 <= self.momentum < 1,
            "decay": 0 <= self.decay < infinity,
            "conv_decay": self.conv_decay is None or 0 <= self.conv_decay < infinity,
            "drops": self.drops >= 0,
            "patience": self.patience >= 1,
            "drop_after": list(self.drop_after) == sorted({n for n in self.drop_after if n > 0}),
            "drop_bias_rate_after": self.drop_bias_rate_after is None
            or self.drop_bias_rate_after >= 1,
            "slow_conv1_after": self.slow_conv1_after is None or self.slow_conv1_after >= 1,
            "freeze_conv1_after": self.freeze_conv1_after is None or self.freeze_conv1_after >= 1,
            "colour_until": self.colour_until is None or self.colour_until >= 0,
            "colour_noise": 0 <= self.colour_noise < infinity,
            "sharing": self.sharing >= 1,
            "dropout": self.dropout is None or 0 <= self.dropout < 1,
            "input_scale": 0 < self.input_scale < infinity,
            "seed": 0 <= self.seed < 2**63,
        }
        for name, good in checks.items():
            if not good:
                flag, value = name.replace("_", "-"), getattr(self, name)
                known = f"; choose from {', '.join(VARIANTS)}" if name == "variant" else ""
                raise RecipeError(f"--{flag} cannot be {value}{known}")

    def rate_factors(self) -> dict[str, float]:
        """Return what the learning rate is multiplied by in the layers of `layer_rates`."""
        return parse_layer_values(self.layer_rates)

    def own_layers(self) -> tuple[str, ...]:
        """Return the layers with a rate, a weight decay or a momentum of their own."""
        named = [
            name for field in LAYER_VALUES for name in parse_layer_values(getattr(self, field))
        ]
        return tuple(dict.fromkeys(name.removesuffix(".bias") for name in named))

    def held_out(self, epoch: int) -> float:
        """Return the share of the training images that is held out in an epoch, from 1."""
        until = self.hold_out_until
        return self.hold_out if until is None or epoch <= until else 0.0

    def base_network(self) -> AlexNetConfig:
        """Return the configuration of the variant, or of the definition, as it is by itself.

        Raises RecipeError for a definition that no network can be built of.
        """
        if self.variant != DEFINED:
            return VARIANTS[self.variant].config
        try:
            return parse_definition(self.definition)
        except ConfigError as error:
            raise RecipeError(f"--definition: {error}") from error

    def network(self, classes: int) -> AlexNetConfig:
        """Return the configuration of the network that this recipe trains."""
        config = self.base_network()
        config = replace(
            config,
            classes=classes,
            dropout=config.dropout if self.dropout is None else self.dropout,
            init=self.init,
            input_scale=self.input_scale,
            bottleneck=self.bottleneck,
        )
        return match_lrn_to_he_start(config) if self.init == "he" else config

    def augmentation(self, config: AlexNetConfig, epoch: int = 1) -> Augmentation:
        """Return how training images are augmented in an epoch, counted from 1."""
        noisy = self.colour_until is None or epoch <= self.colour_until
        return Augmentation(
            crop=config.crop,
            smallest_area=self.smallest_area if self.crops == "areas" else None,
            sharing=self.sharing,
            inclusive=self.all_offsets,
            mirrors=self.mirrors,
            colour_noise=self.colour_noise if noisy else 0.0,
            colour=self.colour,
            input_scale=config.input_scale,
            channel_scales=config.channel_scales,
        )


def finetune_config(weights: Weights, recipe: Recipe, classes: int) -> AlexNetConfig:
    """Return the configuration for training `weights` further on other classes (--from).

    The network is that of the weights, or the variant that the recipe names, whose layers take what
    fits them (training/optimisation/start.py). Images are made and scaled as for the weights, with
    which the kept layers were trained, and dropout is theirs unless the recipe sets another.
    """
    ours, named = weights.config, recipe.base_network()
    config = replace(
        ours,
        classes=classes,
        dropout=ours.dropout if recipe.dropout is None else recipe.dropout,
        bottleneck=recipe.bottleneck or ours.bottleneck,
    )
    if recipe.variant == PAPER.variant or without_training_fields(named) == without_training_fields(
        ours
    ):
        return config
    config = replace(
        named,
        classes=classes,
        dropout=config.dropout,
        bottleneck=recipe.bottleneck,
        init=ours.init,
        resize=ours.resize,
        input_scale=ours.input_scale,
        channel_scales=ours.channel_scales,
    )
    return match_lrn_to_he_start(config) if ours.init == "he" else config


def without_training_fields(config: AlexNetConfig) -> AlexNetConfig:
    """Reduce a configuration to what determines its layers, without the outputs."""
    return replace(
        config,
        classes=1000,
        bottleneck=0,
        dropout=0.0,
        init="paper",
        resize="bicubic",
        input_scale=1.0,
        channel_scales=(),
        lrn_alpha_factors=(),
        test_crops="ten",
    )


PAPER = Recipe()
ORIGINAL = Recipe(
    variant="original",
    epochs=91,
    bias_rate=0.02,
    bias_decay=False,
    drop_after=(25, 51, 79),
    slow_conv1_after=67,
    freeze_conv1_after=72,
    colour="original",
    colour_until=67,
    sharing=32,
    all_offsets=True,
    fixed_order=True,
)
"""What was run on ILSVRC-2012 in 2012, according to the log of the published source."""
ORIGINAL_2010 = replace(
    ORIGINAL,
    epochs=93,
    drop_after=(23, 51, 78),
    drop_bias_rate_after=78,
    slow_conv1_after=68,
    freeze_conv1_after=72,
    colour_until=68,
)
"""What was run on ILSVRC-2010: network 145, whose biases ended at a rate of 0.002. The log's
summary does not say when they were slowed; here it is with the last drop."""
FINETUNE_2012 = replace(
    PAPER,
    epochs=50,
    rate=0.001,
    layer_rates=("conv1=0.1", "fc8=10"),
    layer_rates_until=9,
    freeze_conv1_after=7,
    drop_after=(22, 42),
    colour_until=38,
)
"""How the network pretrained on 22,000 classes was fine-tuned on ILSVRC-2012, by the log of the
published source: conv1 at 0.0001, the other layers at 0.001, fc8 at 0.01. There fc8 learns so fast
from batch 300 on; here from the first. How many epochs it took the log's summary does not say."""
FINETUNE_EPOCHS = 20


def fit_finetuning(epochs: int) -> Recipe:
    """Return 2012's schedule of fine-tuning, stretched or shortened to this many epochs."""
    share = epochs / FINETUNE_2012.epochs

    def scale(epoch: int | None) -> int:
        return max(1, round((epoch or 0) * share))

    return replace(
        FINETUNE_2012,
        epochs=epochs,
        layer_rates_until=scale(FINETUNE_2012.layer_rates_until),
        freeze_conv1_after=scale(FINETUNE_2012.freeze_conv1_after),
        # Of a run of one or two epochs none is left after the drop.
        drop_after=tuple(sorted({scale(epoch) for epoch in FINETUNE_2012.drop_after})),
        colour_until=scale(FINETUNE_2012.colour_until),
    )


# DEVIATION: the finetune preset follows 2012's schedule in 20 epochs because small training sets
# need fewer, and fc8 learns ten times as fast from the first batch, where it was from batch 300.
FINETUNE = fit_finetuning(FINETUNE_EPOCHS)
# DEVIATION: the small-data preset divides the mean-free pixels by 4 because with raw pixels He's
# initial weights train unsteadily, and the more they are divided the more slowly conv1 learns.
# DEVIATION: the small-data preset takes batches of 64, a warm-up of one epoch and a learning rate
# that falls along half a cosine because few photographs give too few steps for three plateaus.
# DEVIATION: the small-data preset crops a random area and aspect ratio because 32 · 32 offsets of
# nearly the whole image are too little variety for a few thousand photographs.
# DEVIATION: the small-data preset smooths the labels by 0.1 because a network of 57 million weights
# otherwise becomes certain of a few thousand labels.
SMALL = replace(
    PAPER,
    init="he",
    input_scale=4.0,
    epochs=75,
    batch=64,
    schedule="cosine",
    warmup=1,
    crops="areas",
    smoothing=0.1,
)
FINETUNE_SMALL = replace(SMALL, epochs=FINETUNE_EPOCHS)
"""As SMALL, from other weights, of which it keeps the scale of the pixels. On small training sets
better than 2012's schedule, whose learning rate is a tenth of this one's (docs/training.md)."""
# DEVIATION: the demo-from-scratch preset starts from He's weights as the small-data preset does,
# divides the pixels by 60, and takes batches of 16, the learning rate in proportion, no dropout and
# six epochs because its few hundred crops would give too few steps of 128 in the minutes that a
# first try may last, and dropout takes about twice the steps to converge (§4.2).
DEMO_FROM_SCRATCH = replace(
    PAPER, init="he", input_scale=60.0, batch=16, rate=0.01 * 16 / 128, dropout=0.0, epochs=6
)
# DEVIATION: the demo preset trains fc6 to fc8 only, without dropout, for three epochs in batches of
# 32, at twice the rate with less momentum, along half a cosine because the convolutional layers of
# the weights that it starts from suit any photographs, and a first try may last seconds.
DEMO = replace(
    PAPER,
    freeze_conv=True,
    dropout=0.0,
    epochs=3,
    batch=32,
    rate=0.02,
    momentum=0.8,
    schedule="cosine",
)
ORIGINAL_167 = replace(
    ORIGINAL,
    variant="original-167",
    schedule="exponential",
    drop_after=(),
    slow_conv1_after=None,
    freeze_conv1_after=None,
    colour_until=None,
)
"""Network 167 of 2012, whose rate fell exponentially. How far, and over how many epochs, the log's
summary does not say: here as far as in the authors' later definitions, in as many epochs as 145."""
CIFAR = replace(
    PAPER,
    variant="cifar-24",
    epochs=520,
    rate=0.001,
    bias_rate=0.002,
    decay=0.004,
    conv_decay=0.0,
    bias_decay=False,
    colour_noise=0.0,
    all_offsets=True,
    hold_out=0.2,
    hold_out_until=350,
    drop_after=(500, 510),
)
"""How the authors trained their networks for CIFAR-10, "13 %" and "11 %", by what they published
with them: 350 epochs without a fifth of the training set, 150 with it, 10 at a tenth of the rate
and 10 at a hundredth; crops of 24 pixels at nine offsets in each direction, half of them mirrored.
The biases keep their rate."""
CIFAR_18PCT = replace(
    CIFAR,
    variant="cifar-18pct",
    epochs=140,
    conv_decay=None,
    layer_decays=("fc10=1",),
    mirrors=False,
    hold_out=0.0,
    hold_out_until=None,
    drop_after=(120, 130),
)
"""How "18 %" was trained, by the comments of its definition; the whole images, unchanged."""
CIFAR_80SEC = replace(
    CIFAR_18PCT,
    variant="cifar-80sec",
    epochs=10,
    decay=0.03,
    conv_decay=0.004,
    layer_decays=(),
    drop_after=(8,),
)
"""How "80sec" was trained, by the comments of its definition, which do not say how many epochs
follow the drop after the eighth: here two."""
SHORT_CIFAR_EPOCHS = 52


def fit_cifar(variant: str, epochs: int | None = None) -> Recipe:
    """Return the authors' recipe for one of their networks for CIFAR-10.

    epochs: stretch or shorten its phases to this many; None: as published.
    """
    config = VARIANTS[variant].config if variant in VARIANTS else VARIANTS["cifar-24"].config
    published = {"cifar-18pct": CIFAR_18PCT, "cifar-80sec": CIFAR_80SEC}.get(config.net, CIFAR)
    recipe = replace(published, variant=variant) if variant in VARIANTS else published
    if config.net == "cifar" and config.lrn:
        # "11 %", which decays more in the last layer than "13 %".
        recipe = replace(recipe, layer_decays=("fc10=0.01",))
    if epochs is None or epochs == recipe.epochs:
        return recipe
    share = epochs / recipe.epochs
    until = recipe.hold_out_until
    return replace(
        recipe,
        epochs=epochs,
        hold_out_until=None if until is None else max(1, round(until * share)),
        drop_after=tuple(sorted({max(1, round(epoch * share)) for epoch in recipe.drop_after})),
    )


# DEVIATION: the cifar-short preset goes through the authors' four phases in 52 epochs because a
# comparison of several networks would take days with their 520 on a machine without a GPU.
CIFAR_SHORT = fit_cifar("cifar-24", SHORT_CIFAR_EPOCHS)
FIGURE_1 = replace(
    PAPER,
    variant="cifar",
    epochs=40,
    rate=0.001,
    decay=0.0,
    colour_noise=0.0,
    mirrors=False,
    drops=0,
    patience=40,
)
"""An arm of Figure 1, with --variant cifar or cifar-tanh: no regularisation of any kind, a constant
learning rate, which is each network's own (--rate), and the whole images, unchanged."""
PRESETS = {
    "paper": PAPER,
    "original": ORIGINAL,
    "original-2010": ORIGINAL_2010,
    "small": SMALL,
    "finetune": FINETUNE,
    "finetune-small": FINETUNE_SMALL,
    "demo": DEMO,
    "demo-from-scratch": DEMO_FROM_SCRATCH,
    "original-167": ORIGINAL_167,
    "cifar": CIFAR,
    "cifar-short": CIFAR_SHORT,
    "figure-1": FIGURE_1,
}
Preset = Literal[
    "auto",
    "paper",
    "original",
    "original-2010",
    "small",
    "finetune",
    "finetune-small",
    "demo",
    "demo-from-scratch",
    "original-167",
    "cifar",
    "cifar-short",
    "figure-1",
]
