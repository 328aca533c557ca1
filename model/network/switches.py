"""Parts of a trained network switched off or exchanged: what of its answer depends on them.

Each runtime computes them in its own way from what it serves; nothing is trained again.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from model.image.preprocess import CENTRE_CROP
from model.network.config import AlexNetConfig
from model.network.layers import Activation, Drop, Shape
from model.network.paper_layers import list_layers
from model.runtime.protocol import Floats

Neurons = Literal["as trained", "none", "relu", "tanh"]
CROPS = 10
"""The four corners and the centre, then their mirror images (§4.1)."""
MAX_DROPOUT_SAMPLES = 10


@dataclass(frozen=True, kw_only=True)
class Switches:
    """How a network is changed. The defaults change nothing.

    neurons: the nonlinearity after every layer (§3.1). lrn: whether responses are normalised
    (§3.3). silent_tower: the tower, from 1, whose neurons are all zero; 0: neither (§3.2).
    dropout_samples: how often neurons are dropped at random as in training (§4.2); 0: every neuron
    is kept and halved, as at test time. seed: of the neurons dropped. crop: which of the ten crops
    the network sees (§4.1).
    """

    neurons: Neurons = "as trained"
    lrn: bool = True
    silent_tower: int = 0
    dropout_samples: int = 0
    seed: int = 0
    crop: int = CENTRE_CROP

    @property
    def samples(self) -> int:
        """How often the network is run."""
        return max(1, self.dropout_samples)


def make_masks(config: AlexNetConfig, switches: Switches) -> list[Floats | None]:
    """Return what each nonlinearity's output is multiplied by, in the network's order.

    float32 [samples, maps, 1, 1], or [samples, neurons]; None for one that stays as it is. A
    dropped neuron is 0 and a kept one is undiminished, also after the halving of test time.
    """
    masks: list[Floats | None] = []
    shape = Shape(3, config.crop)
    for layer in list_layers(config):
        shape = layer.output_shape(shape)
        if isinstance(layer, Activation):
            masks.append(make_tower_mask(config, switches, shape))
        elif isinstance(layer, Drop) and switches.dropout_samples and masks:
            known = masks[-1]
            drawn = draw_kept_neurons(switches, layer, shape.maps, len(masks))
            masks[-1] = drawn if known is None else drawn * known
    return masks


def make_tower_mask(config: AlexNetConfig, switches: Switches, shape: Shape) -> Floats | None:
    """Return zeros for the maps or neurons of the silent tower, and ones for the others."""
    if not switches.silent_tower or config.towers == 1:
        return None
    half = shape.maps // config.towers
    first = (switches.silent_tower - 1) * half
    mask = np.ones((1, shape.maps), np.float32)
    mask[:, first : first + half] = 0
    return mask if shape.side == 1 else mask[:, :, None, None]


def draw_kept_neurons(switches: Switches, layer: Drop, neurons: int, place: int) -> Floats:
    """Draw which neurons are kept: float32 [samples, neurons], 0 or 1 / (1 − p)."""
    random = np.random.default_rng([switches.seed, place])
    kept = random.random((switches.samples, neurons)) >= layer.p
    return (kept / (1 - layer.p)).astype(np.float32)
