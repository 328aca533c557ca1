"""Every network of the family against its source: counts, shapes, and another way to compute it.

The networks that the tests run are the functional ones written here from the paper, the 2012
source's description and Caffe's prototxt files, each tower and each layer spelled out.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from model.network.alexnet import AlexNet
from model.network.architectures import VARIANTS
from model.network.config import AlexNetConfig, ConfigError
from model.network.modules import Dropout, LocallyConnected

State = Mapping[str, Tensor]
CLASSES = 7


def conv(maps: int, kernel: int, sees: int) -> int:
    """Parameters of a convolutional layer: its kernels see so many maps."""
    return maps * (kernel * kernel * sees + 1)


def dense(neurons: int, inputs: int) -> int:
    return neurons * (inputs + 1)


def local(places: int, maps: int, sees: int) -> int:
    """A locally connected layer of 3×3 has kernels and biases for each of its places."""
    return places * maps * (9 * sees + 1)


PAPER = {  # §3.5's text
    "conv1": conv(96, 11, 3),
    "conv2": conv(256, 5, 48),
    "conv3": conv(384, 3, 256),
    "conv4": conv(384, 3, 192),
    "conv5": conv(256, 3, 192),
    "fc6": dense(4096, 256 * 6 * 6),
    "fc7": dense(4096, 4096),
    "fc8": dense(1000, 4096),
}
# bvlc_alexnet and bvlc_reference_caffenet: num_output, kernel_size, and the maps before / group.
CAFFE = [
    conv(96, 11, 3), conv(256, 5, 96 // 2), conv(384, 3, 256), conv(384, 3, 384 // 2),
    conv(256, 3, 384 // 2), dense(4096, 9216), dense(4096, 4096), dense(1000, 4096),
]  # fmt: skip
# §3.2: half the kernels in conv1 to conv4; the last convolutional and the full layers keep theirs.
ONE_GPU = [
    conv(48, 11, 3), conv(128, 5, 48), conv(192, 3, 128), conv(192, 3, 192), conv(256, 3, 192),
    dense(4096, 9216), dense(4096, 4096), dense(1000, 4096),
]  # fmt: skip


def cifar(after_pool2: int, maps3: int) -> int:
    """The four-layer nets: two of 64 kernels of 5×5, two locally connected, ten classes."""
    places = after_pool2**2
    convolutions = conv(64, 5, 3) + conv(64, 5, 64)
    locals_ = local(places, maps3, 64) + local(places, 32, maps3)
    return convolutions + locals_ + dense(10, 32 * places)


WHOLE = sum(PAPER.values())
COUNTS = {
    "paper": WHOLE,
    "original": WHOLE,
    "one-gpu": sum(ONE_GPU),
    # conv3 sees 128 maps for 256.
    "separate-towers": WHOLE - PAPER["conv3"] + conv(384, 3, 128),
    "no-lrn": WHOLE,
    "no-overlap": WHOLE,
    "original-147": WHOLE,
    "original-148": WHOLE,
    "original-150": WHOLE - PAPER["conv3"] + conv(384, 3, 128),
    "original-167": WHOLE,
    "tanh": WHOLE,
    "no-dropout": WHOLE,
    # conv2 sees the image's colours.
    "no-conv1": WHOLE - PAPER["conv1"] - PAPER["conv2"] + conv(256, 5, 3),
    # conv3 sees conv1's 96 maps for conv2's 256.
    "no-conv2": WHOLE - PAPER["conv2"] - PAPER["conv3"] + conv(384, 3, 96),
    # conv4 sees both GPUs in its place: 256 maps for 192.
    "no-conv3": WHOLE - PAPER["conv3"] - PAPER["conv4"] + conv(384, 3, 256),
    # conv5 sees as many maps of conv3's as it did of conv4's.
    "no-conv4": WHOLE - PAPER["conv4"],
    # fc6 sees conv4's 384 maps for conv5's 256.
    "no-conv5": WHOLE - PAPER["conv5"] - PAPER["fc6"] + dense(4096, 384 * 6 * 6),
    "conv6": WHOLE + conv(256, 3, 256),
    "cifar": cifar(8, 32),
    "cifar-tanh": cifar(8, 32),
    "cifar-lrn": cifar(8, 64),
    "cifar-lrn-tanh": cifar(8, 64),
    "cifar-24": cifar(6, 32),
    "cifar-24-tanh": cifar(6, 32),
    "cifar-lrn-24": cifar(6, 64),
    "cifar-lrn-24-tanh": cifar(6, 64),
    # 4 × 4 places after three halvings of 32 pixels.
    "cifar-18pct": conv(32, 5, 3) + conv(32, 5, 32) + conv(64, 5, 32) + dense(10, 64 * 4 * 4),
    "cifar-80sec": conv(32, 5, 3)
    + conv(32, 5, 32)
    + conv(64, 5, 32)
    + dense(64, 64 * 4 * 4)
    + dense(10, 64),
    "caffe-alexnet": sum(CAFFE),
    "caffenet": sum(CAFFE),
    "torchvision": 61_100_840,
}


def shapes_only(config: AlexNetConfig) -> AlexNet:
    with torch.device("meta"):
        return AlexNet(config)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", VARIANTS)
def test_the_number_of_parameters(name: str) -> None:
    variant = VARIANTS[name]
    assert variant.parameters == COUNTS[name] == parameters(shapes_only(variant.config))


def test_the_papers_and_torchvisions_numbers() -> None:
    assert WHOLE == 60_965_224
    with torch.device("meta"):
        theirs = torchvision.models.alexnet(weights=None)
    assert parameters(theirs) == VARIANTS["torchvision"].parameters
    assert torchvision.models.AlexNet_Weights.DEFAULT.meta["num_params"] == COUNTS["torchvision"]


def outputs(config: AlexNetConfig) -> dict[str, tuple[int, ...]]:
    """What each layer gives for one image."""
    found, x = {}, torch.empty(1, 3, config.crop, config.crop, device="meta")
    for name, module in shapes_only(config).named_children():
        x = module(x)
        found[name] = tuple(x.shape[1:])
    return found


@pytest.mark.parametrize(
    ("name", "pixels", "once", "twice", "maps"),
    [("cifar", 32, 16, 8, 32), ("cifar-lrn", 32, 16, 8, 64),
     ("cifar-24", 24, 12, 6, 32), ("cifar-lrn-24", 24, 12, 6, 64)],
)  # fmt: skip
def test_shapes_of_the_nets_for_cifar(
    name: str, pixels: int, once: int, twice: int, maps: int
) -> None:
    found = outputs(VARIANTS[name].config)
    expected = {
        "conv1": (64, pixels, pixels),
        "pool1": (64, once, once),  # the last window hangs over, else there were one fewer
        "conv2": (64, once, once),
        "pool2": (64, twice, twice),
        "local3": (maps, twice, twice),
        "local4": (32, twice, twice),
        "flatten": (32 * twice * twice,),
        "fc10": (10,),
    }
    assert {layer: found[layer] for layer in expected} == expected
    order = [layer for layer in found if layer.startswith(("lrn", "pool"))]
    with_lrn = ["pool1", "lrn1", "lrn2", "pool2"]  # as the "11 %" net has them
    assert order == (with_lrn if "lrn" in name else ["pool1", "pool2"])


def test_pooling_without_overlap_gives_equivalent_dimensions() -> None:
    # §3.4: "which produces output of equivalent dimensions".
    assert outputs(VARIANTS["no-overlap"].config) == outputs(VARIANTS["paper"].config)


@pytest.mark.parametrize("name", ["caffe-alexnet", "caffenet"])
def test_shapes_of_caffes_nets(name: str) -> None:
    found = outputs(VARIANTS[name].config)
    assert [found[layer] for layer in ("conv1", "pool1", "conv2", "pool2", "conv3", "pool5")] == [
        (96, 55, 55), (96, 27, 27), (256, 27, 27), (256, 13, 13), (384, 13, 13), (256, 6, 6),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def numbers() -> Tensor:
    """Normal values that the networks here take their weights from, to draw them only once."""
    torch.manual_seed(0)
    return torch.randn(384 * 6 * 6 * 4096 + 1000)


def filled(config: AlexNetConfig, numbers: Tensor) -> AlexNet:
    """A network whose weights keep the signal's size, with biases that matter."""
    network = shapes_only(config)
    state = {}
    for skip, (name, like) in enumerate(network.state_dict().items()):
        fan_in = like.shape[-1] if "local" in name else like[0].numel()
        scale = 5.0 if name.endswith("bias") else math.sqrt(2 / fan_in)
        state[name] = numbers[skip : skip + like.numel()].reshape(like.shape) * scale
    network.load_state_dict(state, assign=True)
    return network.eval()


def images(side: int, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, side, side, generator=generator) * 60


def same(found: Tensor, expected: Tensor) -> None:
    """Equal to float32's rounding, by the largest value."""
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 2e-5 * expected.abs().max()


Act = Callable[[Tensor], Tensor]
Norm = Callable[[Tensor], Tensor]
PAPER_LRN: Norm = nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2)  # torch divides α by n


def each(x: Tensor, step: Callable[[Tensor], Tensor]) -> Tensor:
    """Do a step on each GPU's half of the maps alone."""
    half = x.shape[1] // 2
    return torch.cat([step(x[:, :half]), step(x[:, half:])], 1)


def own(x: Tensor, state: State, name: str, padding: int) -> Tensor:
    """A layer whose kernels see only their own GPU's maps."""
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    w, b, half = weight.chunk(2), bias.chunk(2), x.shape[1] // 2
    first = F.conv2d(x[:, :half], w[0], b[0], padding=padding)
    return torch.cat([first, F.conv2d(x[:, half:], w[1], b[1], padding=padding)], 1)


def both(x: Tensor, state: State, name: str, **options: int) -> Tensor:
    return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **options)


def full(x: Tensor, state: State, name: str) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def classifier(x: Tensor, state: State, act: Act, at_test: float) -> tuple[Tensor, Tensor]:
    """fc6 to fc8, with what a neuron is multiplied by at test: the logits and fc7."""
    fc6 = act(full(x.flatten(1), state, "fc6"))
    fc7 = act(full(fc6 * at_test, state, "fc7"))
    return full(fc7 * at_test, state, "fc8"), fc7


def paper_by_hand(
    state: State,
    x: Tensor,
    *,
    act: Act = F.relu,
    lrn: Norm = PAPER_LRN,
    window: int = 3,
    at_test: float = 0.5,
    without: str = "",
    sixth: bool = False,
    apart: bool = False,
) -> tuple[Tensor, Tensor]:
    """§3.5 layer by layer; logits and fc7."""

    def pool(x: Tensor) -> Tensor:
        return F.max_pool2d(x, window, 2)

    x = F.pad(x, (0, 3, 0, 3))
    x = pool(each(act(both(x, state, "conv1", stride=4)), lrn))
    x = pool(each(act(own(x, state, "conv2", 2)), lrn))
    if without != "conv3":
        x = act(own(x, state, "conv3", 1) if apart else both(x, state, "conv3", padding=1))
    if without == "conv3":
        x = act(both(x, state, "conv4", padding=1))
    elif without != "conv4":
        x = act(own(x, state, "conv4", 1))
    if without != "conv5":
        x = act(own(x, state, "conv5", 1))
    x = pool(x)
    if sixth:
        x = act(both(x, state, "conv6", padding=1))
    return classifier(x, state, act, at_test)


def test_shapes_of_network_147() -> None:
    found = outputs(VARIANTS["original-147"].config)
    # ORIGINAL.md: conv2 padded by 1, conv5 by 0: maps of 28, 26, 13, 11, 6.
    names = ("pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5")
    assert [found[name][1] for name in names] == [28, 26, 13, 13, 13, 11, 6]


@pytest.mark.parametrize("name", ["no-conv1", "no-conv2"])
def test_without_conv1_or_conv2_the_layers_after_them_see_maps_of_the_same_size(name: str) -> None:
    found, whole = outputs(VARIANTS[name].config), outputs(VARIANTS["paper"].config)
    assert not {name.removeprefix("no-"), f"relu{name[-1]}", f"lrn{name[-1]}"} & set(found)
    after = ("pool2", "conv3", "conv4", "conv5", "pool5", "fc6")
    assert [found[layer][1:] for layer in after] == [whole[layer][1:] for layer in after]


def test_without_conv1_or_conv2_by_hand(numbers: Tensor) -> None:
    x = images(224, 1)
    for name in ("no-conv1", "no-conv2"):
        network = filled(replace(VARIANTS[name].config, classes=CLASSES), numbers)
        state = network.state_dict()
        if name == "no-conv1":
            maps = each(F.relu(both(x, state, "conv2", stride=4, padding=2)), PAPER_LRN)
        else:
            padded = F.pad(x, (0, 3, 0, 3))
            maps = each(F.relu(both(padded, state, "conv1", stride=4)), PAPER_LRN)
        maps = F.max_pool2d(F.max_pool2d(maps, 3, 2), 3, 2)
        maps = F.relu(both(maps, state, "conv3", padding=1))
        maps = F.relu(own(F.relu(own(maps, state, "conv4", 1)), state, "conv5", 1))
        with torch.inference_mode():
            same(network(x).logits, classifier(F.max_pool2d(maps, 3, 2), state, F.relu, 0.5)[0])


def nothing(x: Tensor) -> Tensor:
    return x


PAPERS = {
    "paper": {},
    "tanh": {"act": torch.tanh},
    "no-lrn": {"lrn": nothing},
    "no-overlap": {"window": 2},
    "no-dropout": {"at_test": 1.0},
    "no-conv3": {"without": "conv3"},
    "no-conv4": {"without": "conv4"},
    "no-conv5": {"without": "conv5"},
    "conv6": {"sixth": True},
    "separate-towers": {"apart": True},
}


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_net_and_its_ablations(name: str, numbers: Tensor) -> None:
    network = filled(replace(VARIANTS[name].config, classes=CLASSES), numbers)
    x = images(224)
    with torch.inference_mode():
        logits, fc7 = network(x)
        expected = paper_by_hand(network.state_dict(), x, **PAPERS[name])  # type: ignore[arg-type]
    same(logits, expected[0])
    same(fc7, expected[1])


def test_tanh_is_in_the_sixth_layer_too(numbers: Tensor) -> None:
    config = replace(VARIANTS["tanh"].config, conv6=True, classes=CLASSES)
    network, x = filled(config, numbers), images(224, 1)
    with torch.inference_mode():
        expected = paper_by_hand(network.state_dict(), x, act=torch.tanh, sixth=True)
        same(network(x).logits, expected[0])


def original_by_hand(state: State, x: Tensor, run: int = 145) -> tuple[Tensor, Tensor]:
    """Networks of the 2012 source, in their order of layers; logits and fc7."""
    across: Norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2)  # α / n, as torch has it
    lrn = nothing if run == 148 else across

    def pool(x: Tensor) -> Tensor:
        if run != 147:
            return F.max_pool2d(x, 3, 2)
        # Windows of two; the last one of an odd side hangs over the edge, where there is nothing.
        odd = x.shape[-1] % 2
        return F.max_pool2d(F.pad(x, (0, odd, 0, odd), value=-math.inf), 2, 2)

    def within(a: Tensor) -> Tensor:
        if run == 148:
            return a
        side, padded = a.shape[-1], F.pad(a, (2, 2, 2, 2))
        total = torch.zeros_like(a)
        for down in range(5):
            for right in range(5):
                total += padded[..., down : down + side, right : right + side] ** 2
        return a / (1 + 0.001 / 25 * total) ** 0.75

    x = both(F.pad(x, (0, 3, 0, 3)), state, "conv1", stride=4)
    x = F.relu(pool(each(x, lrn)))
    x = F.relu(own(x, state, "conv2", 1 if run == 147 else 2))
    x = pool(within(x if run == 167 else each(x, lrn)))
    x = F.relu(own(x, state, "conv3", 1) if run == 150 else both(x, state, "conv3", padding=1))
    x = F.relu(own(x, state, "conv4", 1))
    x = F.relu(pool(own(x, state, "conv5", 0 if run == 147 else 1)))
    return classifier(x, state, F.relu, 0.5)


def test_the_net_as_it_was_run_in_2012(numbers: Tensor) -> None:
    network = filled(replace(VARIANTS["original"].config, classes=CLASSES), numbers)
    x = images(224)
    with torch.inference_mode():
        logits, fc7 = network(x)
        expected = original_by_hand(network.state_dict(), x)
        papers = paper_by_hand(network.state_dict(), x)
    same(logits, expected[0])
    same(fc7, expected[1])
    # What sets it apart from the paper's shows in these numbers.
    assert (logits - papers[0]).abs().max() > 0.01 * logits.abs().max()


@pytest.mark.parametrize("run", [147, 148, 150, 167])
def test_the_other_nets_of_2012(run: int, numbers: Tensor) -> None:
    config = replace(VARIANTS[f"original-{run}"].config, classes=CLASSES)
    network, x = filled(config, numbers), images(224, 1)
    with torch.inference_mode():
        logits, fc7 = network(x)
        expected = original_by_hand(network.state_dict(), x, run)
    same(logits, expected[0])
    same(fc7, expected[1])


def test_148_is_no_lrn_but_for_its_initial_weights(numbers: Tensor) -> None:
    nets = [
        filled(replace(VARIANTS[name].config, classes=CLASSES), numbers)
        for name in ("original-148", "no-lrn")
    ]
    x = images(224, 1)
    with torch.inference_mode():
        same(nets[0](x).logits, nets[1](x).logits)


def one_gpu_by_hand(state: State, x: Tensor) -> tuple[Tensor, Tensor]:
    x = F.relu(both(F.pad(x, (0, 3, 0, 3)), state, "conv1", stride=4))
    x = F.relu(both(F.max_pool2d(PAPER_LRN(x), 3, 2), state, "conv2", padding=2))
    x = F.relu(both(F.max_pool2d(PAPER_LRN(x), 3, 2), state, "conv3", padding=1))
    x = F.relu(both(x, state, "conv4", padding=1))
    x = F.relu(both(x, state, "conv5", padding=1))
    return classifier(F.max_pool2d(x, 3, 2), state, F.relu, 0.5)


def test_the_net_of_one_gpu(numbers: Tensor) -> None:
    network = filled(replace(VARIANTS["one-gpu"].config, classes=CLASSES), numbers)
    x = images(224)
    with torch.inference_mode():
        logits, fc7 = network(x)
        expected = one_gpu_by_hand(network.state_dict(), x)
    same(logits, expected[0])
    same(fc7, expected[1])


@pytest.mark.parametrize("name", ["one-gpu", "torchvision", "cifar", "cifar-lrn"])
def test_nets_of_one_gpu_have_no_groups(name: str) -> None:
    modules = list(shapes_only(VARIANTS[name].config).modules())
    assert {module.groups for module in modules if isinstance(module, nn.Conv2d)} == {1}


def test_without_dropout_nothing_is_dropped() -> None:
    modules = shapes_only(VARIANTS["no-dropout"].config).modules()
    assert [module.p for module in modules if isinstance(module, Dropout)] == [0, 0]


def test_without_conv3_the_towers_meet_in_conv4(numbers: Tensor) -> None:
    network = shapes_only(VARIANTS["no-conv3"].config)
    found = {
        name: module.groups
        for name, module in network.named_children()
        if isinstance(module, nn.Conv2d)
    }
    assert found == {"conv1": 1, "conv2": 2, "conv4": 1, "conv5": 2}
    assert not hasattr(network, "relu3")


@pytest.mark.parametrize(("name", "meets"), [("paper", True), ("separate-towers", False)])
def test_whether_tower_1s_convolutions_reach_tower_2s_pool5(
    name: str, meets: bool, numbers: Tensor
) -> None:
    network = filled(replace(VARIANTS[name].config, classes=CLASSES, crop=67), numbers)
    found: list[Tensor] = []
    network.get_submodule("pool5").register_forward_hook(lambda *args: found.append(args[2]))
    with torch.inference_mode():
        network(images(67))
    # Not in inference mode: the weights are views of shared numbers.
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                assert module.bias is not None
                for tensor in (module.weight, module.bias):
                    halves = tensor.chunk(2)
                    tensor.data = torch.cat([halves[0] * 1.5, halves[1]])
        network(images(67))
    before, after = (x.chunk(2, 1) for x in found)
    assert not torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1]) is not meets


@pytest.mark.parametrize("name", ["original", "one-gpu", "separate-towers"])
@pytest.mark.parametrize("layer", ["conv3", "conv4", "conv5"])
def test_the_other_nets_do_without_a_layer_too(name: str, layer: str) -> None:
    config = replace(VARIANTS[name].config, without=layer)  # type: ignore[arg-type]
    whole = outputs(VARIANTS[name].config)
    found = outputs(config)
    assert set(whole) - set(found) == {layer, f"relu{layer[-1]}"}
    assert found["pool5"][1:] == (6, 6)


def caffe_by_hand(state: State, x: Tensor, *, pool_first: bool, act: Act) -> tuple[Tensor, Tensor]:
    """The layers of bvlc_alexnet's or bvlc_reference_caffenet's deploy.prototxt."""
    lrn: Norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1)

    def settle(x: Tensor) -> Tensor:
        return lrn(F.max_pool2d(x, 3, 2)) if pool_first else F.max_pool2d(lrn(x), 3, 2)

    x = settle(act(both(x, state, "conv1", stride=4)))
    x = settle(act(both(x, state, "conv2", padding=2, groups=2)))
    x = act(both(x, state, "conv3", padding=1))
    x = act(both(x, state, "conv4", padding=1, groups=2))
    x = act(both(x, state, "conv5", padding=1, groups=2))
    return classifier(F.max_pool2d(x, 3, 2), state, act, 1.0)


@pytest.mark.parametrize(("name", "pool_first"), [("caffe-alexnet", False), ("caffenet", True)])
def test_caffes_nets(name: str, pool_first: bool, numbers: Tensor) -> None:
    network = filled(replace(VARIANTS[name].config, classes=CLASSES), numbers)
    x = images(227)
    with torch.inference_mode():
        logits, fc7 = network(x)
        state = network.state_dict()
        expected = caffe_by_hand(state, x, pool_first=pool_first, act=F.relu)
        other = caffe_by_hand(state, x, pool_first=not pool_first, act=F.relu)
    same(logits, expected[0])
    same(fc7, expected[1])
    assert (logits - other[0]).abs().max() > 1e-3 * logits.abs().max()


@pytest.mark.parametrize("name", ["caffe-alexnet", "caffenet", "torchvision"])
def test_dropout_of_the_later_nets_is_inverted(name: str) -> None:
    x = torch.ones(4, 1000)
    for module in shapes_only(VARIANTS[name].config).modules():
        if isinstance(module, Dropout):
            assert torch.equal(module.eval()(x), x)
            assert set(module.train()(x).unique().tolist()) == {0.0, 2.0}


# Caffe's: the std of gaussian fillers and the value of constant ones in train_val.prototxt.
SIGMAS: dict[str, dict[str, tuple[float, float]]] = {
    "caffe-alexnet": {
        "conv1": (0.01, 0), "conv2": (0.01, 0.1), "conv3": (0.01, 0), "conv4": (0.01, 0.1),
        "conv5": (0.01, 0.1), "fc6": (0.005, 0.1), "fc7": (0.005, 0.1), "fc8": (0.01, 0),
    },
    "caffenet": {
        "conv1": (0.01, 0), "conv2": (0.01, 1), "conv3": (0.01, 0), "conv4": (0.01, 1),
        "conv5": (0.01, 1), "fc6": (0.005, 1), "fc7": (0.005, 1), "fc8": (0.01, 0),
    },
    "original": {
        "conv1": (0.01, 0), "conv2": (0.01, 1), "conv3": (0.03, 0), "conv4": (0.03, 1),
        "conv5": (0.03, 1), "fc6": (0.01, 1), "fc7": (0.01, 1), "fc8": (0.01, 0),
    },
    # §5: ones "to provide the ReLUs with positive inputs", of which this net has none.
    "tanh": {
        "conv1": (0.01, 0), "conv2": (0.01, 0), "conv3": (0.01, 0), "conv4": (0.01, 0),
        "conv5": (0.01, 0), "fc6": (0.01, 0), "fc7": (0.01, 0), "fc8": (0.01, 0),
    },
    "cifar-lrn": {
        "conv1": (1e-4, 0), "conv2": (0.01, 0), "local3": (0.04, 0), "local4": (0.04, 0),
        "fc10": (0.01, 0),
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SIGMAS)
def test_initial_values_are_the_sources(name: str) -> None:
    torch.manual_seed(0)
    state = AlexNet(replace(VARIANTS[name].config)).state_dict()
    assert {key.split(".")[0] for key in state} == set(SIGMAS[name])
    for layer, (sigma, bias) in SIGMAS[name].items():
        weight = state[f"{layer}.weight"]
        # The estimate of σ from n normal values has a standard error of σ / √(2n).
        error = 5 * sigma / math.sqrt(2 * weight.numel())
        assert weight.std().item() == pytest.approx(sigma, abs=error)
        assert state[f"{layer}.bias"].unique().tolist() == pytest.approx([bias])


def test_hes_weights_fit_locally_connected_layers() -> None:
    torch.manual_seed(0)
    state = AlexNet(replace(VARIANTS["cifar"].config, init="he")).state_dict()
    # What one neuron of theirs sees: 3×3 places of 64 and of 32 maps.
    for layer, fan_in in (("local3", 3 * 3 * 64), ("local4", 3 * 3 * 32), ("conv2", 5 * 5 * 64)):
        sigma = math.sqrt(2 / fan_in)
        assert state[f"{layer}.weight"].std().item() == pytest.approx(sigma, rel=0.02)


def theirs_by_our_names(network: nn.Module) -> dict[str, Tensor]:
    """torchvision's tensors under this project's names."""
    names = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
    values = network.state_dict().values()
    return dict(
        zip(
            [f"{name}.{part}" for name in names for part in ("weight", "bias")], values, strict=True
        )
    )


def test_torchvisions_net_is_torchvisions() -> None:
    torch.manual_seed(3)
    theirs = torchvision.models.alexnet(weights=None).eval()
    torch.manual_seed(3)
    ours = AlexNet(VARIANTS["torchvision"].config).eval()
    # The same initial distributions: even the same values, drawn in the same order.
    for name, value in theirs_by_our_names(theirs).items():
        assert torch.equal(ours.state_dict()[name], value), name
    x = images(224)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x).logits, theirs(x), rtol=1e-5, atol=1e-6)
        same(ours(x).fc7, theirs.classifier[:6](theirs.features(x).flatten(1)))
    # In training it drops in the same places: before fc6 and before fc7.
    order = [name for name, _ in ours.named_children()]
    assert order[order.index("flatten") :] == [
        "flatten", "drop6", "fc6", "relu6", "drop7", "fc7", "relu7", "fc8",
    ]  # fmt: skip


def cifar_by_hand(state: State, x: Tensor, act: Act, lrn: Norm) -> tuple[Tensor, Tensor]:
    """The layers of ORIGINAL.md's "13 %" net, or with LRN of the "11 %" net; logits and maps."""

    def pool(x: Tensor) -> Tensor:
        # The last window of three hangs one over the edge, where there is nothing.
        return F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-math.inf), 3, 2)

    def local(x: Tensor, name: str) -> Tensor:
        weight, out = state[f"{name}.weight"], state[f"{name}.bias"].expand(len(x), -1, -1, -1)
        out, side, padded = out.clone(), x.shape[-1], F.pad(x, (1, 1, 1, 1))
        for place in range(side * side):
            row, column = divmod(place, side)
            patch = padded[:, :, row : row + 3, column : column + 3].flatten(1)
            out[:, :, row, column] += patch @ weight[place].T
        return out

    x = lrn(pool(act(both(x, state, "conv1", padding=2))))
    x = pool(lrn(act(both(x, state, "conv2", padding=2))))
    x = act(local(act(local(x, "local3")), "local4")).flatten(1)
    return full(x, state, "fc10"), x


def average_by_hand(x: Tensor) -> Tensor:
    """The mean of 3 × 3, two apart; the last window's mean is of what lies within the edge."""
    side = (x.shape[-1] - 1) // 2 + 1
    out = torch.empty(*x.shape[:2], side, side)
    for row in range(side):
        for column in range(side):
            window = x[:, :, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
            out[:, :, row, column] = window.mean((2, 3))
    return out


@pytest.mark.parametrize("name", ["cifar-18pct", "cifar-80sec"])
def test_the_small_nets_for_cifar(name: str, numbers: Tensor) -> None:
    network, x = filled(VARIANTS[name].config, numbers), images(32, 3)
    state = network.state_dict()

    def within(a: Tensor) -> Tensor:
        if name == "cifar-80sec":
            return a
        total = 9 * F.avg_pool2d(a * a, 3, 1, padding=1)
        return a / (1 + 5e-5 / 9 * total) ** 0.75

    pooled = F.max_pool2d(F.pad(both(x, state, "conv1", padding=2), (0, 1, 0, 1), value=-1e9), 3, 2)
    maps = within(F.relu(pooled))
    maps = within(average_by_hand(F.relu(both(maps, state, "conv2", padding=2))))
    maps = average_by_hand(F.relu(both(maps, state, "conv3", padding=2))).flatten(1)
    if name == "cifar-80sec":
        maps = F.relu(full(maps, state, "fc64"))
    with torch.inference_mode():
        logits, features = network(x)
    same(logits, full(maps, state, "fc10"))
    same(features, maps)


LOCAL_CIFAR = [n for n, variant in VARIANTS.items() if variant.config.net == "cifar"]


@pytest.mark.parametrize("name", LOCAL_CIFAR)
def test_the_nets_for_cifar(name: str, numbers: Tensor) -> None:
    config = VARIANTS[name].config
    network, x = filled(config, numbers), images(config.crop, 3)
    # torch divides α by n; the net's α is already 0.001 / 9.
    nine: Norm = nn.LocalResponseNorm(9, alpha=0.001, beta=0.75, k=1)
    act, lrn = (torch.tanh if "tanh" in name else F.relu), (nine if "lrn" in name else nothing)
    with torch.inference_mode():
        logits, features = network(x)
        expected = cifar_by_hand(network.state_dict(), x, act, lrn)
    same(logits, expected[0])
    same(features, expected[1])
    assert features.shape == (3, 1152 if "24" in name else 2048)


@pytest.mark.parametrize("net", ["caffe-alexnet", "caffenet", "torchvision", "cifar"])
def test_layers_are_left_out_or_added_only_in_the_papers_nets(net: str) -> None:
    for change in ({"without": "conv3"}, {"conv6": True}):
        with pytest.raises(ConfigError, match=net):
            replace(AlexNetConfig(), net=net, **change)  # type: ignore[arg-type]


def test_the_papers_network_multiplies_as_often_as_its_kernels_and_places_say() -> None:
    kernels_times_places = (
        96 * 363 * 55**2 + 256 * 1200 * 27**2 + 384 * 2304 * 13**2
        + 384 * 1728 * 13**2 + 256 * 1728 * 13**2 + 4096 * 9216 + 4096 * 4096 + 1000 * 4096
    )  # fmt: skip
    # Without LRN, whose banded convolutions would count as well.
    with FlopCounterMode(display=False) as counter:
        shapes_only(VARIANTS["no-lrn"].config)(torch.empty(1, 3, 224, 224, device="meta"))
    assert counter.get_total_flops() == 2 * kernels_times_places


def test_only_the_nets_for_cifar_have_locally_connected_layers() -> None:
    for name, variant in VARIANTS.items():
        modules = shapes_only(variant.config).modules()
        found = sum(isinstance(module, LocallyConnected) for module in modules)
        assert found == (2 if name in LOCAL_CIFAR else 0)
