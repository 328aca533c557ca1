"""The update of weights that have a bfloat16 copy, and training with everything compiled."""

import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn

from training.batches.batches import Batch
from training.optimisation.device import compile_network
from training.optimisation.loop import compute_gradients
from training.optimisation.norms import measure_norms
from training.optimisation.sgd import PaperSGD, ParameterGroup
from training.optimisation.state import TrainingState, init_state
from training.recipe.config import SMALL

MOMENTUM, DECAY = 0.9, 0.0005
RATES = (0.01, 0.01, 0.002, 0.0, 0.002)
"""With a fall, which corrects the velocity, and a rest."""

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")


def start(weight: torch.Tensor) -> tuple[nn.Parameter, PaperSGD]:
    w = nn.Parameter(weight.clone())
    return w, PaperSGD([ParameterGroup("all", [w], DECAY)], RATES[0], MOMENTUM)


def test_it_is_the_papers_rule_and_the_copy_is_the_rounded_weight() -> None:
    torch.manual_seed(0)
    initial = torch.randn(37, 11)
    (plain, by_torch), (copied, ours) = start(initial), start(initial)
    copied.grad_dtype = torch.bfloat16
    copy = copied.detach().bfloat16()
    ours.keep_copies({copied: copy})
    for rate in RATES:
        gradient = torch.randn(37, 11).bfloat16()
        plain.grad, copied.grad = gradient.float(), gradient
        for sgd in (by_torch, ours):
            sgd.set_rates({"all": rate})
            sgd.step()
        torch.testing.assert_close(copied, plain, rtol=2e-7, atol=1e-7)
        assert torch.equal(copy, copied.detach().bfloat16())
        # What steps are reported with is still there.
        assert copied.grad is gradient
    one, other = ours.velocity(copied), by_torch.velocity(plain)
    assert one is not None
    assert other is not None
    torch.testing.assert_close(one, other, rtol=2e-7, atol=2e-7)


def train(mode: str) -> TrainingState:
    """Three steps of a network whose fc6 has a copy where it is compiled."""
    config = replace(SMALL.network(10), crop=131)
    state = init_state(config, SMALL, torch.device("cpu"))
    done = compile_network(state, mode, 0, "bf16")  # type: ignore[arg-type]
    assert done == (
        "augmentation, normalisation, update compiled" if mode == "on" else "not compiled"
    )
    state.network.train()
    random = torch.Generator().manual_seed(0)
    for step in range(3):
        x = torch.randn(8, 3, 131, 131, generator=random).to(memory_format=torch.channels_last)
        batch = Batch(x, torch.arange(8), torch.arange(8))
        keys = torch.arange(8) + 8 * step
        compute_gradients(state, batch, keys, 8, "bf16", 0.1)
        state.sgd.set_rates(dict.fromkeys(state.sgd.rates, 0.01))
        state.sgd.step()
    return state


@pytest.mark.slow
def test_compiled_training_takes_the_steps_of_plain_training() -> None:
    plain, compiled = train("off"), train("on")
    begun = init_state(plain.network.config, SMALL, torch.device("cpu")).network.state_dict()
    for name, weight in compiled.network.state_dict().items():
        moved = (plain.network.state_dict()[name] - begun[name]).norm()
        # bfloat16 itself makes a difference of this size.
        assert (weight - plain.network.state_dict()[name]).norm() < 0.2 * moved, name
    ours, theirs = measure_norms(compiled), measure_norms(plain)
    for found, truth in ((ours.gradients, theirs.gradients), (ours.updates, theirs.updates)):
        assert found == pytest.approx(truth, rel=0.05)
