"""Gradients of one label's score, in NumPy, so that what answers requests needs no torch.

A runtime gives what each layer with weights computes of an image (`Runtime.run_layers`), and its
weights. What lies between these layers is computed again here, and the gradient is then carried
back layer by layer. For the paper's network that is as many multiplications as one crop's answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.attribution.backward_layers import carry_back
from model.attribution.forward_layers import apply_layer
from model.network.layers import Conv, Dense, Layer, Local
from model.runtime.protocol import Floats


@dataclass(frozen=True, kw_only=True)
class ForwardPass:
    """What a network computed of one crop, in all its layers.

    inputs: what each layer received, float32 [maps, side, side] or [neurons]. logits: float32
    [classes]. weights: of each layer with weights, in torch's arrangement. gains: what the outputs
    of each of these but the last were multiplied by; None for ones. towers: as the network has.
    """

    layers: Sequence[Layer]
    inputs: Sequence[Floats]
    logits: Floats
    weights: Sequence[Floats]
    gains: Sequence[Floats] | None
    towers: int


def record_forward_pass(
    layers: Sequence[Layer],
    crop: Floats,
    outputs: Sequence[Floats],
    weights: Sequence[Floats],
    gains: Sequence[Floats] | None = None,
    *,
    towers: int = 1,
) -> ForwardPass:
    """Fill in what layers without weights computed between those with weights.

    crop: the network's input, float32 [3, crop, crop]. outputs, weights: of each layer with
    weights, as `Runtime.run_layers` and `Runtime.read_weights` give them. gains: as they were given
    to `run_layers`.
    """
    known, inputs, x = iter(outputs), [], crop
    for layer in layers:
        inputs.append(x)
        x = (
            next(known)
            if isinstance(layer, Conv | Local | Dense)
            else apply_layer(layer, x, towers)
        )
    return ForwardPass(
        layers=layers, inputs=inputs, logits=x, weights=weights, gains=gains, towers=towers
    )


def compute_gradient(
    forward: ForwardPass, label: int, *, stop: int = 0, guided: bool = False
) -> Floats:
    """Compute the gradient of a label's logit with respect to the input of layer `stop`.

    Returns float32 of the shape of that input; with `stop` 0 that is the crop. guided: whether
    ReLUs pass back only what is positive, in their input and in the gradient, as in guided
    backpropagation (Springenberg et al. 2015); such a result is no gradient.
    """
    gradient = np.zeros_like(forward.logits)
    gradient[label] = 1
    weighted = len(forward.weights)
    for index in range(len(forward.layers) - 1, stop - 1, -1):
        layer, x, weight = forward.layers[index], forward.inputs[index], None
        if isinstance(layer, Conv | Local | Dense):
            weighted -= 1
            weight = forward.weights[weighted]
            if forward.gains is not None and weighted < len(forward.gains):
                gain = forward.gains[weighted]
                gradient = gradient * gain.reshape(gain.shape + (1,) * (gradient.ndim - 1))
        gradient = carry_back(layer, x, gradient, weight, forward.towers, guided=guided)
    return gradient
