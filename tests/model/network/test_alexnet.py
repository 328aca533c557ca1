"""The network against the paper's table: counts, shapes, initial values, what a tower sees."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from model.network.alexnet import AlexNet
from model.network.config import AlexNetConfig, ConfigError
from model.network.modules import Dropout

KERNELS = {
    "conv1": (96, 3, 11, 11),
    "conv2": (256, 48, 5, 5),
    "conv3": (384, 256, 3, 3),
    "conv4": (384, 192, 3, 3),
    "conv5": (256, 192, 3, 3),
    "fc6": (4096, 256 * 6 * 6),
    "fc7": (4096, 4096),
    "fc8": (1000, 4096),
}
"""§3.5: "96 kernels of size 11×11×3", "256 kernels of size 5×5×48" and so on."""
BIAS = {
    "conv1": 0, "conv2": 1, "conv3": 0, "conv4": 1, "conv5": 1, "fc6": 1, "fc7": 1, "fc8": 0,
}  # fmt: skip
"""§5: one in the second, fourth and fifth convolutional layers and the hidden layers."""
OUTPUTS = {
    "conv1": (96, 55, 55),
    "lrn1": (96, 55, 55),
    "pool1": (96, 27, 27),
    "conv2": (256, 27, 27),
    "lrn2": (256, 27, 27),
    "pool2": (256, 13, 13),
    "conv3": (384, 13, 13),
    "conv4": (384, 13, 13),
    "conv5": (256, 13, 13),
    "pool5": (256, 6, 6),
    "fc6": (4096,),
    "fc7": (4096,),
    "fc8": (1000,),
}


@pytest.fixture(scope="module")
def network() -> AlexNet:
    torch.manual_seed(0)
    return AlexNet().eval()


def layer(network: AlexNet, name: str) -> nn.Conv2d:
    found = network.get_submodule(name)
    assert isinstance(found, nn.Conv2d | nn.Linear)
    return found  # type: ignore[return-value]


def through(network: AlexNet, x: Tensor, first: str, last: str) -> Tensor:
    """Run the layers from the first to the last of these names."""
    names = [name for name, _ in network.named_children()]
    for name in names[names.index(first) : names.index(last) + 1]:
        x = network.get_submodule(name)(x)
    return x


@contextmanager
def watching(network: AlexNet, *names: str) -> Iterator[dict[str, Tensor]]:
    """Keep what these layers give, before a ReLU in place changes it."""
    seen: dict[str, Tensor] = {}

    def keep(name: str, out: Tensor) -> None:
        seen[name] = out.clone()

    hooks = [
        network.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, out, name=name: keep(name, out)
        )
        for name in names
    ]
    yield seen
    for hook in hooks:
        hook.remove()


def test_parameter_count_is_the_papers(network: AlexNet) -> None:
    by_hand = sum(math.prod(shape) + shape[0] for shape in KERNELS.values())
    assert by_hand == 60_965_224
    assert sum(p.numel() for p in network.parameters()) == by_hand


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_and_initial_values_are_the_papers(network: AlexNet, name: str) -> None:
    weight, bias = layer(network, name).weight, layer(network, name).bias
    assert bias is not None
    assert tuple(weight.shape) == KERNELS[name]
    assert bias.unique().tolist() == [BIAS[name]]
    # The estimate of σ from n normal values has a standard error of σ / √(2n).
    assert weight.std().item() == pytest.approx(0.01, abs=5 * 0.01 / math.sqrt(2 * weight.numel()))
    assert abs(weight.mean().item()) < 5 * 0.01 / math.sqrt(weight.numel())
    kurtosis = ((weight / 0.01) ** 4).mean().item()
    assert kurtosis == pytest.approx(3, abs=5 * math.sqrt(96 / weight.numel()))  # a Gaussian's


def test_every_layers_output_has_the_papers_shape(network: AlexNet) -> None:
    with torch.inference_mode(), watching(network, *OUTPUTS) as seen:
        logits, fc7 = network(torch.zeros(2, 3, 224, 224))
    assert {name: tuple(out.shape[1:]) for name, out in seen.items()} == OUTPUTS
    assert logits.shape == (2, 1000)
    assert fc7.shape == (2, 4096)


def test_about_650_000_neurons() -> None:
    # Figure 2's caption, without its last words "1000": 290,400 + 186,624 + 64,896 + ...
    neurons = sum(math.prod(OUTPUTS[name]) for name in KERNELS)
    assert neurons == pytest.approx(650_000, rel=0.02)


def test_fc8_has_as_many_outputs_as_there_are_classes() -> None:
    with torch.device("meta"):
        small = AlexNet(AlexNetConfig(classes=14))
    assert layer(small, "fc8").weight.shape == (14, 4096)


def test_the_border_of_conv1_is_three_zeros_at_the_bottom_and_right(network: AlexNet) -> None:
    x = torch.randn(1, 3, 224, 224)
    weight, bias = network.conv1.weight, network.conv1.bias
    assert bias is not None
    with torch.no_grad(), watching(network, "conv1") as seen:
        network(x)
    first = (weight * x[0, :, :11, :11]).sum((1, 2, 3)) + bias
    torch.testing.assert_close(seen["conv1"][0, :, 0, 0], first, rtol=1e-4, atol=1e-4)
    # Window 54 begins at pixel 216 and has eight of its eleven rows and columns on the image.
    last = (weight[:, :, :8, :8] * x[0, :, 216:, 216:]).sum((1, 2, 3)) + bias
    torch.testing.assert_close(seen["conv1"][0, :, 54, 54], last, rtol=1e-4, atol=1e-4)


def tower_gradient(network: AlexNet, stop: str, keep: slice) -> Tensor:
    """Gradient at pool1's output of what half of a layer's maps give, other layers as they are."""
    pooled = torch.rand(1, 96, 27, 27, requires_grad=True)
    x = through(network, pooled, "conv2", stop)
    x[:, keep].sum().backward()
    assert pooled.grad is not None
    return pooled.grad[0].abs().sum((1, 2))


def test_conv2_and_its_normalisation_see_only_their_own_gpu(network: AlexNet) -> None:
    first = tower_gradient(network, "lrn2", slice(0, 128))
    assert (first[:48] > 0).all()
    assert (first[48:] == 0).all()
    second = tower_gradient(network, "lrn2", slice(128, 256))
    assert (second[:48] == 0).all()
    assert (second[48:] > 0).all()


def test_conv3_sees_both_gpus(network: AlexNet) -> None:
    assert (tower_gradient(network, "relu3", slice(0, 192)) > 0).all()


def test_conv4_and_conv5_see_only_their_own_gpu(network: AlexNet) -> None:
    for tower in (0, 1):
        maps = torch.rand(1, 384, 13, 13, requires_grad=True)
        x = through(network, maps, "conv4", "relu5")
        x[:, tower * 128 : (tower + 1) * 128].sum().backward()
        assert maps.grad is not None
        reached = maps.grad[0].abs().sum((1, 2)) > 0
        assert reached[tower * 192 : (tower + 1) * 192].all()
        assert not reached[(1 - tower) * 192 : (2 - tower) * 192].any()


def test_no_activation_crosses_before_conv3(network: AlexNet) -> None:
    x = torch.rand(1, 96, 27, 27)
    other = x.clone()
    other[:, 48:] = torch.rand(1, 48, 27, 27)
    with torch.no_grad():
        a, b = (through(network, v, "conv2", "lrn2") for v in (x, other))
    assert torch.equal(a[:, :128], b[:, :128])
    assert not torch.equal(a[:, 128:], b[:, 128:])


def test_dropout_zeroes_half_in_training_and_halves_at_test() -> None:
    torch.manual_seed(1)
    dropout, x = Dropout(0.5), torch.full((100_000,), 3.0)
    trained = dropout.train()(x)
    assert set(trained.tolist()) == {0.0, 3.0}
    assert (trained == 0).float().mean().item() == pytest.approx(0.5, abs=0.01)
    assert dropout.eval()(x).unique().tolist() == [1.5]


def test_fc7_is_the_feature_before_dropout(network: AlexNet) -> None:
    x = torch.randn(1, 3, 224, 224) * 50
    with torch.inference_mode():
        logits, fc7 = network(x)
        torch.testing.assert_close(layer(network, "fc8")(fc7 * 0.5), logits)
    assert (fc7 >= 0).all()


def test_the_small_preset_starts_from_hes_weights_and_zero_biases() -> None:
    torch.manual_seed(0)
    network = AlexNet(AlexNetConfig(classes=10, init="he", input_scale=60))
    for name, shape in KERNELS.items():
        weight, bias = layer(network, name).weight, layer(network, name).bias
        sigma = 0.01 if name == "fc8" else math.sqrt(2 / math.prod(shape[1:]))
        assert weight.std().item() == pytest.approx(sigma, rel=0.03)
        assert bias is not None
        assert not bias.any()


@pytest.mark.parametrize(
    "wrong",
    [
        {"classes": 0}, {"dropout": 1.0}, {"lrn_n": 4}, {"input_scale": 0.0}, {"init": "zeros"},
        {"net": "vgg"}, {"activation": "gelu"}, {"without": "conv6"}, {"side": 200}, {"crop": 32},
        {"crop": 7, "net": "cifar"},
        {"conv6": True, "net": "torchvision"}, {"without": "conv3", "net": "caffenet"},
    ],
)  # fmt: skip
def test_a_configuration_that_cannot_be_built_is_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        AlexNetConfig(**wrong)  # type: ignore[arg-type]
