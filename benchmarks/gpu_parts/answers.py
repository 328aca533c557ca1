"""Whether a GPU computes what the CPU computes.

The truth is the CPU's, in float64. An error is the norm of a difference over the norm of the truth:
float32 leaves about 1e-6, TF32 1e-3, bf16 1e-2.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_harness.job import ROOT, Job
from model.image.ten_crop import cut_ten_crops, ten_crop_forward
from model.network.alexnet import AlexNet
from model.network.config import AlexNetConfig
from model.network.counter_rng import derive_image_keys
from training.batches.batches import Batch
from training.optimisation.device import compile_network, set_tf32, use_deterministic_algorithms
from training.optimisation.loop import compute_gradients
from training.optimisation.precision import Precision, autocast
from training.optimisation.state import TrainingState, init_state
from training.recipe.config import PAPER

RATES = (0.01, 0.01, 0.001)
"""Learning rates of the update steps; the last is lower, as after a drop."""
Answers = dict[str, Tensor]
LOSS_SCALE = 2.0**8
"""Of float16: no gradient overflows with it, as it may in the first steps of a run."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to compute. limit: the largest error to expect of outputs; ten times that of others."""

    name: str
    device: str
    dtype: torch.dtype = torch.float32
    precision: Precision = "f32"
    tf32: bool = False
    compiled: bool = False
    limit: float


def measure(job: Job) -> None:
    """Compare outputs, gradients and updates, then ten crops; run the tests marked `gpu`."""
    # cuBLAS reads this when it is first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    config, batch = make_batch(job.quick)
    truth = compute_answers(
        Way(name="truth", device="cpu", dtype=torch.float64, limit=0), config, batch
    )
    errors: dict[str, Any] = {}

    def compare_way(way: Way) -> None:
        found = compute_answers(way, config, batch)
        errors[way.name] = compare(found, truth) | {"limit": way.limit}
        job.record(errors=errors)

    for way in list_ways(job.device):
        compare_way(way)
    job.attempt("ten_crops", lambda: compare_ten_crops(job.device, config))
    job.attempt("deterministic", lambda: is_deterministic(job.device, config, batch))
    job.attempt("gpu_tests", lambda: run_gpu_tests(job))
    if not job.quick:
        name, device = "bf16, compiled", job.device
        compare_way(Way(name=name, device=device, precision="bf16", compiled=True, limit=2e-2))


def make_batch(quick: bool) -> tuple[AlexNetConfig, Batch]:
    """Make a network's configuration and a batch of noise as strong as photographs."""
    config = AlexNetConfig()
    if quick:
        config = replace(config, classes=10, side=99, crop=67)
    random, images = torch.Generator().manual_seed(0), 4 if quick else 16
    x = 60 * torch.randn(images, 3, config.crop, config.crop, generator=random)
    classes = torch.randint(0, config.classes, (images,), generator=random)
    x = x.contiguous(memory_format=torch.channels_last)
    return config, Batch(x, classes, torch.arange(images))


def list_ways(device: str) -> list[Way]:
    """List the ways to compare, besides the compiled one, whose compilation takes long."""
    return [
        Way(name="float32 on the CPU", device="cpu", limit=1e-4),
        Way(name="float32", device=device, limit=1e-4),
        Way(name="TF32", device=device, tf32=True, limit=5e-3),
        Way(name="bf16", device=device, precision="bf16", limit=2e-2),
        Way(name="float16", device=device, precision="f16", limit=5e-3),
    ]


def compute_answers(way: Way, config: AlexNetConfig, batch: Batch) -> Answers:
    """Compute outputs, gradients and what three update steps change, as float64 on the CPU."""
    set_tf32(way.tf32)
    state = init_state(config, PAPER, torch.device(way.device), dtype=way.dtype)
    if way.compiled:
        compile_network(state, "on", 0, way.precision)
    state.loss_scale.value = LOSS_SCALE
    before = copy_weights(state)
    state.network.eval()
    with torch.no_grad(), autocast(torch.device(way.device), way.precision):
        x = batch.x.to(way.device, way.dtype)
        output = state.network(x)
    answers = {"logits": output.logits, "fc7": output.fc7}
    state.network.train()
    take_step(state, batch, way.precision, RATES[0], update=False)
    answers |= {f"gradient of {k}": p.grad for k, p in state.network.named_parameters()}
    for rate in RATES:
        take_step(state, batch, way.precision, rate)
    after = copy_weights(state)
    answers |= {f"update of {k}": after[k] - before[k] for k in after}
    return {name: value.detach().cpu().double() for name, value in answers.items()}


def copy_weights(state: TrainingState) -> Answers:
    """Copy the network's weights to the CPU, as float64."""
    return {k: p.detach().cpu().double().clone() for k, p in state.network.named_parameters()}


def take_step(
    state: TrainingState, batch: Batch, precision: Precision, rate: float, update: bool = True
) -> None:
    """Compute the gradients as the training loop does, and update the weights."""
    keys = derive_image_keys(0, 1, batch.rows)
    compute_gradients(state, batch, keys, len(batch.rows), precision)
    if update:
        state.sgd.set_rates(dict.fromkeys(state.sgd.rates, rate))
        state.sgd.step()


def compare(found: Answers, truth: Answers) -> dict[str, float | str]:
    """Return the errors of outputs, and of all gradients and updates together and at worst."""
    figures: dict[str, float | str] = {
        name: error_of([found[name]], [truth[name]]) for name in ("logits", "fc7")
    }
    for kind in ("gradient", "update"):
        names = [name for name in truth if name.startswith(kind)]
        figures[kind] = error_of([found[n] for n in names], [truth[n] for n in names])
        errors = {n.removeprefix(f"{kind} of "): error_of([found[n]], [truth[n]]) for n in names}
        worst = max(errors, key=errors.__getitem__)
        figures[f"worst {kind}"], figures[f"{kind} of"] = errors[worst], worst
    return figures


def error_of(found: list[Tensor], truth: list[Tensor]) -> float:
    """Return the norm of the differences over the norm of the truths; NaN never passes."""
    differences = sum(float((a - b).square().sum()) for a, b in zip(found, truth, strict=True))
    return float((differences / sum(float(b.square().sum()) for b in truth)) ** 0.5)


@torch.inference_mode()
def compare_ten_crops(device: str, config: AlexNetConfig) -> dict[str, float]:
    """Compare ten crops that share their first layers with the CPU's, and with crops cut apart."""
    set_tf32(False)
    torch.manual_seed(0)
    network = AlexNet(config).eval().to(memory_format=torch.channels_last)
    squares = 60 * torch.randn(2, 3, config.side, config.side)
    probabilities, fc7 = ten_crop_forward(network.double(), squares.double())
    network = network.float().to(device)
    own_probabilities, own_fc7 = ten_crop_forward(network, squares.to(device))
    apart = network(cut_ten_crops(squares, config.crop).flatten(0, 1).to(device))
    return {
        "probabilities": error_of([own_probabilities.cpu().double()], [probabilities]),
        "fc7": error_of([own_fc7.cpu().double()], [fc7]),
        "fc7, crops cut apart": error_of([apart.fc7.cpu().double()], [fc7.flatten(0, 1)]),
    }


def is_deterministic(device: str, config: AlexNetConfig, batch: Batch) -> bool:
    """Return whether three steps give the same bits twice with --deterministic."""
    use_deterministic_algorithms()
    way = Way(name="", device=device, precision="bf16", tf32=True, limit=0)
    try:
        first, second = (compute_answers(way, config, batch) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    return all(torch.equal(first[name], second[name]) for name in first)


def run_gpu_tests(job: Job) -> dict[str, Any]:
    """Run the tests marked `gpu`, with warnings of other versions of torch allowed."""
    files = [f for f in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in f.read_text()]
    command = [sys.executable, "-m", "pytest", "-p", "benchmarks.gpu_harness.compat", "-m", "gpu"]
    command += ["-o", "addopts=--import-mode=importlib", "-W", "default", "-q", "-ra"]
    command += ["-p", "no:cacheprovider", "--continue-on-collection-errors", *map(str, files)]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=max(5.0, job.seconds_left),
        )
    except subprocess.TimeoutExpired:
        return {"summary": "stopped at the deadline"}
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["no output"]
    counts = {
        word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped|error)", lines[-1])
    }
    return {"summary": lines[-1], "code": done.returncode, "output": lines[-30:], **counts}
