"""The configuration of a network, and the paper's sizes.

Section numbers are the paper's.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from model.network.layer_list import LayerListError, parse_layers
from model.network.layers import Conv, Dense, Layer, Local

TOWERS = 2
"""Halves of the network, one per GPU (§3.2)."""
FEATURES = 4096
"""Neurons of fc7, the features that images are compared by (§3.5, §6.1)."""
SQUARE_SIDE = 256
"""Pixels of the square that an image is scaled and cropped to (§2)."""
CROP_SIDE = 224
"""Pixels of the square that the network sees (§4.1)."""
PIXEL_DEVIATION = 60.0
"""Standard deviation of photographs' mean-free pixels, in grey levels of 0–255."""

Net = Literal[
    "paper",
    "original",
    "one-gpu",
    "separate-towers",
    "original-147",
    "original-150",
    "original-167",
    "caffe-alexnet",
    "caffenet",
    "torchvision",
    "cifar",
    "cifar-18pct",
    "cifar-80sec",
    "defined",
]
PAPER_NETS: tuple[Net, ...] = (
    *("paper", "original", "one-gpu", "separate-towers"),
    *("original-147", "original-150", "original-167"),
)
"""The paper's network and those that differ from it in a few layers."""
CIFAR_NETS: tuple[Net, ...] = ("cifar", "cifar-18pct", "cifar-80sec")
"""Those that the paper's authors made for CIFAR-10."""
Nonlinearity = Literal["relu", "tanh"]
Resize = Literal["bicubic", "bilinear", "warp"]
TestCrops = Literal["ten", "nine"]


class ConfigError(ValueError):
    """A network configuration that cannot be built."""


@dataclass(frozen=True, kw_only=True)
class AlexNetConfig:
    """The configuration of a network. The defaults are the paper's.

    Raises ConfigError for a value outside its range, naming the field.
    """

    classes: int = 1000
    """Outputs of fc8, one for each class (§3.5)."""
    net: Net = "paper"
    """The architecture: the paper's (§3.5), the one run in 2012, the one-GPU net (§3.2), the
    one whose towers stay apart until fc6, further ones run in 2012, one of Caffe's two,
    torchvision's, one of those for CIFAR-10 (§3.1, §3.3), or one that `layers` defines."""
    layers: tuple[Layer, ...] = ()
    """The layers of the network "defined", which has no others; the last one has `classes`
    outputs, whatever its own number says."""
    activation: Nonlinearity = "relu"
    """The neurons' nonlinearity (§3.1)."""
    lrn: bool = True
    """Whether responses are normalised (§3.3)."""
    overlapping: bool = True
    """Whether pooling windows overlap: z = 3, s = 2; otherwise z = 2, s = 2 (§3.4)."""
    without: Literal["", "conv1", "conv2", "conv3", "conv4", "conv5"] = ""
    """The convolutional layer to leave out, if any (§7)."""
    conv6: bool = False
    """Whether a sixth convolutional layer follows the last pooling layer (§6)."""
    bottleneck: int = 0
    """Units of each of two linear layers between fc7 and fc8, as run in 2012 on 22,000 classes; 0:
    no such layers."""
    side: int = SQUARE_SIDE
    """Side, in pixels, of the square that an image is scaled and cropped to (§2)."""
    crop: int = CROP_SIDE
    """Side, in pixels, of the crop that the network sees (§4.1)."""
    test_crops: TestCrops = "ten"
    """The crops that predictions are averaged over: "ten" are the corners, the centre and their
    mirror images (§4.1); "nine" are the nine positions of a 3 × 3 grid, without mirror images, as
    the authors tested their networks for CIFAR-10."""
    resize: Resize = "bicubic"
    """How an image becomes that square: "bicubic" scales its short side with that filter and cuts
    out the centre (§2); "bilinear" does the same with torchvision's filter; "warp" scales both
    sides to the square's, as Caffe does, so that nothing is cut off."""
    lrn_k: float = 2.0
    """k of the response normalisation (§3.3)."""
    lrn_n: int = 5
    """n: how many adjacent maps it sums over (§3.3)."""
    lrn_alpha: float = 1e-4
    """α: multiplies the plain sum of squares (§3.3)."""
    lrn_beta: float = 0.75
    """β: its exponent (§3.3)."""
    lrn_alpha_factors: tuple[float, ...] = ()
    """Factors of α, one for each normalisation layer in the network's order; empty: all 1 (§3.3).
    They make up for inputs that the initial weights leave smaller than the paper's do."""
    dropout: float = 0.5
    """Probability that a neuron of fc6 or fc7 is set to zero in training (§4.2)."""
    init: Literal["paper", "he"] = "paper"
    """Initial weights: "paper" is N(0, 0.01²) with biases of one or zero (§5), or for other nets
    what their authors document; "he" is He's for ReLU, with biases of zero, conv1's for pixels of
    a standard deviation of 60 grey levels before the division by `input_scale`."""
    input_scale: float = 1.0
    """Divisor of the mean-free pixel values, in grey levels of 0–255 (§2: no division)."""
    channel_scales: tuple[float, ...] = ()
    """Further divisors of red, green and blue, as of torchvision's networks; empty: all 1."""

    def __post_init__(self) -> None:
        # JSON has lists.
        for name in ("lrn_alpha_factors", "channel_scales"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        try:
            object.__setattr__(self, "layers", parse_layers(self.layers))
        except LayerListError as error:
            raise ConfigError(f"AlexNetConfig.layers: {error}") from error
        # Anything smaller leaves pool5 without input.
        smallest_crop = {"defined": 1, **dict.fromkeys(CIFAR_NETS, 8)}.get(self.net, 67)
        checks = {
            "classes": self.classes >= 1,
            "net": self.net in get_args(Net),
            "activation": self.activation in get_args(Nonlinearity),
            "layers": bool(self.layers) == (self.net == "defined"),
            "without": self.without in ("", "conv1", "conv2", "conv3", "conv4", "conv5"),
            "bottleneck": self.bottleneck >= 0 and self.bottleneck % TOWERS == 0,
            "side": self.side >= self.crop,
            "crop": self.crop >= smallest_crop,
            "test_crops": self.test_crops in get_args(TestCrops),
            "resize": self.resize in get_args(Resize),
            "lrn_n": self.lrn_n >= 1 and self.lrn_n % 2 == 1,
            "lrn_k": self.lrn_k > 0,
            "lrn_alpha": self.lrn_alpha >= 0,
            "lrn_alpha_factors": all(0 < f < float("inf") for f in self.lrn_alpha_factors),
            "dropout": 0 <= self.dropout < 1,
            "init": self.init in ("paper", "he"),
            "input_scale": self.input_scale > 0,
            "channel_scales": len(self.channel_scales) in (0, 3)
            and all(0 < scale < float("inf") for scale in self.channel_scales),
        }
        for name, valid in checks.items():
            if not valid:
                raise ConfigError(f"AlexNetConfig.{name} cannot be {getattr(self, name)!r}")
        if (self.without or self.conv6 or self.bottleneck) and self.net not in PAPER_NETS:
            raise ConfigError(
                f"without, conv6 and bottleneck apply to the paper's nets, not to {self.net}"
            )
        if self.net == "defined":
            self.check_layers()

    def check_layers(self) -> None:
        """Raise ConfigError unless `layers` begin with a convolution and say all by themselves."""
        weighted = [layer for layer in self.layers if isinstance(layer, Conv | Local | Dense)]
        if not weighted or not isinstance(weighted[0], Conv):
            raise ConfigError("AlexNetConfig.layers must begin with a convolutional layer")
        if not isinstance(self.layers[-1], Dense):
            raise ConfigError("AlexNetConfig.layers must end with a fully connected layer")
        if self.activation != "relu" or not self.lrn or not self.overlapping:
            raise ConfigError("activation, lrn and overlapping do not apply to defined networks")

    @property
    def towers(self) -> int:
        """The number of towers: two, or one in nets made for a single GPU."""
        if self.net == "defined":
            grouped = any(isinstance(layer, Conv) and layer.grouped for layer in self.layers)
            return TOWERS if grouped else 1
        return 1 if self.net in ("one-gpu", "torchvision", *CIFAR_NETS) else TOWERS
