"""The layers of our own against loops over every place, and every stated shape against torch's."""

import itertools

import pytest
import torch
from torch import Tensor

from model.network.alexnet import AlexNet
from model.network.architectures import VARIANTS
from model.network.counter_rng import derive_image_keys
from model.network.layers import Pool, Shape
from model.network.modules import Dropout, LocallyConnected, WithinMapNorm, build_module
from model.network.paper_layers import list_layers


def local_by_hand(x: Tensor, weight: Tensor, bias: Tensor, kernel: int, pad: int) -> Tensor:
    """Each place and each map: the sum over the input maps and the places around."""
    maps, height, width = bias.shape
    out = bias.expand(len(x), -1, -1, -1).clone()
    own = weight.reshape(height, width, maps, x.shape[1], kernel, kernel)
    for row, column, m, c in itertools.product(
        range(height), range(width), range(maps), range(x.shape[1])
    ):
        for down, right in itertools.product(range(kernel), range(kernel)):
            y, z = row + down - pad, column + right - pad
            if 0 <= y < x.shape[2] and 0 <= z < x.shape[3]:
                out[:, m, row, column] += x[:, c, y, z] * own[row, column, m, c, down, right]
    return out


def local(shape: Shape, maps: int, kernel: int, pad: int) -> LocallyConnected:
    torch.manual_seed(0)
    module = LocallyConnected(shape, maps, kernel, pad).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module


@pytest.mark.parametrize(("kernel", "pad"), [(3, 1), (3, 0), (1, 0), (5, 2)])
def test_a_locally_connected_layer_is_the_loop(kernel: int, pad: int) -> None:
    module = local(Shape(3, 5), 2, kernel, pad)
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    with torch.no_grad():
        expected = local_by_hand(x, module.weight, module.bias, kernel, pad)
        torch.testing.assert_close(module(x), expected, rtol=1e-12, atol=1e-12)
        memory = x.contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(module(memory), expected, rtol=1e-12, atol=1e-12)


def test_a_locally_connected_layer_with_the_same_kernels_everywhere_is_a_convolution() -> None:
    module = local(Shape(3, 6), 4, 3, 1)
    kernels = torch.randn(4, 3, 3, 3, dtype=torch.float64)
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        module.weight.copy_(kernels.flatten(1).expand(36, -1, -1))
        expected = torch.conv2d(x, kernels, padding=1) + module.bias
        torch.testing.assert_close(module(x), expected, rtol=1e-12, atol=1e-12)


def test_the_gradient_of_a_locally_connected_layer_is_right() -> None:
    module = local(Shape(2, 3), 2, 3, 1)
    x = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        given = {"weight": weight, "bias": bias}
        return torch.func.functional_call(module, given, (x,))  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(run, (x, module.weight, module.bias))


def within_map_by_hand(a: Tensor, k: float, n: int, alpha: float, beta: float) -> Tensor:
    """b = a / (k + α Σ a²)^β, the sum over the n × n places around that lie in the map."""
    out = torch.empty_like(a)
    height, width, reach = a.shape[2], a.shape[3], n // 2
    for row, column in itertools.product(range(height), range(width)):
        rows = range(max(0, row - reach), min(height, row + reach + 1))
        columns = range(max(0, column - reach), min(width, column + reach + 1))
        total = sum(a[:, :, y, x] ** 2 for y, x in itertools.product(rows, columns))
        out[:, :, row, column] = a[:, :, row, column] / (k + alpha * total) ** beta
    return out


@pytest.mark.parametrize("n", [3, 5])
def test_normalisation_within_a_map_is_the_loop(n: int) -> None:
    torch.manual_seed(0)
    a = torch.randn(2, 3, 7, 6, dtype=torch.float64) * 100
    expected = within_map_by_hand(a, 1, n, 0.001 / 25, 0.75)
    # Strong enough that the sum matters, else any sum would do.
    assert (expected / a).mean() < 0.5
    ours = WithinMapNorm(1, n, 0.001 / 25, 0.75)
    torch.testing.assert_close(ours(a), expected, rtol=1e-12, atol=0)


def test_the_gradient_of_normalisation_within_a_map_is_right() -> None:
    torch.manual_seed(0)
    a = torch.randn(1, 2, 6, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(WithinMapNorm(1, 5, 0.1, 0.75), (a,))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_layer_states_the_shape_that_it_gives(name: str) -> None:
    config = VARIANTS[name].config
    shape = Shape(3, config.crop)
    with torch.device("meta"):
        x = torch.empty(2, 3, config.crop, config.crop)
        for layer in list_layers(config):
            module = build_module(layer, shape, config.towers)
            shape = layer.output_shape(shape)
            x = module(x)
            found = x.shape[1:] if x.ndim == 4 else (*x.shape[1:], 1, 1)
            assert tuple(found) == (shape.maps, shape.side, shape.side), layer.name


@pytest.mark.parametrize("size", [2, 3])
def test_a_pooling_window_hangs_over_only_where_it_may(size: int) -> None:
    for side, hangs in itertools.product(range(6, 57), (False, True)):
        layer, shape = Pool("pool", size, ceil=hangs), Shape(1, side)
        module, shape = build_module(layer, shape, 1), layer.output_shape(shape)
        x = torch.arange(float(side)).expand(1, 1, side, side)
        out = module(x)
        assert out.shape[-1] == shape.side
        # Windows begin at every second place; the last may be cut short but not be empty.
        starts = [s for s in range(0, side, 2) if s + (1 if hangs else size) <= side]
        if hangs and len(starts) > 1 and starts[-2] + size >= side:
            starts.pop()  # all of it is in the window before
        ends = [float(min(s + size, side) - 1) for s in starts]
        assert out[0, 0, 0].tolist() == ends


def test_dropout_with_keys_is_the_same_however_the_batch_is_cut() -> None:
    x = torch.rand(6, 1000) + 1
    keys = derive_image_keys(3, 1, torch.arange(6))
    dropout = Dropout(0.5, salt=7).train()
    whole = dropout(x, keys)
    assert torch.equal(dropout(x[2:5], keys[2:5]), whole[2:5])
    order = torch.tensor([4, 0, 5])
    assert torch.equal(dropout(x[order], keys[order]), whole[order])
    halves = [Dropout(0.5, salt=7, first=first) for first in (0, 500)]
    cut = torch.cat([half(x[:, half.first : half.first + 500], keys) for half in halves], 1)
    assert torch.equal(cut, whole)
    assert not torch.equal(Dropout(0.5, salt=8)(x, keys), whole)
    assert set((whole / x).unique().tolist()) == {0.0, 1.0}


def test_inverted_dropout_divides_in_training_and_does_nothing_at_test() -> None:
    x, keys = torch.full((4, 1000), 3.0), derive_image_keys(0, 1, torch.arange(4))
    dropout = Dropout(0.25, inverted=True)
    assert set(dropout.train()(x, keys).unique().tolist()) == {0.0, 4.0}
    assert set(dropout(x).unique().tolist()) == {0.0, 4.0}
    assert torch.equal(dropout.eval()(x, keys), x)


def test_without_a_probability_dropout_does_nothing() -> None:
    x = torch.rand(2, 5)
    for inverted in (False, True):
        dropout = Dropout(0, inverted=inverted)
        assert torch.equal(dropout.train()(x), x)
        assert torch.equal(dropout.eval()(x), x)


def test_fc6_and_fc7_of_a_network_drop_different_neurons() -> None:
    with torch.device("meta"):
        network = AlexNet()
    x, keys = torch.ones(1, 4096), derive_image_keys(0, 1, torch.arange(1))
    first, second = (network.get_submodule(name)(x, keys) for name in ("drop6", "drop7"))
    assert (first == second).float().mean().item() == pytest.approx(0.5, abs=5 * 0.5 / 64)
