"""Two towers in two processes: over NCCL on two cards, or as near to it as the machine allows.

Each process holds one tower; its outputs and gradients are compared with those of the whole network
on the same card. `python -m benchmarks.gpu_parts.towers` is one of the two processes.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

import benchmarks.gpu_harness.compat  # noqa: F401
import model.network.towers
from benchmarks.gpu_harness.job import ROOT, Job
from benchmarks.gpu_parts.cards import Exchange, list_exchanges
from benchmarks.gpu_parts.synthetic import make_batch
from benchmarks.gpu_parts.timing import median_seconds
from model.network.alexnet import AlexNet
from model.network.config import TOWERS, AlexNetConfig
from model.network.counter_rng import derive_image_keys
from model.network.towers import Tower, TowerRank, split_state_dict
from training.batches.batches import Batch
from training.distributed.mesh import Mesh
from training.optimisation.loop import compute_gradients
from training.optimisation.precision import Precision
from training.optimisation.sgd import PaperSGD, group_parameters
from training.optimisation.state import TrainingState
from training.recipe.config import PAPER

SECONDS_PER_TRY = 25.0
"""On a GPU, where a backend may wait for ever."""


def measure(job: Job) -> None:
    """Try the ways to exchange activations, best first, until one works."""
    gpus = torch.cuda.device_count() if job.device == "cuda" else 0
    tries: dict[str, Any] = {}
    for exchange in list_exchanges(gpus, gpus > 0 and dist.is_nccl_available()):
        tries[exchange.name] = try_exchange(exchange, job)
        job.record(tries=tries, cards=gpus)
        if "error" not in tries[exchange.name]:
            job.record(works=exchange.name)
            return


def try_exchange(exchange: Exchange, job: Job) -> dict[str, Any]:
    """Run two processes that exchange in one way; return their figures, or the error."""
    seconds = min(SECONDS_PER_TRY if exchange.gpus else 1000.0, job.seconds_left - 2)
    description = json.dumps(asdict(exchange) | {"quick": job.quick})
    files = [job.work / f"tower-{rank}.json" for rank in range(TOWERS)]
    logs = [job.work / f"tower-{rank}.log" for rank in range(TOWERS)]
    meeting, processes = job.work / "towers-meet", []
    meeting.unlink(missing_ok=True)
    for rank, (file, log) in enumerate(zip(files, logs, strict=True)):
        file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "benchmarks.gpu_parts.towers", description, str(rank)]
        command += [str(meeting), str(file)]
        with log.open("wb") as out:
            processes.append(subprocess.Popen(command, stdout=out, stderr=out, cwd=ROOT))
    codes = wait_for_all(processes, seconds)
    if any(codes):
        first = next(rank for rank, code in enumerate(codes) if code)
        lines = logs[first].read_text(errors="replace").strip().splitlines()[-12:]
        what = f"no answer in {seconds:.0f} s" if codes[first] == -9 else f"code {codes[first]}"
        return {"error": "\n".join([what, *lines])}
    found: list[dict[str, Any]] = [json.loads(file.read_text()) for file in files]
    return found[0] | {"errors": [own["errors"] for own in found]}


def wait_for_all(processes: "list[subprocess.Popen[bytes]]", seconds: float) -> list[int]:
    """Wait for processes; end all when one fails or the time is over. Return their exit codes."""
    end = time.monotonic() + seconds
    while any(process.poll() is None for process in processes):
        if time.monotonic() > end or any(process.poll() for process in processes):
            break
        time.sleep(0.1)
    failed = [process.poll() for process in processes]
    for process in processes:
        process.kill()
        process.wait()
    return [p.returncode if f is None else f for p, f in zip(processes, failed, strict=True)]


def run_tower(exchange: Exchange, quick: bool, rank: int, meeting: Path, file: Path) -> None:
    """Compare this process's tower with the whole network, and measure its steps.

    meeting: a file by which the processes find each other. file: to write the figures to.
    """
    device = torch.device("cpu")
    if exchange.gpus:
        device = torch.device("cuda", rank % exchange.gpus)
        torch.cuda.set_device(device)
    where = f"file://{meeting}"
    dist.init_process_group(exchange.backend, init_method=where, rank=rank, world_size=TOWERS)
    if exchange.staged:
        stage_exchanges()
    config = AlexNetConfig()
    if quick:
        config = replace(config, classes=10, side=99, crop=67)
    torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(1)
    batch = make_batch(2 if quick else 128, config, torch.device("cpu"))
    group = dist.group.WORLD
    assert group is not None
    whole = start(lambda: AlexNet(config), device)
    tower = start(lambda: Tower(config, TowerRank(rank, group)), device)
    figures: dict[str, Any] = {"errors": compare(whole, tower, batch, rank)}
    rounds, images = (1, 2) if quick else (10, 128)
    for name, state in (("towers", tower), ("whole", whole)):
        seconds = median_seconds(lambda s=state: take_step(s, batch), device, rounds)  # type: ignore[misc]
        figures[f"{name}_images_per_second"] = images / seconds
    dist.barrier()
    file.write_text(json.dumps(figures))
    dist.destroy_process_group()


def start(build: Callable[[], AlexNet], device: torch.device) -> TrainingState:
    """Make the state of a network, with the same initial weights whether whole or a tower."""
    torch.manual_seed(0)
    network = build().to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    sgd = PaperSGD(group_parameters(network, PAPER), PAPER.rate, PAPER.momentum)
    return TrainingState(network, network, sgd, Mesh())


def stage_exchanges() -> None:
    """Let both exchanges of the towers pass through the CPU's memory."""
    collectives: Any = dist
    exchanges: Any = model.network.towers
    gather, reduce = exchanges.all_gather_single, collectives.all_reduce

    def gather_on_cpu(x: Tensor, dim: int, group: Any) -> Tensor:
        both: Tensor = gather(x.cpu(), dim, group)
        return both.to(x.device)

    def reduce_on_cpu(x: Tensor, group: Any = None) -> None:
        total = x.cpu()
        reduce(total, group=group)
        x.copy_(total)

    exchanges.all_gather_single = gather_on_cpu
    collectives.all_reduce = reduce_on_cpu


def take_step(state: TrainingState, batch: Batch, update: bool = True) -> None:
    """Train on the batch once."""
    precision: Precision = "bf16" if state.device.type == "cuda" and update else "f32"
    keys = derive_image_keys(0, 1, batch.rows)
    compute_gradients(state, batch, keys, len(batch.rows), precision)
    if update:
        state.sgd.step()


def compare(
    whole: TrainingState, tower: TrainingState, batch: Batch, rank: int
) -> dict[str, float]:
    """Return the errors of a tower's outputs and gradients in float32 against the whole network."""
    for state in (whole, tower):
        take_step(state, batch, update=False)
    gradients = {k: p.grad for k, p in whole.network.named_parameters() if p.grad is not None}
    truth = split_state_dict(gradients, whole.network.config, rank)
    found = {k: p.grad for k, p in tower.network.named_parameters() if p.grad is not None}
    errors = {name: relative_error(found[name], truth[name]) for name in truth}
    whole.network.eval()
    tower.network.eval()
    with torch.no_grad():
        x = batch.x.to(whole.device)
        logits = [state.network(x).logits for state in (tower, whole)]
    whole.network.train()
    tower.network.train()
    return {"logits": relative_error(*logits), "worst gradient": max(errors.values())}


def relative_error(found: Tensor, truth: Tensor) -> float:
    """Return the norm of the difference over the norm of the truth."""
    return float((found - truth).norm() / truth.norm())


if __name__ == "__main__":
    described = json.loads(sys.argv[1])
    quick = described.pop("quick")
    rank, meeting, file = int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
    run_tower(Exchange(**described), quick, rank, meeting, file)
