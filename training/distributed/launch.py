"""The processes of a run on one machine: started together, stopped together, never a hang."""

import multiprocessing
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
import torch.multiprocessing as mp
from torch.multiprocessing.spawn import start_processes

from model.alexnet import AlexNetConfig
from model.checkpoint import load
from model.towers import refuse_whole
from training.config import RecipeError
from training.distributed.mesh import PEER_LOST, can_split, is_distributed
from training.distributed.messages import Channel, Messages, QueueChannel, StderrChannel
from training.distributed.signals import (
    STOP_SIGNALS,
    block_interrupts,
    forward_stop_signals,
    unblock_interrupts,
)
from training.machine import cores
from training.options import Options
from training.resume import parse_options

GRACE_SECONDS = 20
"""How long the other processes get to end after one has, and again after they were told to."""
MAX_PROCESSES_PER_CORE = 4
"""Most processes a core."""
SAID_WHY = 2
"""The exit code of a process that has said what was wrong."""
Work = Callable[[Sequence[str], Channel], int]


class ProcessError(RuntimeError):
    """A process of the run died."""


def launch(work: Work, arguments: Sequence[str]) -> int:
    """Run `work` in as many processes as the command line asks for; give the exit code.

    Signals that ask to stop are handed on. Raises ProcessError, with what was noted last, when a
    process was killed or failed without a word; RecipeError, ConfigError, RunError or
    WeightsError for a wrong command line.
    """
    job, gpus = parse_options(arguments), torch.cuda.device_count()
    processes, towers = count_processes(job, gpus)
    if is_distributed() or processes == 1:
        return work(arguments, StderrChannel())
    check_process_count(job, processes, gpus, cores())
    if towers == 2:
        refuse_whole(read_network_config(job))
    messages: Messages = mp.get_context("spawn").SimpleQueue()
    told = (work, (*arguments, "--towers", str(towers)), processes, find_free_port(), messages)
    started: list[BaseProcess] = []
    with forward_stop_signals(started) as handed:
        # Ctrl-C reaches the processes, too, while they still load libraries.
        with block_interrupts():
            started += start_processes(  # type: ignore[no-untyped-call]
                run_worker, told, processes, join=False, start_method="spawn"
            ).processes
        wait_for_processes(started)
    return collect_exit_code([process.exitcode for process in started], messages, handed)


def count_processes(job: Options, gpus: int) -> tuple[int, int]:
    """How many processes to start, and over how many of them each network is split."""
    towers = job.towers
    if towers is None:
        on_gpus = gpus >= 2 * job.replicas and gpus >= 2 and job.device in ("auto", "cuda")
        towers = 2 if on_gpus and can_split(read_network_config(job)) else 1
    return job.replicas * towers, towers


def read_network_config(job: Options) -> AlexNetConfig:
    """The network that the command line names."""
    return load(Path(job.initial_weights)).config if job.initial_weights else job.recipe.network(2)


def check_process_count(job: Options, processes: int, gpus: int, cores: int) -> None:
    """Raise RecipeError for more processes than this machine has room for."""
    if gpus and job.device in ("auto", "cuda") and processes > gpus:
        has = f"{gpus} GPU{'s' if gpus > 1 else ''}"
        why = f"each needs a GPU, and this machine has {has}; --device cpu does without"
    elif processes > MAX_PROCESSES_PER_CORE * cores:
        why = f"this machine has {cores} cores"
    else:
        return
    raise RecipeError(f"--replicas {job.replicas} makes {processes} processes: {why}")


def wait_for_processes(processes: Sequence[BaseProcess]) -> None:
    """Wait until all have ended. After one has failed, the others get a while, then are ended."""
    while any(process.is_alive() for process in processes):
        if any(process.exitcode for process in processes):
            for end in (BaseProcess.terminate, BaseProcess.kill):
                join_within_grace(processes)
                for process in processes:
                    end(process)
            join_within_grace(processes)
            return
        wait([process.sentinel for process in processes if process.is_alive()], timeout=1)


def join_within_grace(processes: Sequence[BaseProcess]) -> None:
    """Give all of them together some time to end."""
    end = time.monotonic() + GRACE_SECONDS
    for process in processes:
        process.join(max(0, end - time.monotonic()))


def collect_exit_code(
    codes: Sequence[int | None], messages: Messages, handed: Sequence[int]
) -> int:
    """Say what the processes said, each line once; give the exit code of those that spoke.

    handed: the signals handed on. Raises ProcessError for what nobody explained.
    """
    heard: dict[str, list[str]] = {"said": [], "note": [], "lost": []}
    while not messages.empty():
        kind, text = messages.get()
        heard[kind].append(text)
    lines = heard["said"]
    stopped = {0, PEER_LOST, *(128 + n for n in STOP_SIGNALS), *(-n for n in STOP_SIGNALS)}
    if handed and set(codes) <= stopped and any(codes):
        lines = lines or ["training/run.py: interrupted"]
        codes = [128 + handed[0]]
    for line in dict.fromkeys(lines):
        StderrChannel().say(line)
    said = [code for code in codes if code and (code == SAID_WHY or code > 128)]
    if said or not any(codes):
        return min(said, default=0)
    why = describe_failure(codes, heard["lost"])
    raise ProcessError(" ".join([f"{why}, and the run ends with it.", *heard["note"][-1:]]))


def describe_failure(codes: Sequence[int | None], lost: Sequence[str]) -> str:
    """Which process failed, and how: one that was killed rather than those that missed it.

    lost: what torch said in those.
    """
    bad = [(number, code) for number, code in enumerate(codes) if code]
    bad.sort(key=lambda found: (found[1] == PEER_LOST, found[1] == -signal.SIGTERM))
    number, code = bad[0]
    if code == PEER_LOST:
        how = f"lost touch with the others ({lost[0] if lost else 'nothing is known of why'})"
    elif code < 0:
        how = f"was killed by {signal.Signals(-code).name}"
    else:
        how = f"failed with code {code}"
    return f"process {number} of {len(codes)} {how}"


def run_worker(
    rank: int, work: Work, arguments: Sequence[str], processes: int, port: int, messages: Messages
) -> None:
    """One process: told its place as torchrun would tell it."""
    starter = multiprocessing.parent_process()
    if starter is not None and not starter.is_alive():
        raise SystemExit(PEER_LOST)  # it ended before this process could ask to be told of it
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    try:
        unblock_interrupts()
        code = work(arguments, QueueChannel(messages))
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except Exception:  # noqa: BLE001 - a fault of the program, shown here where it happened
        traceback.print_exc()
        code = 1
    raise SystemExit(code)


def find_free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
