"""Random numbers that have an address: the same for an image and a neuron in any process.

A stream that is drawn from in turn gives other numbers when the work is split otherwise. Here a
number follows from its key alone, by the finaliser of SplitMix64 (Steele, Lea and Flood 2014).
All arithmetic is int64 and wraps.
"""

import torch
from torch import Tensor

GOLDEN_GAMMA = -7046029254386353131
"""2⁶⁴ / φ as a signed number, the step of SplitMix64."""
FIRST, SECOND = -4658895280553007687, -7723592293110705685
"""The multipliers of its finaliser."""
BITS = 24


def derive_image_keys(seed: int, epoch: int, rows: Tensor) -> Tensor:
    """A key for each image of an epoch: int64 [N] rows → int64 [N]."""
    run = splitmix64(splitmix64(torch.tensor([seed], device=rows.device)) + epoch)
    return splitmix64(run + rows * GOLDEN_GAMMA)


def bernoulli(keys: Tensor, first: int, count: int, share: float) -> Tensor:
    """Which of the neurons first … first + count − 1 stay, each with probability `share`.

    int64 [N] → bool [N, count].
    """
    neurons = torch.arange(first + 1, first + count + 1, device=keys.device)
    drawn = splitmix64(splitmix64(keys)[:, None] + neurons * GOLDEN_GAMMA)
    kept: Tensor = shifted(drawn, 64 - BITS) < round(share * 2**BITS)
    return kept


def splitmix64(z: Tensor) -> Tensor:
    """SplitMix64's finaliser: every bit of the result hangs on every bit of z."""
    z = (z ^ shifted(z, 30)) * FIRST
    z = (z ^ shifted(z, 27)) * SECOND
    return z ^ shifted(z, 31)


def shifted(z: Tensor, bits: int) -> Tensor:
    """z to the right as an unsigned number."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
