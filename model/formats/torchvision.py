"""torchvision's `alexnet`: Krizhevsky's network of 2014, in one tower and without normalisation.

Names, sizes and preprocessing are those of `torchvision.models.alexnet` and its weights
IMAGENET1K_V1, which its authors measured at a top-1 accuracy of 56.522 % and a top-5 accuracy of
79.066 %, with the centre crop.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from model.dataset.folder import ClassName
from model.formats.network import ILSVRC, ForeignNetwork, count_classes, fit_tensors
from model.network.architectures import VARIANTS
from model.weights.header import UNKNOWN

LAYERS = {
    "features.0": "conv1",
    "features.3": "conv2",
    "features.6": "conv3",
    "features.8": "conv4",
    "features.10": "conv5",
    "classifier.1": "fc6",
    "classifier.4": "fc7",
    "classifier.6": "fc8",
}
"""torchvision's names of the layers with weights, and the paper's."""
NAMES = {
    f"{theirs}.{part}": f"{ours}.{part}"
    for theirs, ours in LAYERS.items()
    for part in ("weight", "bias")
}
"""The same for tensors."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Subtracted from red, green and blue, and dividing them, after scaling to 0–1."""
CONFIG = replace(
    VARIANTS["torchvision"].config, resize="bilinear", input_scale=255.0, channel_scales=DEVIATION
)
PUBLISHED_SHA256 = "7be5be79"
"""How the SHA-256 of the published file begins; its name says so."""


def has_torchvision_names(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether a state dict has torchvision's names."""
    return any(name in NAMES for name in tensors)


def read_torchvision(
    tensors: Mapping[str, Tensor],
    path: Path,
    sha256: str,
    classes: tuple[ClassName, ...] | None = None,
) -> ForeignNetwork:
    """Read a state dict of torchvision's alexnet, of any number of classes.

    sha256: of its file. classes: those that the file names. Raises FormatError, naming what else
    it contains, or what it lacks.
    """
    config = replace(CONFIG, classes=count_classes(tensors, "classifier.6.bias", path))
    published = sha256.startswith(PUBLISHED_SHA256)
    renamed = {NAMES.get(name, name): tensor for name, tensor in tensors.items()}
    red, green, blue = (255 * share for share in MEAN)
    return ForeignNetwork(
        config=config,
        state=fit_tensors(renamed, config, path),
        source="torchvision's alexnet, IMAGENET1K_V1" if published else "torchvision's alexnet",
        data=ILSVRC if published else UNKNOWN,
        mean=(red, green, blue),
        classes=classes,
    )


def rename_for_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a network of torchvision's by its own names."""
    theirs = {ours: name for name, ours in NAMES.items()}
    return {theirs[name]: tensor for name, tensor in state.items()}
