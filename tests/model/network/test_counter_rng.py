"""Addressed random numbers: SplitMix64 by Python's integers, and statistics of what they decide."""

import math

import pytest
import torch
from torch import Tensor

from model.network.counter_rng import (
    GOLDEN_GAMMA,
    PROBABILITY_BITS,
    bernoulli,
    derive_image_keys,
    splitmix64,
)

WORD = 2**64
STEP = 0x9E3779B97F4A7C15
NEURONS = 4096


def finalised(z: int) -> int:
    """SplitMix64's finaliser, by the constants of Steele, Lea and Flood's paper."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % WORD
    return z ^ (z >> 31)


def signed(z: int) -> int:
    return z - WORD if z >= WORD // 2 else z


VALUES = [0, 1, 2, 3, STEP, WORD - 1, WORD // 2, WORD // 2 - 1, 0x0123456789ABCDEF]


def test_mix_is_splitmix64s_finaliser() -> None:
    found = splitmix64(torch.tensor([signed(z) for z in VALUES]))
    assert found.tolist() == [signed(finalised(z)) for z in VALUES]
    assert signed(STEP) == GOLDEN_GAMMA


def test_its_stream_is_the_published_one() -> None:
    # The first three numbers of SplitMix64 seeded with 1234567, as Rosetta Code lists them.
    states = [(1234567 + n * STEP) % WORD for n in (1, 2, 3)]
    found = splitmix64(torch.tensor([signed(state) for state in states]))
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [value % WORD for value in found.tolist()] == published


def key_by_hand(seed: int, epoch: int, row: int) -> int:
    run = finalised((finalised(seed % WORD) + epoch) % WORD)
    return finalised((run + row * STEP) % WORD)


@pytest.mark.parametrize(("seed", "epoch"), [(0, 1), (7, 90), (2**63 - 1, 3), (-5, 0)])
def test_keys_and_decisions_are_those_of_python_integers(seed: int, epoch: int) -> None:
    rows = [0, 1, 2, 1_281_166]
    keys = derive_image_keys(seed, epoch, torch.tensor(rows))
    expected = [key_by_hand(seed, epoch, row) for row in rows]
    assert keys.tolist() == [signed(key) for key in expected]
    kept = bernoulli(keys, 10, 50, 0.3)
    for key, found in zip(expected, kept.tolist(), strict=True):
        start = finalised(key)
        words = (finalised((start + n * STEP) % WORD) for n in range(11, 61))
        assert found == [word >> 40 < round(0.3 * 2**24) for word in words]


def test_an_image_has_the_same_numbers_in_any_batch_and_any_slice() -> None:
    keys = derive_image_keys(5, 2, torch.arange(100))
    whole = bernoulli(keys, 0, NEURONS, 0.5)
    rows = torch.tensor([99, 3, 42])
    assert torch.equal(derive_image_keys(5, 2, rows), keys[rows])
    assert torch.equal(bernoulli(keys[rows], 0, NEURONS, 0.5), whole[rows])
    towers = [bernoulli(keys, first, NEURONS // 2, 0.5) for first in (0, NEURONS // 2)]
    assert torch.equal(torch.cat(towers, 1), whole)


def test_keys_of_images_epochs_and_seeds_do_not_collide() -> None:
    rows = torch.arange(20_000)
    keys = torch.cat([derive_image_keys(s, e, rows) for s in range(3) for e in range(5)])
    assert len(keys.unique()) == len(keys)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_the_share_that_stays_is_the_one_asked_for(share: float) -> None:
    kept = bernoulli(derive_image_keys(1, 1, torch.arange(500)), 0, NEURONS, share).double()
    error = math.sqrt(share * (1 - share) / kept.numel()) + 2.0**-PROBABILITY_BITS
    assert kept.mean().item() == pytest.approx(share, abs=4 * error)
    # As many for every image and for every neuron: of 500 + 4096 means none is five σ away.
    for dim, count in ((0, 500), (1, NEURONS)):
        spread = math.sqrt(share * (1 - share) / count)
        assert (kept.mean(dim) - share).abs().max().item() <= 5 * spread + 2.0**-PROBABILITY_BITS


def correlation(a: Tensor, b: Tensor) -> float:
    """Of decisions with probability one half."""
    return (2 * a.double() - 1).mul(2 * b.double() - 1).mean().item()


def decisions(seed: int, epoch: int, salt: int = 0) -> Tensor:
    return bernoulli(derive_image_keys(seed, epoch, torch.arange(501)) + salt, 0, NEURONS + 1, 0.5)


def test_neighbours_of_any_kind_are_independent() -> None:
    one = decisions(1, 1)
    pairs = {
        "images": (one[1:], one[:-1]),
        "neurons": (one[:, 1:], one[:, :-1]),
        "image and neuron": (one[1:, 1:], one[:-1, :-1]),
        "layers": (one, decisions(1, 1, salt=1)),
        "layers, a neuron apart": (one[:, 1:], decisions(1, 1, salt=1)[:, :-1]),
        "epochs": (one, decisions(1, 2)),
        "seeds": (one, decisions(2, 1)),
        "seed and epoch changed round": (decisions(1, 2), decisions(2, 1)),
    }
    for what, (a, b) in pairs.items():
        assert abs(correlation(a, b)) < 4.5 / math.sqrt(a.numel()), what
