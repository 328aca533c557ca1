"""The speed of whole training steps, ours against torchvision's in the same settings.

Both networks take turns of a few steps on images in the GPU's memory, in the same precision, memory
format and way to compile. Then ours takes its images where a run takes them: from the GPU's memory,
or from the store, from which a number of cores read or decode them and send them as bytes; and, to
compare, augmented by these cores.
"""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu_harness.job import Job
from benchmarks.gpu_parts.cards import find_peak
from benchmarks.gpu_parts.synthetic import SameBatches, make_batch, make_dataset
from benchmarks.gpu_parts.timing import synchronise, time_call
from benchmarks.gpu_parts.torchvision_net import build_torchvision_net
from model.network.alexnet import AlexNet
from model.network.config import AlexNetConfig
from storage.parallel import cores
from training.batches.batches import Batches
from training.batches.resident import copy_images
from training.batches.streaming import stream_images
from training.dataset.prepare import PreparedDataset
from training.optimisation.device import compile_network, find_lrn_layers
from training.optimisation.loop import train_epoch
from training.optimisation.precision import Precision
from training.optimisation.state import EpochProgress, TrainingState, init_state
from training.recipe.config import PAPER, SMALL, Recipe
from training.recipe.schedule import schedule_epoch
from training.records.callbacks import Callbacks

RECIPE = replace(PAPER, rate=1e-6)
"""Noise must not make the weights diverge; the rate does not change the time of a step."""
MIN_SECONDS = 15.0
"""A setting is not started with less time left: compiling takes that long."""
Turn = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A size of batch and a way to compile, the same for both networks.

    mode: None: not at all; "default": torch.compile; "reduce-overhead": with CUDA graphs as well.
    """

    name: str
    batch: int = 128
    mode: str | None = "default"
    variants: tuple[str, ...] = ("ours", "torchvision")


SETTINGS = (
    Setting(name="compiled"),
    Setting(name="eager", mode=None),
    Setting(name="CUDA graphs", mode="reduce-overhead"),
    Setting(name="compiled, LRN", variants=("ours", "without LRN")),
    Setting(name="compiled, 64", batch=64),
    Setting(name="compiled, 1024", batch=1024),
)


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What all settings share. steps: per turn. rounds: turns that count."""

    device: torch.device
    config: AlexNetConfig
    data: PreparedDataset
    steps: int
    rounds: int


def measure(job: Job) -> None:
    """Measure every setting that there is time for, and where the images come from."""
    setup, settings = make_setup(job)
    config, device = setup.config, setup.device
    operations = {name: count_operations(name, config) for name in ("ours", "torchvision")}
    peak = find_peak(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    job.record(operations_per_image=operations, peak_bf16=peak)
    figures: dict[str, Any] = {}
    for number, setting in enumerate(settings):
        if job.seconds_left < MIN_SECONDS:
            figures[setting.name] = {"": {"error": "there was no time left"}}
        else:
            figures[setting.name] = measure_setting(setting, setup)
        job.record(settings=figures)
        if number == 0:
            job.attempt("images_from", partial(measure_sources, job, setting, setup))
        release(device)


def make_setup(job: Job) -> tuple[Setup, tuple[Setting, ...]]:
    """Return what is measured: less in a rehearsal."""
    device, config = job.torch_device, AlexNetConfig()
    if job.quick:
        config = replace(config, classes=10, side=99, crop=67)
        data = make_dataset(8, config)
        setup = Setup(device=device, config=config, data=data, steps=1, rounds=1)
        return setup, (Setting(name="eager", mode=None, batch=2),)
    data = make_dataset(2048, config)
    return Setup(device=device, config=config, data=data, steps=20, rounds=5), SETTINGS


def count_operations(name: str, config: AlexNetConfig) -> float:
    """Count the multiplications and additions of one image, forward and backward, without LRN."""
    network = (
        AlexNet(replace(config, lrn=False))
        if name == "ours"
        else build_torchvision_net(config.classes)
    )
    with FlopCounterMode(display=False) as counter:
        output = network(torch.zeros(1, 3, config.crop, config.crop))
        (output if isinstance(output, Tensor) else output.logits).sum().backward()
    return float(counter.get_total_flops())


def measure_setting(setting: Setting, setup: Setup) -> dict[str, Any]:
    """Let the networks of a setting take turns; return images/s, ratios, memory and more.

    For a network that fails it returns the error.
    """
    turns: dict[str, Turn] = {}
    figures: dict[str, Any] = {}
    for name in setting.variants:
        try:
            turn, figures[name] = start_network(name, setting, setup)
        except Exception as error:  # noqa: BLE001 - one network's failure stops no other
            figures[name] = {"error": f"{type(error).__name__}: {error}"[:600]}
        else:
            turns[name] = turn
    times: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(setup.rounds):
        for name, turn in turns.items():
            times[name].append(time_call(turn, setup.device))
    for name, own in times.items():
        figures[name] |= {
            "images_per_second": setting.batch * setup.steps / median(own),
            "ms_per_step": 1000 * median(own) / setup.steps,
            "ratios": {
                other: median(b / a for a, b in zip(own, theirs, strict=True))
                for other, theirs in times.items()
                if other != name
            },
        }
    return figures


def start_network(name: str, setting: Setting, setup: Setup) -> tuple[Turn, dict[str, Any]]:
    """Set up a network and take two turns; return its turn, and what these two took."""
    before = reset_memory(setup.device)
    turn = make_turn(name, setting, setup)
    # The first turn compiles, the second captures CUDA graphs.
    first, _ = (time_call(turn, setup.device) for _ in range(2))
    return turn, {"first_turn_seconds": first, "gib": peak_memory(setup.device) - before}


def make_turn(name: str, setting: Setting, setup: Setup) -> Turn:
    """Set up a network on images in the device's memory; return what takes a turn's steps."""
    if name == "torchvision":
        return make_torchvision_turn(setting, setup)
    config = replace(setup.config, lrn=name != "without LRN")
    state = init_state(config, RECIPE, setup.device)
    compile_ours(state, setting.mode)
    batches = SameBatches(
        setup.data,
        RECIPE.augmentation(config),
        setting.batch,
        same=make_batch(setting.batch, config, setup.device),
        steps=setup.steps,
    )
    return lambda: train(state, batches, RECIPE)


def compile_ours(state: TrainingState, mode: str | None) -> None:
    """Compile our network: by default as a run does."""
    if mode == "default":
        compile_network(state, "on", 0, choose_own(state))
    elif mode is not None:
        for layer in find_lrn_layers(state.network):
            layer.expand()
        state.forward = torch.compile(state.forward, mode=mode)  # type: ignore[assignment]


def train(state: TrainingState, batches: Batches, recipe: Recipe) -> None:
    """Train on the batches by the training loop itself, from the beginning of an epoch."""
    state.progress = EpochProgress()
    schedule = schedule_epoch([], RECIPE)
    train_epoch(state, batches, recipe, schedule, choose_own(state), Callbacks())


def choose_own(state: TrainingState) -> Precision:
    """Return the precision that ours is measured in."""
    return "bf16" if state.device.type == "cuda" else "f32"


def make_torchvision_turn(setting: Setting, setup: Setup) -> Turn:
    """Set up torchvision's network with our precision, memory format and optimiser."""
    device = setup.device
    network = build_torchvision_net(setup.config.classes).to(device)
    network = network.to(memory_format=torch.channels_last)
    sgd = torch.optim.SGD(
        network.parameters(), RECIPE.rate, momentum=0.9, weight_decay=0.0005, fused=True
    )
    forward: Any = network
    if setting.mode is not None:
        forward = torch.compile(network, mode=setting.mode)
    batch = make_batch(setting.batch, setup.config, device)

    def turn() -> None:
        for _ in range(setup.steps):
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                logits = forward(batch.x)
            loss = F.cross_entropy(logits.float(), batch.classes)
            sgd.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            sgd.step()
            float(loss.detach())

    return turn


def measure_sources(job: Job, setting: Setting, setup: Setup) -> dict[str, Any]:
    """Measure training on images from the GPU's memory, and from the store by cores."""
    figures: dict[str, Any] = {}
    state = init_state(setup.config, RECIPE, setup.device)
    compile_ours(state, setting.mode)
    resident = copy_images(setup.data, setup.device)
    for recipe, name in ((PAPER, "paper"), (SMALL, "small")):
        where = f"memory of the device, recipe {name}"
        figures[where] = measure_source(state, resident, recipe, setting.batch)
    for count in list_core_counts(cores()):
        if job.seconds_left < MIN_SECONDS:
            break
        with limit_cores(count):
            which = f"recipe small, {count} core{'s' if count > 1 else ''}"
            streamed = stream_images(setup.data, setup.device)
            for data, way in ((streamed, "sent as bytes"), (setup.data, "augmented by the CPU")):
                figures[f"store, {way}, {which}"] = measure_source(
                    state, data, SMALL, setting.batch
                )
    return figures


def measure_source(
    state: TrainingState, data: PreparedDataset, recipe: Recipe, batch: int
) -> dict[str, float]:
    """Train two epochs of a small dataset, of which the second counts."""
    augmentation, seconds = recipe.augmentation(state.network.config), 0.0
    for epoch in (1, 2):
        batches = Batches(data, augmentation, batch, epoch=epoch)
        seconds = time_call(partial(train, state, batches, recipe), state.device)
    images = len(data.train) // batch * batch
    return {"images_per_second": images / seconds, "wait": state.progress.wait / seconds}


def list_core_counts(available: int) -> list[int]:
    """List the powers of two up to the number of cores, and that number."""
    powers = [2**n for n in range(available.bit_length())]
    return sorted({*powers, available})


@contextmanager
def limit_cores(count: int) -> Iterator[None]:
    """Let this process and its new threads run on so many cores only."""
    before = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, before[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def reset_memory(device: torch.device) -> float:
    """Start measuring the peak of the device's memory; return what is in use, in GiB."""
    if device.type != "cuda":
        return 0.0
    synchronise(device)
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device) / 2**30


def peak_memory(device: torch.device) -> float:
    """Return the peak of the device's memory since then, in GiB; 0 for a CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0


def release(device: torch.device) -> None:
    """Free what earlier networks took, and forget what was compiled for them."""
    torch._dynamo.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
