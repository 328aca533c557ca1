"""What every runtime does, squares of pixels in, probabilities and fc7 out, and why it does it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from model.runtime.names import RUNTIMES

if TYPE_CHECKING:
    from model.network.config import AlexNetConfig
    from model.network.switches import Switches

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
MAX_PROBABILITY_CHANGE = 0.02
"""Of any class's probability, the mean of the ten crops."""
MAX_FEATURE_ERROR = 0.03
"""The length of the difference of fc7 over the length of fc7."""


class TenCropOutput(NamedTuple):
    """What a network says about N images.

    probabilities: float32 [N, 10, classes], the softmax outputs of each crop (§4.1).
    fc7:           float32 [N, 4096], the centre crop's features (§6.1).
    """

    probabilities: Floats
    fc7: Floats


class Peaks(NamedTuple):
    """The largest output of each unit of all layers with weights, before its activation.

    Units are numbered through the layers, and in each through the towers. values: float32
    [N, units]. places: int64 [N, units], row · the map's width + column; 0 for neurons.
    """

    values: Floats
    places: npt.NDArray[np.int64]


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

    def run_layers(self, image: Pixels, gains: Sequence[Floats] | None = None) -> list[Floats]:
        """Compute what each layer with weights gives before its activation, for the centre crop.

        uint8 [256, 256, 3] → float32 [maps, side, side] each, or [neurons]. gains: what to multiply
        the output of each of these layers but the last by, float32 [maps] each: zeros silence
        units. The outputs are returned multiplied.
        """
        ...

    def run_switched(
        self, image: Pixels, config: "AlexNetConfig", switches: "Switches"
    ) -> list[Floats]:
        """As `run_layers`, with the network changed: float32 [samples, maps, side, side] each.

        config: the network's. Raises RuntimeUnavailableError if this network cannot be changed.
        """
        ...

    def run_logits(self, images: Pixels, gains: Sequence[Floats] | None = None) -> Floats:
        """Compute fc8 of the centre crops: uint8 [N, 256, 256, 3] → float32 [N, classes].

        gains: as of `run_layers`.
        """
        ...

    def find_peaks(self, images: Pixels) -> Peaks:
        """Find the largest output of each unit for the centre crops: uint8 [N, 256, 256, 3]."""
        ...

    def read_weights(self) -> list[Floats]:
        """Return the weights of each layer that has any, without biases, in torch's arrangement.

        float32 [maps, depth, kernel, kernel] of a convolution, [neurons, inputs] of a fully
        connected layer. Not to be written to.
        """
        ...

    def read_mean(self) -> Floats:
        """Return the mean image: float32 [3, side, side]. Not to be written to."""
        ...


class RuntimeUnavailableError(Exception):
    """A runtime that cannot compute a network here; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """The largest differences between two runtimes, over some images.

    probability: of a class, 0–1. feature: the relative error of fc7. Infinite if a value is not a
    finite number.
    """

    probability: float
    feature: float

    @property
    def is_small(self) -> bool:
        """Whether both are within the limits."""
        return self.probability <= MAX_PROBABILITY_CHANGE and self.feature <= MAX_FEATURE_ERROR


@dataclass(frozen=True, kw_only=True)
class RuntimeChoice:
    """The runtime that was chosen, and why.

    milliseconds: of ten crops of one image, by runtime, as far as they were measured.
    disagreement: the chosen runtime's with torch; None for torch itself. reason: a sentence.
    """

    name: str
    reason: str
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    disagreement: Disagreement | None = None


def parse_runtime_choice(stored: Any) -> RuntimeChoice | None:
    """Make a choice of its JSON; None if it is none."""
    try:
        found = stored["disagreement"]
        choice = RuntimeChoice(
            **stored | {"disagreement": Disagreement(**found) if found else None}
        )
    except (KeyError, TypeError):
        return None
    return choice if choice.name in RUNTIMES[1:] and isinstance(choice.reason, str) else None


def find_peaks_of_layers(outputs: Iterable[Floats]) -> Peaks:
    """Find the peaks in each layer's outputs, float32 [N, maps, side, side] or [N, neurons]."""
    values, places = [], []
    for output in outputs:
        flat = output.reshape(*output.shape[:2], -1)
        place = flat.argmax(axis=2)
        places.append(place)
        values.append(np.take_along_axis(flat, place[..., None], axis=2)[..., 0])
    return Peaks(np.concatenate(values, axis=1), np.concatenate(places, axis=1))
