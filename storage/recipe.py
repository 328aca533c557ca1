"""What a training recipe consists of: each value with its default, label, section and help.

training/recipe/config.py makes recipes of it and the command line's flags; the application labels
the values of run.json by it.
"""

from dataclasses import dataclass, field
from typing import Any, Literal


def hyperparameter(default: Any, label: str, section: str = "") -> Any:
    """Define a field with its label on pages and the section of the paper, if it has one."""
    return field(default=default, metadata={"label": label, "section": section})


@dataclass(frozen=True, kw_only=True)
class RecipeFields:
    """How weights are learned. The defaults are the paper's."""

    variant: str = hyperparameter("paper", "Network", "§3")
    """Which network of the family (model/network/architectures.py); a wrong name lists them all.
    "defined": that of `definition`."""
    definition: str = hyperparameter("", "Network's definition")
    """The network of a definition by its authors, as JSON: what --layers makes of its files."""
    epochs: int = hyperparameter(90, "Maximum epochs", "§5")
    """Maximum passes over the training set (§5: "roughly 90 cycles")."""
    batch: int = hyperparameter(128, "Batch size", "§5")
    """Images per step (§5)."""
    rate: float = hyperparameter(0.01, "Initial learning rate ε", "§5")
    """Initial learning rate ε, the same for all layers (§5)."""
    bias_rate: float | None = hyperparameter(None, "Learning rate of the biases", "§5")
    """Constant learning rate of the biases; None: that of the weights (§5). As run: 0.02."""
    drop_bias_rate_after: int | None = hyperparameter(
        None, "Biases' learning rate ÷ 10 after epoch"
    )
    """Epoch after which the constant learning rate of the biases is divided by ten. As run on
    ILSVRC-2010: once."""
    layer_rates: tuple[str, ...] = hyperparameter((), "Learning rate factors of layers")
    """Layers that learn at another rate than the others: LAYER=FACTOR, such as conv1=0.1 fc8=10; 0
    leaves a layer as it is. As run in fine-tuning: conv1=0.1 fc8=10 (§7)."""
    layer_rates_until: int | None = hyperparameter(None, "Learning rate factors until epoch")
    """Last epoch with these factors; None: all. As run in fine-tuning: 9."""
    layer_bias_rates: tuple[str, ...] = hyperparameter((), "Learning rates of layers' biases")
    """Layers whose biases have a constant learning rate of their own: LAYER=RATE."""
    layer_decays: tuple[str, ...] = hyperparameter((), "Weight decay of layers")
    """Layers whose weights decay otherwise than the others': LAYER=DECAY. The authors' networks for
    CIFAR-10 that normalise: fc10=0.01."""
    layer_momenta: tuple[str, ...] = hyperparameter((), "Momentum of layers")
    """Layers with a momentum of their own: LAYER=MOMENTUM for weights, LAYER.bias=MOMENTUM for
    biases."""
    momentum: float = hyperparameter(0.9, "Momentum", "§5")
    """Momentum of the update rule (§5)."""
    decay: float = hyperparameter(0.0005, "Weight decay", "§5")
    """Weight decay of the update rule (§5)."""
    conv_decay: float | None = hyperparameter(None, "Weight decay of conv1–conv5", "§5")
    """Weight decay of the convolutional layers; None: the same (§5)."""
    bias_decay: bool = hyperparameter(True, "Weight decay of biases", "§5")
    """Whether biases decay, too (§5: one rule for all). As run: they do not."""
    smoothing: float = hyperparameter(0.0, "Label smoothing")
    """Share of each label that is spread evenly over all classes; the paper has none."""
    schedule: Literal["plateau", "cosine", "linear", "exponential"] = hyperparameter(
        "plateau", "Learning rate schedule", "§5"
    )
    """How the learning rate falls: ÷ 10 at plateaus (§5), or from the end of the warm-up to the
    last step: to zero along half a cosine or a straight line, or exponentially, as in network 167
    of 2012."""
    fall: float = hyperparameter(250.0, "Exponential fall of the learning rate")
    """With --schedule exponential: what the learning rate is divided by in the end."""
    warmup: int = hyperparameter(0, "Warm-up, in epochs")
    """Epochs over which the learning rate first rises from zero, at most a tenth of the run; the
    paper has none."""
    drops: int = hyperparameter(3, "Learning rate drops, ÷ 10 each", "§5")
    """How often the learning rate is divided by ten before the end (§5)."""
    patience: int = hyperparameter(8, "Plateau length, in epochs", "§5")
    """Epochs without a lower validation error after which the rate drops (§5 says "stopped
    improving"; the paper does not give a number)."""
    drop_after: tuple[int, ...] = hyperparameter((), "Learning rate drops after epochs", "§5")
    """Epochs after which the rate drops, whatever the validation error. As run: 25, 51, 79."""
    slow_conv1_after: int | None = hyperparameter(None, "conv1 learns more slowly after epoch")
    """Epoch after which conv1's rate is divided by ten once more, until the other layers' next
    drop. As run: 67."""
    freeze_conv1_after: int | None = hyperparameter(None, "conv1 frozen after epoch")
    """Epoch after which conv1 is frozen. As run: 72."""
    freeze_conv: bool = hyperparameter(False, "Convolutional layers frozen")
    """Whether only the fully connected layers learn, in fine-tuning; the others stay as they are
    in the weights that --from names."""
    from_layers: tuple[str, ...] = hyperparameter((), "Layers taken from other weights")
    """With --from: the layers to take from those weights; none named: all that fit, but the last.
    """
    colour_noise: float = hyperparameter(0.1, "Colour noise, standard deviation", "§4.1")
    """Standard deviation of α in the PCA colour augmentation (§4.1)."""
    colour: Literal["paper", "original"] = hyperparameter("paper", "Colour noise, formula", "§4.1")
    """Its formula: Σ pᵢ αᵢ λᵢ (§4.1); as run: Σ pᵢ αᵢ √λᵢ, and the image divided by 1.1."""
    colour_until: int | None = hyperparameter(None, "Colour noise until epoch")
    """Last epoch with colour noise; None: all. As run: 67."""
    fixed_order: bool = hyperparameter(False, "Same order of images in every epoch")
    """Whether every epoch has the same batches in the same order, as run; the paper is silent."""
    mirrors: bool = hyperparameter(True, "Mirror images", "§4.1")
    """Whether half of the training crops are mirrored (§4.1)."""
    hold_out: float = hyperparameter(0.0, "Training images held out, share")
    """Share of the training images that is not trained on until epoch --hold-out-until. The
    authors' networks for CIFAR-10: a fifth."""
    hold_out_until: int | None = hyperparameter(None, "Images held out until epoch")
    """Last epoch without the images held out; None: all. The authors' networks for CIFAR-10: 350.
    """
    crops: Literal["offsets", "areas"] = hyperparameter("offsets", "Training crops", "§4.1")
    """Training crops: of the network's size at a random offset (§4.1), or of a random area and
    aspect ratio (3/4 to 4/3), scaled to that size."""
    smallest_area: float = hyperparameter(0.35, "Smallest crop, share of the area")
    """With --crops areas: the smallest area of a crop, as a share of the image's."""
    sharing: int = hyperparameter(1, "Images sharing a crop and mirroring")
    """Images of a batch that share one crop and one mirror decision. As run: 32."""
    all_offsets: bool = hyperparameter(False, "Crop offsets", "§4.1")
    """Whether crops use all 33 offsets, as run, instead of the paper's 32 (§4.1); nine of 24 pixels
    in 32."""
    bottleneck: int = hyperparameter(0, "Linear units before fc8")
    """Units of each of two linear layers between fc7 and fc8; 0: no such layers. As run on the
    22,000 classes of 2011: 1024."""
    dropout: float | None = hyperparameter(None, "Dropout in fc6 and fc7", "§4.2")
    """Probability that a neuron of fc6 or fc7 is set to zero; None: the variant's, 0.5 (§4.2)."""
    init: Literal["paper", "he"] = hyperparameter("paper", "Weight initialisation", "§5")
    """Initial weights: N(0, 0.01²) and the paper's biases (§5), or those that the variant's authors
    chose; or He's, with biases of zero."""
    input_scale: float = hyperparameter(1.0, "Mean-subtracted pixels divided by", "§2")
    """Divisor of the mean-free pixels, in grey levels of 0-255 (§2: no division)."""
    seed: int = hyperparameter(0, "Seed")
    """Seed of the initial weights, the order of images, crops, mirrors, colours and dropout."""
