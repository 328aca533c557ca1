"""What every runtime does: squares of pixels in, probabilities and fc7 out."""

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


class TenCropOutput(NamedTuple):
    """What a network says about N images.

    probabilities: float32 [N, 10, classes], the softmax outputs of each crop (§4.1).
    fc7:           float32 [N, 4096], the centre crop's features (§6.1).
    """

    probabilities: Floats
    fc7: Floats


class Runtime(Protocol):
    """Computes one network's predictions. Several threads may call its methods at once."""

    @property
    def name(self) -> str:
        """Its name as in ALEXNET_RUNTIME."""
        ...

    def run_ten_crops(self, images: Pixels) -> TenCropOutput:
        """Run the ten crops of each image: uint8 [N, 256, 256, 3]."""
        ...

    def run_centre_crop(self, images: Pixels) -> Floats:
        """Compute fc7 of the centre crops: uint8 [N, 256, 256, 3] → float32 [N, 4096]."""
        ...


class RuntimeUnavailableError(Exception):
    """A runtime that cannot compute a network here; the message says why."""
