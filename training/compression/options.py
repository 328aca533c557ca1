"""The command line of compression."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from model.network.config import AlexNetConfig
from model.network.layers import Conv, Dense, Local
from model.network.paper_layers import list_layers


class CompressionError(ValueError):
    """Weights, photographs or options that compression cannot work with."""


@dataclass(frozen=True, kw_only=True)
class LayerCompression:
    """How a layer's weights are compressed. Its biases stay as they are."""

    density: float
    """Share of the weights that are kept, those of the largest magnitude; the rest become zero."""
    bits: int
    """The kept weights share at most 2^bits values."""


@dataclass(frozen=True, kw_only=True)
class CompressionOptions:
    """Compress weights to a few megabytes: prune small weights, share values, encode.

    After Han, Mao and Dally, Deep Compression (2015). The result is a weights file like any other:
    every command that reads weights reads it.
    """

    weights: Annotated[Path, tyro.conf.Positional]
    """The weights file to compress."""
    output: Path | None = None
    """The file to write. Default: beside the weights, their name with -compressed at its end."""
    decompress: bool = False
    """Write a compressed file's weights as a plain safetensors file, name ending in -plain."""
    data: str | None = None
    """What the weights were trained on, as training/run.py's --data takes it: to measure what
    they lose, and to fine-tune with --epochs. Default: none, neither is done."""
    epochs: int = 0
    """Passes over the training images while the layers are pruned step by step, for networks that
    lose too much when they are pruned at once, as with 0."""
    rate: float | None = None
    """Initial learning rate of fine-tuning. Default: a tenth of the preset's that the weights were
    trained with."""
    # Fewer values than Han et al. take (32 in dense layers, 256 in convolutions) cost a network
    # trained on Imagenette nothing measurable. Pruning its convolutional layers, or fine-tuning
    # them, costs what ten crops gain over one, and these layers are small: they stay whole.
    # DEVIATION: compressed weights are mostly zero, and the others share few values, because 57
    # million weights of four bytes each make too large a file to come with the code.
    first: LayerCompression = field(default_factory=lambda: LayerCompression(density=1.0, bits=8))
    """The first layer."""
    conv: LayerCompression = field(default_factory=lambda: LayerCompression(density=1.0, bits=6))
    """The other convolutional and locally connected layers."""
    dense: LayerCompression = field(default_factory=lambda: LayerCompression(density=0.2, bits=3))
    """The fully connected layers but the last."""
    last: LayerCompression = field(default_factory=lambda: LayerCompression(density=1.0, bits=6))
    """The last layer."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to fine-tune and measure."""
    precision: Literal["auto", "f32", "bf16"] = "auto"
    """Precision of the layers' arithmetic there. auto: bf16 if the processor supports it."""
    prepared_gigabytes: float = 50.0
    """Store the decoded photographs as raw pixels up to this size, else as JPEG."""

    @property
    def target(self) -> Path:
        """The file to write."""
        ending = "plain" if self.decompress else "compressed"
        return self.output or self.weights.with_name(f"{self.weights.stem}-{ending}.safetensors")

    def check_ranges(self) -> None:
        """Raise CompressionError for a value out of range."""
        checks = {
            "epochs": self.epochs >= 0,
            "rate": self.rate is None or 0 < self.rate < float("inf"),
            "prepared-gigabytes": 0 <= self.prepared_gigabytes < float("inf"),
        }
        for kind in ("first", "conv", "dense", "last"):
            layer: LayerCompression = getattr(self, kind)
            checks[f"{kind}.density"] = 0 < layer.density <= 1
            checks[f"{kind}.bits"] = 1 <= layer.bits <= 8
        for name, good in checks.items():
            if not good:
                raise CompressionError(f"--{name} is out of range")
        if self.decompress and self.data:
            raise CompressionError("--decompress changes no weights and takes no --data")
        if self.target.exists() and self.target.samefile(self.weights):
            raise CompressionError(f"{self.target} is the file to read; name another as --output")


def parse_compression_options(arguments: Sequence[str]) -> CompressionOptions:
    """Parse the command line. Raises CompressionError for a value out of range."""
    options = tyro.cli(CompressionOptions, args=list(arguments))
    options.check_ranges()
    return options


def choose_layers(
    config: AlexNetConfig, options: CompressionOptions
) -> dict[str, LayerCompression]:
    """Return how each layer's weights are compressed, by parameter name such as fc6.weight."""
    layers: dict[str, LayerCompression] = {}
    for layer in list_layers(config):
        if isinstance(layer, Conv | Local | Dense):
            kind = options.dense if isinstance(layer, Dense) else options.conv
            layers[f"{layer.name}.weight"] = kind
    first, *_, last = layers
    return layers | {first: options.first, last: options.last}
