"""Counter-based random numbers: the same for an image and a neuron in any process.

Numbers drawn from a stream change when images are divided among processes differently. Here
each number is a function of its key alone, computed by the finaliser of SplitMix64 (Steele, Lea
and Flood 2014). All arithmetic is int64 and wraps around.
"""

import torch
from torch import Tensor

GOLDEN_GAMMA = -7046029254386353131
"""2⁶⁴ / φ as a signed number, the increment of SplitMix64."""
MULTIPLIERS = -4658895280553007687, -7723592293110705685
"""The two factors of its finaliser."""
PROBABILITY_BITS = 24
"""Number of upper bits of a random number that are compared with a probability."""


def derive_image_keys(seed: int, epoch: int, rows: Tensor) -> Tensor:
    """Derive a key for each image of an epoch: int64 [N] rows → int64 [N]."""
    run = splitmix64(splitmix64(torch.tensor([seed], device=rows.device)) + epoch)
    return splitmix64(run + rows * GOLDEN_GAMMA)


def bernoulli(keys: Tensor, first: int, count: int, probability: float) -> Tensor:
    """Draw true with `probability` for the neurons first … first + count − 1 of each image.

    int64 [N] → bool [N, count].
    """
    neurons = torch.arange(first + 1, first + count + 1, device=keys.device)
    drawn = splitmix64(splitmix64(keys)[:, None] + neurons * GOLDEN_GAMMA)
    result: Tensor = shift_right(drawn, 64 - PROBABILITY_BITS) < round(
        probability * 2**PROBABILITY_BITS
    )
    return result


def splitmix64(z: Tensor) -> Tensor:
    """SplitMix64's finaliser: every bit of the result depends on every bit of z."""
    z = (z ^ shift_right(z, 30)) * MULTIPLIERS[0]
    z = (z ^ shift_right(z, 27)) * MULTIPLIERS[1]
    return z ^ shift_right(z, 31)


def shift_right(z: Tensor, bits: int) -> Tensor:
    """Shift z to the right as an unsigned number."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
