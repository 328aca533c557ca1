"""A strided convolution as one without a stride: the same products, and zeros."""

import shutil
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from model.network.alexnet import AlexNet
from model.network.config import AlexNetConfig
from model.network.cpu.folding import (
    fold_convolutions,
    fold_image,
    fold_image_compiled,
    fold_kernels,
)
from model.network.modules import StridedConv

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")


def small_integers(*shape: int) -> Tensor:
    """Numbers that bfloat16 holds exactly, like the sums of their products."""
    return torch.randint(-2, 3, shape, generator=torch.Generator().manual_seed(0)).float()


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "pad", "border"),
    [(20, 11, 4, 0, 3), (23, 11, 4, 2, 0), (19, 5, 2, 0, 1), (21, 6, 3, 1, 0), (17, 4, 4, 0, 0)],
)
def test_it_is_the_same_convolution(
    side: int, kernel: int, stride: int, pad: int, border: int
) -> None:
    conv = StridedConv(3, 8, kernel, stride, pad)
    layers = [nn.ZeroPad2d((0, border, 0, border)), conv] if border else [conv]
    network = nn.Sequential(*layers).to(memory_format=torch.channels_last)
    assert conv.bias is not None
    with torch.no_grad():
        conv.weight.copy_(small_integers(*conv.weight.shape))
        conv.bias.copy_(small_integers(8))
    x = small_integers(2, 3, side, side - 1).contiguous(memory_format=torch.channels_last)
    found = []
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            out = network(x)
        conv.zero_grad()
        out.backward(small_integers(*out.shape).to(out.dtype))
        assert conv.weight.grad is not None
        found.append((out.detach(), conv.weight.grad.clone()))
        fold_convolutions(network)
    assert conv.folded is not None
    for plain, folded in zip(*found, strict=True):
        torch.testing.assert_close(folded, plain, rtol=2**-8, atol=0)


def test_the_folded_image_holds_each_pixel_once() -> None:
    x = torch.arange(2 * 3 * 7 * 6.0).reshape(2, 3, 7, 6) + 1
    folded = fold_image(x, 3, 2, 3, 1)
    assert folded.shape == (2, 27, 3, 2)
    assert folded.dtype == torch.bfloat16
    # The last column lies beyond the two squares of three pixels, after one of padding.
    kept = x[..., :5]
    assert torch.equal(
        folded.float().flatten().sort().values[-kept.numel() :], kept.flatten().sort().values
    )
    assert (folded == 0).sum() == folded.numel() - kept.numel()


@pytest.mark.parametrize(
    ("shape", "rows", "columns", "stride", "pad"),
    [((3, 3, 23, 21), 6, 6, 4, 2), ((2, 3, 224, 224), 57, 57, 4, 0), ((1, 2, 7, 6), 3, 2, 3, 1)],
)
def test_the_compiled_loop_folds_to_the_last_bit(
    shape: tuple[int, ...], rows: int, columns: int, stride: int, pad: int
) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x[0, 0, 0, :4] = torch.tensor([torch.nan, torch.inf, -0.0, 1 + 2**-8])
    x = x.contiguous(memory_format=torch.channels_last)
    truth = fold_image(x, rows, columns, stride, pad)
    found = fold_image_compiled(x, rows, columns, stride, pad)
    assert found is not None
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found.isnan(), truth.isnan())
    assert torch.equal(found.nan_to_num(7.0), truth.nan_to_num(7.0))
    # What it cannot do is left to torch.
    assert fold_image_compiled(x.double(), rows, columns, stride, pad) is None
    assert fold_image_compiled(x.contiguous(), rows, columns, stride, pad) is None
    assert fold_image_compiled(x, rows, 5000, stride, pad) is None


def test_the_folded_kernels_are_zero_beyond_their_own() -> None:
    weight = torch.ones(2, 3, 11, 11)
    folded = fold_kernels(weight, 3, 4)
    assert folded.shape == (2, 48, 3, 3)
    assert folded.sum() == weight.sum()


def test_outside_of_bf16_nothing_changes() -> None:
    torch.manual_seed(0)
    network = AlexNet(AlexNetConfig(classes=3, crop=67)).eval()
    x = torch.randn(1, 3, 67, 67)
    with torch.inference_mode():
        truth = network(x).logits
        fold_convolutions(network)
        assert torch.equal(network(x).logits, truth)


def test_only_the_first_convolution_is_folded_and_takes_the_border() -> None:
    with torch.device("meta"):
        network = AlexNet(AlexNetConfig())
    names = [name for name, _ in network.named_children()]
    fold_convolutions(network)
    fold_convolutions(network)
    assert [name for name, _ in network.named_children()] == names
    changed = [name for name, one in network.named_children() if isinstance(one, nn.Identity)]
    folded = [
        name
        for name, one in network.named_children()
        if isinstance(one, StridedConv) and one.folded
    ]
    assert folded == ["conv1"]
    assert (*changed, *folded) in pairwise(names)
