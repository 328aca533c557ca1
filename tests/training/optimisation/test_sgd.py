"""The update rule of §5 against steps computed by hand."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from model.network.alexnet import AlexNet
from training.optimisation.sgd import PaperSGD, ParameterGroup, group_parameters
from training.recipe.config import CIFAR, ORIGINAL, PAPER, RecipeError

MOMENTUM, DECAY = 0.9, 0.0005
Floats = npt.NDArray[np.float64]


def parameter(values: Floats) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(values.copy()))


def take(sgd: torch.optim.SGD, w: nn.Parameter, gradient: float) -> float:
    w.grad = torch.full_like(w, gradient)
    sgd.step()
    return w.item()


def test_three_steps_by_hand() -> None:
    w = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    sgd = PaperSGD([ParameterGroup("all", [w], DECAY)], 0.01, MOMENTUM)
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
    ours, torchs = parameter(start), parameter(start)
    sgd = PaperSGD([ParameterGroup("all", [ours], DECAY)], rates[0], MOMENTUM)
    plain = torch.optim.SGD([torchs], rates[0], MOMENTUM, weight_decay=DECAY)
    for rate, g in zip(rates, gradients, strict=True):
        sgd.set_rates({"all": rate})
        plain.param_groups[0]["lr"] = rate
        for held, optimizer in ((ours, sgd), (torchs, plain)):
            held.grad = torch.from_numpy(g.copy())
            optimizer.step()
    np.testing.assert_allclose(ours.detach().numpy(), w, rtol=1e-12)
    # torch's own forgets the old rate: the difference the class exists for.
    assert np.abs(torchs.detach().numpy() - w).max() > 1e-3


def test_a_rate_that_changes_in_every_step_is_the_papers_formula() -> None:
    # A warm-up, then a fall, with a rate that stays in between and one that jumps.
    rates = [0.001, 0.004, 0.007, 0.01, 0.01, 0.008, 0.0081, 0.005, 0.05, 0.001, 1e-6]
    random = np.random.default_rng(3)
    gradients = random.normal(size=(len(rates), 7))
    start = random.normal(size=7)
    w, v, ours = start.copy(), np.zeros(7), parameter(start)
    sgd = PaperSGD([ParameterGroup("all", [ours], DECAY)], 0.02, MOMENTUM)
    for step, (rate, g) in enumerate(zip(rates, gradients, strict=True)):
        v = MOMENTUM * v - DECAY * rate * w - rate * g
        w = w + v
        sgd.set_rates({"all": rate})
        ours.grad = torch.from_numpy(g.copy())
        sgd.step()
        np.testing.assert_allclose(ours.detach().numpy(), w, rtol=1e-12, err_msg=f"step {step}")
        # What a checkpoint holds: torch's u at the rate that it holds beside it.
        velocity = sgd.velocity(ours)
        assert velocity is not None
        np.testing.assert_allclose(-rate * velocity.numpy(), v, rtol=1e-11)


def test_a_rate_that_is_set_twice_before_a_step_is_that_set_last() -> None:
    start = np.array([1.0, -2.0])
    ours, theirs = parameter(start), parameter(start)
    for held, settings in ((ours, [[0.01], [0.5, 0.003]]), (theirs, [[0.01], [0.003]])):
        sgd = PaperSGD([ParameterGroup("all", [held], DECAY)], 0.01, MOMENTUM)
        for rates in settings:
            for rate in rates:
                sgd.set_rates({"all": rate})
            held.grad = torch.tensor([0.5, 0.25], dtype=torch.float64)
            sgd.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=0)


def test_groups_have_rates_and_decays_of_their_own_and_one_may_stand_still() -> None:
    names, decays = ["conv1", "dense", "bias"], [0.0005, 0.004, 0.0]
    rates = [(0.01, 0.01, 0.02), (0.001, 0.01, 0.02), (0.0, 0.001, 0.02), (0.0, 0.0001, 0.02)]
    rates += [(0.001, 0.0001, 0.02)] * 2  # let go again
    random = np.random.default_rng(1)
    starts = random.normal(size=(3, 5))
    gradients = random.normal(size=(len(rates), 3, 5))
    ours = [parameter(start) for start in starts]
    parts = [ParameterGroup(n, [p], d) for n, p, d in zip(names, ours, decays, strict=True)]
    sgd = PaperSGD(parts, 0.01, MOMENTUM)
    w, v = starts.copy(), np.zeros((3, 5))
    for step, now in enumerate(rates):
        sgd.set_rates(dict(zip(names, now, strict=True)))
        for i, rate in enumerate(now):
            # A layer that stands still has no velocity, as in the 2012 source, which skips it.
            v[i] = MOMENTUM * v[i] - decays[i] * rate * w[i] - rate * gradients[step, i]
            v[i] *= rate > 0
            w[i] += v[i]
            ours[i].grad = torch.from_numpy(gradients[step, i].copy())
        sgd.step()
        found = np.stack([p.detach().numpy() for p in ours])
        np.testing.assert_allclose(found, w, rtol=1e-12, err_msg=f"step {step}")
    assert sgd.rates == dict(zip(names, rates[-1], strict=True))


def test_every_parameter_is_in_the_group_that_the_paper_or_the_log_gives_it() -> None:
    with torch.device("meta"):
        network = AlexNet(ORIGINAL.network(1000))
    named = {id(p): name for name, p in network.named_parameters()}

    def decays(recipe: object) -> dict[str, float]:
        parts = group_parameters(network, recipe)  # type: ignore[arg-type]
        return {named[id(p)]: part.decay for part in parts for p in part.parameters}

    assert set(decays(PAPER).values()) == {0.0005}
    assert set(decays(PAPER)) == set(named.values())
    for name, decay in decays(ORIGINAL).items():
        assert decay == (0.0 if name.endswith("bias") else 0.0005), name
    by_name = {named[id(p)]: g.name for g in group_parameters(network, PAPER) for p in g.parameters}
    assert by_name["conv1.weight"] == "conv1"
    assert by_name["conv1.bias"] == "conv1 bias"
    assert {by_name[f"conv{n}.weight"] for n in (2, 3, 4, 5)} == {"conv"}
    assert {by_name[f"fc{n}.weight"] for n in (6, 7, 8)} == {"dense"}


def test_layers_have_decays_and_momenta_of_their_own() -> None:
    recipe = replace(
        PAPER,
        layer_decays=("conv2=0.25",),
        layer_momenta=("conv2=0.5", "fc6.bias=0.25"),
        layer_rates=("fc6=2",),
    )
    rate = 0.125
    random = np.random.default_rng(4)
    with torch.device("meta"):
        network = AlexNet(PAPER.network(2))
    values = {name: (0.9, 0.0005) for name, _ in network.named_parameters()}
    values |= {"conv2.weight": (0.5, 0.25), "conv2.bias": (0.9, 0.0005), "fc6.bias": (0.25, 0.0005)}
    # One number of each tensor stands for it.
    held = {name: parameter(random.normal(size=1)) for name in values}
    modules = nn.ModuleDict()
    for name, tensor in held.items():
        layer, kind = name.rsplit(".")
        if layer not in modules:
            modules[layer] = nn.Module()
        modules[layer].register_parameter(kind, tensor)
    sgd = PaperSGD(group_parameters(modules, recipe), rate, PAPER.momentum)
    w = {name: tensor.item() for name, tensor in held.items()}
    v = dict.fromkeys(w, 0.0)
    for _ in range(3):
        # Half the rate from one step to the next: v keeps what it had.
        rate /= 2
        sgd.set_rates(dict.fromkeys(sgd.rates, rate))
        for name, tensor in held.items():
            momentum, decay = values[name]
            v[name] = momentum * v[name] - decay * rate * w[name] - rate * 0.5
            w[name] += v[name]
            tensor.grad = torch.full_like(tensor, 0.5)
        sgd.step()
        for name, tensor in held.items():
            assert tensor.item() == pytest.approx(w[name], rel=1e-12), name


def test_a_layer_that_the_network_lacks_is_named_with_its_flag() -> None:
    with torch.device("meta"):
        network = AlexNet(CIFAR.network(10))
    with pytest.raises(RecipeError, match="--layer-decays names fc8, which"):
        group_parameters(network, replace(CIFAR, layer_decays=("fc8=1",)))


def test_the_cifar_nets_decay_in_the_local_and_last_layers_only() -> None:
    with torch.device("meta"):
        network = AlexNet(CIFAR.network(10))
    named = {id(p): name for name, p in network.named_parameters()}
    decays = {named[id(p)]: g.decay for g in group_parameters(network, CIFAR) for p in g.parameters}
    assert {name for name, decay in decays.items() if decay == 0.004} == {
        "local3.weight",
        "local4.weight",
        "fc10.weight",
    }
    assert {decays["conv1.weight"], decays["conv2.weight"], decays["fc10.bias"]} == {0.0}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_restored_velocities_go_on_alike_to_the_bit(layout: torch.memory_format) -> None:
    def fresh() -> tuple[nn.Conv2d, PaperSGD]:
        torch.manual_seed(0)
        made = nn.Conv2d(4, 8, 3).to(memory_format=layout)
        return made, PaperSGD(
            group_parameters(nn.ModuleDict({"conv2": made}), PAPER), 0.01, MOMENTUM
        )

    x = torch.randn(2, 4, 9, 9, generator=torch.Generator().manual_seed(1))

    def go(network: nn.Conv2d, sgd: PaperSGD, steps: int) -> None:
        for _ in range(steps):
            sgd.zero_grad()
            network(x).square().sum().backward()
            sgd.step()

    whole, sgd = fresh()
    go(whole, sgd, 5)
    first, before = fresh()
    go(first, before, 2)
    second, after = fresh()
    second.load_state_dict(first.state_dict())
    for held, taken in zip(second.parameters(), first.parameters(), strict=True):
        velocity = before.velocity(taken)
        assert velocity is not None
        after.restore_velocity(held, velocity.contiguous())
    go(second, after, 3)
    assert torch.equal(whole.weight, second.weight)
    assert torch.equal(whole.bias, second.bias)  # type: ignore[arg-type]


def test_a_recipe_with_the_same_numbers_is_plain_sgd_while_the_rate_stays() -> None:
    start = np.random.default_rng(2).normal(size=20)
    ours, torchs = parameter(start), parameter(start)
    recipe = replace(PAPER, momentum=0.5, decay=0.01)
    sgd = PaperSGD([ParameterGroup("all", [ours], recipe.decay)], recipe.rate, recipe.momentum)
    plain = torch.optim.SGD([torchs], recipe.rate, recipe.momentum, weight_decay=recipe.decay)
    for gradient in (0.5, -1.0, 2.0):
        for held, optimizer in ((ours, sgd), (torchs, plain)):
            held.grad = torch.full_like(held, gradient)
            optimizer.step()
    torch.testing.assert_close(ours, torchs, rtol=1e-14, atol=0)
