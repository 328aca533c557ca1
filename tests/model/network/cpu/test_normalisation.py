"""ReLU, normalisation and pooling in one pass against the same layers apart."""

import shutil
from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from model.network.alexnet import AlexNet
from model.network.architectures import VARIANTS
from model.network.config import AlexNetConfig
from model.network.cpu.normalisation import Neighbours, fuse_normalisations
from model.network.lrn import LocalResponseNorm

K, N, ALPHA, BETA = 2.0, 5, 0.05, 0.75

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")


def build(
    *,
    relu: bool = True,
    pool: nn.Module | None = None,
    towers: int = 2,
    n: int = N,
    beta: float = BETA,
) -> nn.Sequential:
    """The layers of a network of 24 maps."""
    layers: dict[str, nn.Module] = {"relu": nn.ReLU()} if relu else {}
    layers["lrn"] = LocalResponseNorm(24, towers, K, n, ALPHA, beta)
    if pool is not None:
        layers["pool"] = pool
    return nn.Sequential(OrderedDict(layers))


def draw(dtype: torch.dtype, rows: int = 9, columns: int = 8) -> Tensor:
    """A convolution's output for five images, channels last."""
    z = torch.randn(5, 24, rows, columns, generator=torch.Generator().manual_seed(0)) * 6
    return z.to(dtype).contiguous(memory_format=torch.channels_last)


def run(network: nn.Module, z: Tensor) -> tuple[Tensor, Tensor]:
    """The output and the gradient of the input."""
    x = z.clone(memory_format=torch.preserve_format).requires_grad_()
    out = network(x)
    out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype))
    assert x.grad is not None
    return out.detach(), x.grad


POOLS: dict[str, Callable[[], nn.Module | None]] = {
    "none": lambda: None,
    "overlapping": lambda: nn.MaxPool2d(3, 2),
    "apart": lambda: nn.MaxPool2d(2, 2),
    "beyond the edge": lambda: nn.MaxPool2d(3, 2, ceil_mode=True),
    "with gaps between": lambda: nn.MaxPool2d(2, 3),
    "average": lambda: nn.AvgPool2d(3, 2),
}


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_gives_what_the_layers_give_apart(pool: str, relu: bool, dtype: torch.dtype) -> None:
    apart, fused = (build(relu=relu, pool=POOLS[pool]()) for _ in range(2))
    assert fuse_normalisations(fused) == 1
    z = draw(dtype)
    (out, grad), (truth, true_grad) = run(fused, z), run(apart, z)
    assert out.dtype == grad.dtype == dtype
    assert out.is_contiguous(memory_format=torch.channels_last)
    tolerance = 2e-6 if dtype == torch.float32 else 2**-7
    torch.testing.assert_close(out, truth, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(grad, true_grad, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("towers", "n", "beta"), [(1, 5, 0.75), (2, 3, 0.5), (3, 7, 1.0)])
def test_other_numbers_than_the_papers(towers: int, n: int, beta: float) -> None:
    apart, fused = (build(towers=towers, n=n, beta=beta, pool=nn.MaxPool2d(3, 2)) for _ in range(2))
    fuse_normalisations(fused)
    z = draw(torch.float32)
    for found, truth in zip(run(fused, z), run(apart, z), strict=True):
        torch.testing.assert_close(found, truth, rtol=2e-6, atol=2e-6)


def test_each_tower_alone_by_torchs_own_normalisation() -> None:
    fused = build()
    fuse_normalisations(fused)
    torchs = nn.LocalResponseNorm(N, alpha=N * ALPHA, beta=BETA, k=K)
    z = draw(torch.float32)
    for half in (slice(0, 12), slice(12, 24)):
        torch.testing.assert_close(fused(z)[:, half], torchs(z.relu()[:, half]))


def test_in_bf16_only_the_result_is_rounded(check_rounded_once: Callable[..., None]) -> None:
    fused = build(relu=False)
    fuse_normalisations(fused)
    with torch.autocast("cpu", torch.bfloat16):
        check_rounded_once(fused.lrn, draw(torch.bfloat16).abs())


def test_in_float64_the_layers_run_apart_and_their_gradient_is_right() -> None:
    fused = build(pool=nn.MaxPool2d(2, 2))
    fuse_normalisations(fused)
    z = draw(torch.float64, 4, 4).requires_grad_()
    assert torch.autograd.gradcheck(fused, (z,), fast_mode=True)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_the_result_does_not_depend_on_the_threads(threads: int) -> None:
    fused, before = build(pool=nn.MaxPool2d(3, 2)), torch.get_num_threads()
    fuse_normalisations(fused)
    truth = run(fused, draw(torch.bfloat16))
    torch.set_num_threads(threads)
    try:
        found = run(fused, draw(torch.bfloat16))
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, found, truth))


def test_maps_that_are_not_channels_last_are_taken_too() -> None:
    fused = build(pool=nn.MaxPool2d(3, 2))
    fuse_normalisations(fused)
    z = draw(torch.float32)
    torch.testing.assert_close(fused(z.contiguous()), fused(z), rtol=0, atol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_not_lost(value: float) -> None:
    # Or a run that diverges would not be noticed.
    fused = build(pool=nn.MaxPool2d(3, 2))
    fuse_normalisations(fused)
    for dtype in (torch.float32, torch.bfloat16):
        z = draw(dtype)
        z[2, 3, 4, 4] = value
        out = fused(z)
        assert not out[2].isfinite().all()
        assert out[[0, 1, 3, 4]].isfinite().all()


def test_of_equal_values_in_a_window_the_first_gets_the_gradient() -> None:
    fused = build(pool=nn.MaxPool2d(3, 2))
    fuse_normalisations(fused)
    z = torch.ones(1, 24, 3, 3, requires_grad=True)
    fused(z).sum().backward()
    assert z.grad is not None
    assert (z.grad[..., 0, 0] > 0).all()
    assert (z.grad.flatten(2)[..., 1:] == 0).all()


@pytest.mark.parametrize("name", ["paper", "original", "one-gpu", "cifar-lrn"])
def test_a_whole_network_stays_the_same_function(name: str) -> None:
    variant = VARIANTS[name].config if name != "paper" else AlexNetConfig()
    torch.manual_seed(0)
    network = AlexNet(variant).eval()
    x = torch.randn(2, 3, variant.crop, variant.crop) * 60
    with torch.inference_mode():
        truth = network(x).logits
        count = fuse_normalisations(network)
        assert count == sum(isinstance(m, LocalResponseNorm) for m in network.children()) > 0
        # Again, it changes nothing.
        assert fuse_normalisations(network) == count
        torch.testing.assert_close(network(x).logits, truth, rtol=1e-4, atol=1e-5)
    fused = [m.fused for m in network.children() if isinstance(m, LocalResponseNorm)]
    assert all(isinstance(one, Neighbours) for one in fused)


def test_the_papers_relu_and_pooling_are_taken_over() -> None:
    with torch.device("meta"):
        network = AlexNet(AlexNetConfig())
    names = list(network.state_dict())
    fuse_normalisations(network)
    taken = {name for name, module in network.named_children() if isinstance(module, nn.Identity)}
    assert taken == {"relu1", "pool1", "relu2", "pool2"}
    assert list(network.state_dict()) == names


def test_gradients_of_a_loss_through_a_convolution() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 24, 3).to(memory_format=torch.channels_last)
    x = torch.randn(4, 3, 12, 12)
    gradients = []
    for fuse in (False, True):
        layers = build(pool=nn.MaxPool2d(3, 2))
        if fuse:
            fuse_normalisations(layers)
        conv.zero_grad()
        (layers(conv(x)) - 1).square().mean().backward()
        assert conv.weight.grad is not None
        gradients.append(conv.weight.grad.clone())
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)
