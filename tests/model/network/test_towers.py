"""Two towers in two real processes against the whole network in one.

Run as a script, this file is one of the two processes: tower, port of the store, folder. One case
has the paper's widths; the others are narrow, since what is compared does not depend on them.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from model.network.alexnet import AlexNet
from model.network.architectures import VARIANTS
from model.network.config import AlexNetConfig, ConfigError
from model.network.counter_rng import derive_image_keys
from model.network.towers import (
    AllGather,
    RowParallelLinear,
    Tower,
    TowerRank,
    check_splittable,
    merge_state_dicts,
    split_dimension,
    split_state_dict,
)
from tests.narrow_networks import narrow_network

ROOT = Path(__file__).parents[3]
LIMIT = 120.0
"""Seconds that the two processes may take in all, and half of it one may wait for the other."""
SMALL = AlexNetConfig(classes=5, init="he")
NARROW = replace(SMALL, crop=67)  # quicker, where the size is not in question


@dataclass(frozen=True)
class Case:
    """What both sides do: a network, a number type, and steps of SGD."""

    config: AlexNetConfig
    dtype: torch.dtype = torch.float64
    steps: int = 1
    autocast: bool = False
    all_tensors: bool = False
    """Whether the gradients of fc6 and fc7 are compared, too, which are hundreds of megabytes."""


CASES = {
    # Pooled maps of 2 × 2, so that fc6 still has inputs of several places of each.
    "float64": Case(narrow_network(replace(SMALL, crop=99)), steps=2, all_tensors=True),
    "float32": Case(SMALL, torch.float32),
    "bf16": Case(narrow_network(NARROW), torch.float32, autocast=True),
    "original": Case(
        narrow_network(replace(VARIANTS["original"].config, classes=5, init="he", crop=67))
    ),
    "tanh": Case(narrow_network(replace(NARROW, activation="tanh"))),
    "conv6": Case(narrow_network(replace(NARROW, conv6=True))),
    "no-conv3": Case(narrow_network(replace(NARROW, without="conv3"))),
    "separate-towers": Case(narrow_network(replace(NARROW, net="separate-towers"))),
}


def build(case: Case, place: TowerRank | None) -> AlexNet:
    """The whole network or a tower of it, from the same seed."""
    torch.manual_seed(11)
    network = AlexNet(case.config) if place is None else Tower(case.config, place)
    return network.to(case.dtype, memory_format=torch.channels_last).train()  # type: ignore[call-overload,no-any-return]


def pictures(case: Case, step: int) -> tuple[Tensor, Tensor]:
    """Two images and their classes."""
    generator = torch.Generator().manual_seed(100 + step)
    x = torch.randn(2, 3, case.config.crop, case.config.crop, generator=generator)
    x = x.to(case.dtype).contiguous(memory_format=torch.channels_last)
    return x, torch.tensor([step % 5, 4])


def train(network: AlexNet, case: Case) -> dict[str, Tensor]:
    """Train for some steps, dropout on; give what came out and what became of the weights."""
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)
    found: dict[str, Tensor] = {}
    for step in range(case.steps):
        x, classes = pictures(case, step)
        with torch.autocast("cpu", torch.bfloat16, enabled=case.autocast):
            out = network(x, derive_image_keys(3, step, torch.tensor([40, 7])))
        loss = F.cross_entropy(out.logits.to(case.dtype), classes)
        optimizer.zero_grad()
        loss.backward()
        found[f"loss.{step}"] = loss.detach()
        if step == 0:
            found |= {"logits": out.logits.detach(), "fc7": out.fc7.detach()}
            found |= {f"grad/{n}": g.clone() for n, g in gradients(network, case).items()}
        if case.all_tensors:
            optimizer.step()
    if case.all_tensors:
        found |= {f"weight/{name}": value for name, value in network.state_dict().items()}
    return found


def gradients(network: AlexNet, case: Case) -> dict[str, Tensor]:
    """Of every tensor, or of all but the largest."""
    return {
        name: cast(Tensor, p.grad)
        for name, p in network.named_parameters()
        if case.all_tensors or name not in ("fc6.weight", "fc7.weight")
    }


def main(tower: int, port: int, folder: Path) -> None:
    """One of the two processes: everything is written into the folder."""
    patience = timedelta(seconds=LIMIT / 2)
    store = dist.TCPStore("127.0.0.1", port, is_master=False, timeout=patience)
    dist.init_process_group("gloo", store=store, rank=tower, world_size=2, timeout=patience)
    assert dist.group.WORLD is not None
    place = TowerRank(tower, dist.group.WORLD)
    facts: dict[str, Any] = {}
    for name, case in CASES.items():
        network = build(case, place)
        if name == "float32":
            facts = look(network, case, tower) | {"next": torch.rand(()).item()}
        found = train(network, case)
        save_file({k: v.contiguous() for k, v in found.items()}, folder / f"{name}.{tower}")
    (folder / f"facts.{tower}").write_text(json.dumps(facts))
    dist.destroy_process_group()


def look(network: AlexNet, case: Case, tower: int) -> dict[str, Any]:
    """What can only be seen from inside: the initial values, the exchanges, who sees what."""
    after = torch.get_rng_state()
    facts = {
        "initial": digests(network.state_dict()),
        "exchanges": {
            name: type(module).__name__
            for name, module in network.named_children()
            if isinstance(module, AllGather | RowParallelLinear)
        },
        **traffic(network, case),
        "changed": changed_by_the_other(network, case, tower),
    }
    network.zero_grad()
    torch.set_rng_state(after)
    return facts


def digests(state: Mapping[str, Tensor]) -> dict[str, str]:
    """A name for each tensor's bits."""
    return {
        name: hashlib.sha256(value.contiguous().numpy().data).hexdigest()
        for name, value in state.items()
    }


def traffic(network: AlexNet, case: Case) -> dict[str, dict[str, int]]:
    """How often torch calls a collective in a pass forward, and in one back."""
    x, classes = pictures(case, 0)
    with Collectives() as forth:
        loss = F.cross_entropy(network(x).logits, classes)
    with Collectives() as back:
        loss.backward()
    return {"forth": forth.counts, "back": back.counts}


LOCAL = ("wait_tensor", "_wrap_tensor_autograd")
"""Operations beside the collectives that send nothing."""


class Collectives(TorchDispatchMode):
    """Counts what torch is asked to exchange between processes."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func.overloadpacket).rpartition(".")[2]
        if func.namespace in ("c10d", "_c10d_functional") and name not in LOCAL:
            self.counts[name] = self.counts.get(name, 0) + 1
        return func(*args, **(kwargs or {}))


def changed_by_the_other(network: AlexNet, case: Case, tower: int) -> list[str]:
    """Which of tower 0's layers come out otherwise when tower 1 is shown other pictures."""
    seen: list[dict[str, Tensor]] = []
    network.eval()
    for shown in (0, tower):
        seen.append({})
        with torch.no_grad(), watching(network, seen[-1]):
            network(pictures(case, shown)[0])
    network.train()
    return [name for name, value in seen[0].items() if not torch.equal(value, seen[1][name])]


@contextmanager
def watching(network: AlexNet, seen: dict[str, Tensor]) -> Iterator[None]:
    """Keep what every layer gives."""

    def keep(name: str, out: Tensor) -> None:
        seen[name] = out.clone()

    hooks = [
        module.register_forward_hook(lambda _module, _inputs, out, name=name: keep(name, out))
        for name, module in network.named_children()
    ]
    yield
    for hook in hooks:
        hook.remove()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What two processes wrote; they must end well, in time, and say nothing."""
    folder = tmp_path_factory.mktemp("towers")
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    processes = [start(tower, server.port, folder) for tower in (0, 1)]
    try:
        said = wait(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    assert said == ["", ""]
    yield folder
    for file in folder.iterdir():
        file.unlink()  # pytest would keep hundreds of megabytes of the last three runs each


def start(tower: int, port: int, folder: Path) -> subprocess.Popen[str]:
    """Begin one of the two processes, in which a warning is an error."""
    command = [sys.executable, "-W", "error", __file__, str(tower), str(port), str(folder)]
    environment = {
        "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo",
        # Mapping and unmapping fresh pages would take half the time.
        "MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296",
    }  # fmt: skip
    log = (folder / f"log.{tower}").open("w")
    with log:
        return subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=log, stderr=log, text=True
        )


def wait(processes: list[subprocess.Popen[str]]) -> list[str]:
    """Wait until both have ended, or one has failed; what they said."""
    ends = time.monotonic() + LIMIT
    while any(process.poll() is None for process in processes):
        if any(process.returncode for process in processes) or time.monotonic() > ends:
            break
        time.sleep(0.1)
    folder = Path(cast(list[str], processes[0].args)[-1])
    return [(folder / f"log.{tower}").read_text() for tower in (0, 1)]


def parts(folder: Path, case: str, prefix: str) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Each tensor's parts in both towers, one after another."""
    with (
        safe_open(folder / f"{case}.0", framework="pt") as first,
        safe_open(folder / f"{case}.1", framework="pt") as second,
    ):
        assert first.keys() == second.keys()
        for key in first.keys():  # noqa: SIM118
            if key.startswith(prefix):
                yield key.removeprefix(prefix), first.get_tensor(key), second.get_tensor(key)


def error(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    return ((found - expected).abs().max() / expected.abs().max()).item()


TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.autocast])
def test_two_towers_are_the_whole_network(name: str, folder: Path) -> None:
    case = CASES[name]
    whole = train(build(case, None), case)
    tolerance, compared = TOLERANCE[case.dtype], 0
    for key, first, second in parts(folder, name, ""):
        kind, _, tensor = key.partition("/")
        if kind in ("grad", "weight"):
            ours = merge_state_dicts([{tensor: first}, {tensor: second}], case.config)[tensor]
        elif key == "fc7":
            ours = torch.cat([first, second], 1)
        else:
            ours = first
            assert torch.equal(first, second), key
        assert error(ours, whole[key]) <= tolerance, key
        compared += 1
    assert compared == len(whole)
    assert whole["grad/conv1.weight"].abs().max() > 0


@pytest.mark.slow
def test_every_gradient_and_weight_was_among_them(folder: Path) -> None:
    names = {f"{layer}.{part}" for layer in LAYERS for part in ("weight", "bias")}
    for prefix in ("grad/", "weight/"):
        assert {name for name, *_ in parts(folder, "float64", prefix)} == names


LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")


@pytest.mark.slow
def test_a_tower_starts_from_its_share_of_the_whole_networks_weights(folder: Path) -> None:
    whole = build(CASES["float32"], None)
    following = torch.rand(()).item()
    for tower in (0, 1):
        facts = json.loads((folder / f"facts.{tower}").read_text())
        own = split_state_dict(whole.state_dict(), SMALL, tower)
        assert facts["initial"] == digests(own)
        # The shapes of Figure 2, half of each layer's kernels and neurons.
        assert {n.split(".")[0]: tuple(v.shape) for n, v in own.items() if "weight" in n} == {
            "conv1": (48, 3, 11, 11), "conv2": (128, 48, 5, 5), "conv3": (192, 256, 3, 3),
            "conv4": (192, 192, 3, 3), "conv5": (128, 192, 3, 3), "fc6": (2048, 9216),
            "fc7": (2048, 4096), "fc8": (5, 2048),
        }  # fmt: skip
        # What torch draws afterwards is what it draws in one process.
        assert facts["next"] == following


@pytest.mark.slow
def test_towers_exchange_before_conv3_fc6_and_fc7_and_at_fc8_only(folder: Path) -> None:
    for tower in (0, 1):
        facts = json.loads((folder / f"facts.{tower}").read_text())
        assert facts["exchanges"] == {
            "to_conv3": "AllGather", "to_fc6": "AllGather", "to_fc7": "AllGather",
            "fc8": "RowParallelLinear",
        }  # fmt: skip
        # By torch's own count: three gatherings and a sum; three scattered sums on the way back.
        assert facts["forth"] == {"all_gather_into_tensor": 3, "allreduce_": 1}
        assert facts["back"] == {"reduce_scatter_tensor": 3}


@pytest.mark.slow
def test_nothing_of_the_other_tower_reaches_conv1_or_conv2(folder: Path) -> None:
    changed = json.loads((folder / "facts.0").read_text())["changed"]
    assert changed[0] == "to_conv3"
    assert "fc8" in changed


@pytest.mark.slow
def test_bf16_goes_through_the_exchanges(folder: Path) -> None:
    case = CASES["bf16"]
    whole = train(build(case, None), case)
    assert whole["logits"].dtype == torch.bfloat16
    for key, first, second in parts(folder, "bf16", ""):
        name = key.partition("/")[2]
        if key == "logits":
            assert first.dtype == torch.bfloat16
        # Eight bits a number, rounded at other places in the sums.
        if key in ("logits", "loss.0"):
            assert error(first.float(), whole[key].float()) < 0.05
        elif name:
            ours = merge_state_dicts([{name: first}, {name: second}], case.config)[name]
            assert ours.dtype == torch.float32
            cosine = F.cosine_similarity(ours.flatten(), whole[key].flatten(), 0)
            assert cosine > 0.99, key


@pytest.mark.parametrize("name", ["paper", "original", "separate-towers", "conv6", "no-conv5"])
def test_share_and_join_are_each_others_inverse(name: str) -> None:
    config = replace(VARIANTS[name].config, classes=3)
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in AlexNet(config).state_dict().items()}
    count = max(shape.numel() for shape in shapes.values())
    numbers = torch.arange(count, dtype=torch.int32)
    whole = {key: numbers[: shape.numel()].view(shape) for key, shape in shapes.items()}
    towers = [split_state_dict(whole, config, tower) for tower in (0, 1)]
    again = merge_state_dicts(towers, config)
    assert list(again) == list(whole)
    assert all(torch.equal(again[key], value) for key, value in whole.items())
    for tower, part in enumerate(towers):
        assert all(
            torch.equal(split_state_dict(again, config, tower)[key], part[key]) for key in part
        )
    # Every number once, but for the last bias, which both towers hold.
    held = sum(value.numel() for part in towers for value in part.values())
    assert held == sum(value.numel() for value in whole.values()) + 3


def test_along_which_dimension_a_tensor_is_split() -> None:
    found = {name: split_dimension(name, SMALL) for name in ("conv1.bias", "fc7.weight")}
    assert found == {"conv1.bias": 0, "fc7.weight": 0}
    assert split_dimension("fc8.weight", SMALL) == 1
    assert split_dimension("fc8.bias", SMALL) is None


@pytest.mark.parametrize(
    "name", ["one-gpu", "torchvision", "cifar", "cifar-lrn-24", "caffe-alexnet", "caffenet"]
)
def test_networks_without_two_separate_towers_are_refused(name: str) -> None:
    config = VARIANTS[name].config
    with pytest.raises(ConfigError, match=f"^{config.net} .*--towers 1"):
        Tower(config, TowerRank(0, cast(dist.ProcessGroup, None)))


@pytest.mark.parametrize(
    "name", ["paper", "original", "no-lrn", "no-overlap", "tanh", "no-dropout",
             "no-conv3", "no-conv4", "no-conv5", "conv6", "separate-towers"],
)  # fmt: skip
def test_networks_of_two_towers_are_not(name: str) -> None:
    check_splittable(VARIANTS[name].config)
