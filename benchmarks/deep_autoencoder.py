"""The deep autoencoder that §6.1 refers to, as a reference for `benchmarks/codes.py`.

After Krizhevsky and Hinton, "Using very deep autoencoders for content-based image retrieval" (ESANN
2011). Layers of logistic units, each half as wide as the one before it, down to the code. Each is
first trained alone, as a restricted Boltzmann machine by one step of contrastive divergence (Hinton
2002), the first one with Gaussian visible units; then all of them together, below a decoder that
mirrors them, by backpropagation. The code's units are rounded to 0 or 1 forwards, but not
backwards. Theirs were wider, and learned from far more images, of which they saw the pixels.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

FIRST_UNITS = 2048
"""Units of the first layer."""
BATCH_SIZE = 128
MACHINE_EPOCHS, EPOCHS = 10, 15
"""Passes over the images for each layer alone, and for all of them."""
GAUSSIAN_RATE, RATE, MOMENTUM, DECAY = 0.001, 0.05, 0.9, 2e-4
"""Of contrastive divergence: the learning rates of the first layer and of the others."""
FINE_RATE = 3e-4
"""Adam's learning rate for all layers."""
Floats = npt.NDArray[np.float32]
Bits = npt.NDArray[np.uint8]


def train_deep_autoencoder(rows: Floats, bits: int, seed: int) -> Callable[[Floats], Bits]:
    """Train on float32 [N, F]; return what encodes float32 [M, F] as uint8 [M, bits], 0 or 1."""
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    deviation[deviation < deviation.mean() / 100] = 1.0  # inputs that hardly vary

    def standardise(values: Floats) -> Tensor:
        return torch.from_numpy(((values - mean) / deviation).astype(np.float32))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inputs = standardise(rows)
        layers = pretrain(inputs, choose_widths(bits))
        fine_tune(layers, inputs)

    @torch.inference_mode()
    def encode(values: Floats) -> Bits:
        units = compute_units(layers, standardise(values))
        return (units > 0.5).numpy().astype(np.uint8)

    return encode


def choose_widths(bits: int) -> list[int]:
    """List the units of each layer: halved as long as there are more than the code has bits."""
    widths = [FIRST_UNITS]
    while widths[-1] // 2 > bits:
        widths.append(widths[-1] // 2)
    return [*widths, bits]


def pretrain(inputs: Tensor, widths: Sequence[int]) -> list[nn.Linear]:
    """Train one layer after another as a Boltzmann machine of the units below it."""
    layers = []
    for number, width in enumerate(widths):
        layers.append(train_machine(inputs, width, gaussian=number == 0))
        with torch.no_grad():
            inputs = compute_units(layers[-1:], inputs)
    return layers


def compute_units(layers: Sequence[nn.Linear], units: Tensor) -> Tensor:
    """Pass units, [N, F], through layers of logistic units."""
    for layer in layers:
        units = torch.sigmoid(layer(units))
    return units


@torch.no_grad()
def train_machine(inputs: Tensor, hidden: int, *, gaussian: bool) -> nn.Linear:
    """Train a restricted Boltzmann machine on [N, F], by one step of contrastive divergence."""
    layer = nn.Linear(inputs.shape[1], hidden)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    visible_bias = torch.zeros(inputs.shape[1])
    learned = (layer.weight, layer.bias, visible_bias)
    changes = [torch.zeros_like(one) for one in learned]
    rate = GAUSSIAN_RATE if gaussian else RATE
    for _ in range(MACHINE_EPOCHS):
        for rows in torch.split(torch.randperm(len(inputs)), BATCH_SIZE):
            seen = inputs[rows]
            known = torch.sigmoid(layer(seen))
            again = torch.bernoulli(known) @ layer.weight + visible_bias
            again = again if gaussian else torch.sigmoid(again)
            imagined = torch.sigmoid(layer(again))
            gradients = (
                (known.T @ seen - imagined.T @ again) / len(rows) - DECAY * layer.weight,
                (known - imagined).mean(dim=0),
                (seen - again).mean(dim=0),
            )
            for one, change, gradient in zip(learned, changes, gradients, strict=True):
                one += change.mul_(MOMENTUM).add_(gradient, alpha=rate)
    return layer


def fine_tune(layers: Sequence[nn.Linear], inputs: Tensor) -> None:
    """Train all layers, and a decoder that mirrors them at the start, to give the inputs again."""
    decoder = [nn.Linear(layer.out_features, layer.in_features) for layer in reversed(layers)]
    for own, layer in zip(decoder, reversed(layers), strict=True):
        own.weight.data.copy_(layer.weight.data.T)
        nn.init.zeros_(own.bias)
    learned = [p for layer in (*layers, *decoder) for p in layer.parameters()]
    optimiser = torch.optim.Adam(learned, FINE_RATE)
    for _ in range(EPOCHS):
        for rows in torch.split(torch.randperm(len(inputs)), BATCH_SIZE):
            code = compute_units(layers, inputs[rows])
            code = code + (code.round() - code).detach()
            again = decoder[-1](compute_units(decoder[:-1], code))
            loss = nn.functional.mse_loss(again, inputs[rows])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
