"""The update rule of §5 against steps computed by hand."""

import numpy as np
import pytest
import torch

from training.sgd import PaperSGD

GRADIENTS = [0.5, -1.0, 2.0]
MOMENTUM, DECAY = 0.9, 0.0005


def take(sgd: PaperSGD, w: torch.nn.Parameter, gradient: float) -> float:
    w.grad = torch.full_like(w, gradient)
    sgd.step()
    return w.item()


def test_three_steps_by_hand() -> None:
    w = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    sgd = PaperSGD([w], 0.01, MOMENTUM, DECAY)
    # v1 = 0.9·0 − 0.0005·0.01·1 − 0.01·0.5 = −0.005005;              w1 = 0.994995
    assert take(sgd, w, 0.5) == pytest.approx(0.994995, abs=1e-12)
    # v2 = 0.9·(−0.005005) − 0.000005·0.994995 + 0.01 = 0.005490525025; w2 = 1.000485525025
    assert take(sgd, w, -1.0) == pytest.approx(1.000485525025, abs=1e-12)
    # v3 = 0.9·0.005490525025 − 0.000005·1.000485525025 − 0.02 = −0.015063529905125
    assert take(sgd, w, 2.0) == pytest.approx(0.985421995119875, abs=1e-12)


def test_a_falling_rate_leaves_the_velocity_as_the_paper_has_it() -> None:
    rates = [0.01, 0.01, 0.001, 0.001, 0.0001]
    random = np.random.default_rng(0)
    gradients = random.normal(size=(len(rates), 7))
    start = random.normal(size=7)
    w, v = start.copy(), np.zeros(7)
    for rate, g in zip(rates, gradients, strict=True):
        v = MOMENTUM * v - DECAY * rate * w - rate * g
        w = w + v
    ours = torch.nn.Parameter(torch.from_numpy(start.copy()))
    torchs = torch.nn.Parameter(torch.from_numpy(start.copy()))
    sgd = PaperSGD([ours], rates[0], MOMENTUM, DECAY)
    plain = torch.optim.SGD([torchs], rates[0], MOMENTUM, weight_decay=DECAY)
    for rate, g in zip(rates, gradients, strict=True):
        sgd.set_rate(rate)
        plain.param_groups[0]["lr"] = rate
        for parameter, optimizer in ((ours, sgd), (torchs, plain)):
            parameter.grad = torch.from_numpy(g.copy())
            optimizer.step()
    np.testing.assert_allclose(ours.detach().numpy(), w, rtol=1e-12)
    # torch's own forgets the old rate: the difference the class exists for.
    assert np.abs(torchs.detach().numpy() - w).max() > 1e-3


def test_restored_velocities_go_on_alike() -> None:
    def fresh() -> tuple[torch.nn.Parameter, PaperSGD]:
        w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
        return w, PaperSGD([w], 0.01, MOMENTUM, DECAY)

    whole, sgd = fresh()
    for gradient in GRADIENTS:
        take_all(sgd, whole, gradient)
    first, before = fresh()
    take_all(before, first, GRADIENTS[0])
    second, after = fresh()
    second.data.copy_(first.data)
    after.restore(before.velocities())
    for gradient in GRADIENTS[1:]:
        take_all(after, second, gradient)
    assert torch.equal(whole, second)


def take_all(sgd: PaperSGD, w: torch.nn.Parameter, gradient: float) -> None:
    w.grad = torch.full_like(w, gradient)
    sgd.step()
