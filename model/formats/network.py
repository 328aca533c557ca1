"""A network as others published it, in this project's names: what every reader returns."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model.dataset.folder import ClassName
from model.network.config import AlexNetConfig
from model.weights.checkpoint import list_network_shapes
from model.weights.header import UNKNOWN, WeightsError

Colour = tuple[float, float, float]
"""Red, green and blue, 0–255."""
IMAGENET_MEAN: Colour = (122.679, 116.669, 104.007)
"""The mean colour of ILSVRC-2012's training images, as Caffe measured it."""
ILSVRC = "ILSVRC-2012"
"""The data set of a thousand classes."""
MAX_NAMED_TENSORS = 5
"""Wrong tensors that an error names."""


class FormatError(WeightsError):
    """A file of others' weights that cannot be read. Its message says what is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class ForeignNetwork:
    """A network as others published it.

    config:      the network, and how an image becomes its input.
    state:       its tensors by this project's names, float32.
    source:      what it is, and who made it.
    data:        the data set that it was trained on, as far as anybody knows.
    mean:        the colour that is subtracted from every pixel, unless its mean image is given.
    classes:     those that the file names; None: it names none.
    bgr:         whether its authors' mean images have blue first.
    few_values:  whether its weights are few values and zeros, so that they compress well.
    assumptions: what the file does not say and was taken for granted, in sentences.
    """

    config: AlexNetConfig
    state: Mapping[str, Tensor]
    source: str
    data: str = UNKNOWN
    mean: Colour = IMAGENET_MEAN
    classes: tuple[ClassName, ...] | None = None
    bgr: bool = False
    few_values: bool = False
    assumptions: tuple[str, ...] = ()


def fit_tensors(
    tensors: Mapping[str, Tensor], config: AlexNetConfig, path: Path
) -> dict[str, Tensor]:
    """Return a network's tensors as float32, checked for their names and shapes.

    Raises FormatError, naming the tensors that do not fit.
    """
    expected = list_network_shapes(config)
    wrong = [
        f"{name} has shape {list(tensor.shape)}, expected {list(expected[name])}"
        for name, tensor in tensors.items()
        if name in expected and tuple(tensor.shape) != expected[name]
    ]
    wrong += [f"{name} is missing" for name in expected if name not in tensors]
    wrong += [f"{name} is unexpected" for name in tensors if name not in expected]
    if wrong:
        more = f"; and {len(wrong) - MAX_NAMED_TENSORS} more" * (len(wrong) > MAX_NAMED_TENSORS)
        raise FormatError(
            f"{path} does not fit the network {config.net} with {config.classes} classes: "
            f"{'; '.join(wrong[:MAX_NAMED_TENSORS])}{more}"
        )
    fitted = {}
    for name in expected:
        tensor = tensors[name]
        if tensor.layout != torch.strided or not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise FormatError(f"{path}: {name} holds {kind}, not floating-point numbers")
        fitted[name] = tensor.to(torch.float32, copy=True).contiguous()
    return fitted


def count_classes(tensors: Mapping[str, Tensor], bias: str, path: Path) -> int:
    """Return the number of outputs of the last layer, given its bias's name.

    Raises FormatError if there is no such tensor of one dimension.
    """
    tensor = tensors.get(bias)
    if tensor is None or tensor.ndim != 1 or not len(tensor):
        raise FormatError(f"{path}: the last layer's bias, {bias}, is missing or has no outputs")
    return len(tensor)
