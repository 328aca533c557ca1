"""Start the processes of a run on one machine, stop them together, and never leave one hanging."""

import signal
import socket
import time
from collections.abc import Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
import torch.multiprocessing as mp
from torch.multiprocessing.spawn import start_processes

from model.network.config import AlexNetConfig
from model.network.towers import check_splittable
from model.weights.checkpoint import load_weights
from storage.parallel import cores, is_distributed
from training.distributed.mesh import EXIT_PEER_LOST, can_split
from training.distributed.signals import STOP_SIGNALS, block_interrupts, forward_stop_signals
from training.distributed.worker import (
    EXIT_EXPLAINED,
    Messages,
    StderrChannel,
    run_worker,
    train_in_process,
)
from training.recipe.config import RecipeError
from training.recipe.config_file import expand_config
from training.recipe.options import Options, parse_options
from training.records.resume import check_finished
from training.train import EXPECTED_ERRORS

GRACE_SECONDS = 20
"""How long the other processes get to end after one has failed, and again after SIGTERM."""
MAX_PROCESSES_PER_CORE = 4


class ProcessError(RuntimeError):
    """A process of the run died without an explanation."""


LAUNCH_ERRORS = (ProcessError, *EXPECTED_ERRORS)
"""What `launch` raises: errors to show in one line."""


def launch(arguments: Sequence[str]) -> int:
    """Train in as many processes as the command line asks for; return the exit code.

    Forwards the signals that ask to stop. Raises ProcessError, with how to resume, if a process
    was killed or failed without an explanation, and RecipeError, ConfigError, RunError or
    WeightsError for a wrong command line.
    """
    arguments = expand_config(arguments)
    options, gpus = parse_options(arguments), torch.cuda.device_count()
    check_finished(options)
    if options.seeds:
        return launch_seeds(arguments, options.seeds)
    processes, towers = count_processes(options, gpus)
    if is_distributed() or processes == 1:
        return train_in_process(arguments, StderrChannel())
    check_process_count(options, processes, gpus, cores())
    if towers == 2:
        check_splittable(read_network_config(options))
    messages: Messages = mp.get_context("spawn").SimpleQueue()
    worker_arguments = (
        (*arguments, "--towers", str(towers)),
        processes,
        find_free_port(),
        messages,
    )
    workers: list[BaseProcess] = []
    with forward_stop_signals(workers) as received:
        # Ctrl-C in the terminal also reaches workers that are still importing libraries.
        with block_interrupts():
            workers += start_processes(  # type: ignore[no-untyped-call]
                run_worker, worker_arguments, processes, join=False, start_method="spawn"
            ).processes
        wait_for_processes(workers)
    return collect_exit_code([worker.exitcode for worker in workers], messages, received)


def launch_seeds(arguments: Sequence[str], seeds: Sequence[int]) -> int:
    """Train once with each seed, until one run does not finish; return its exit code, or 0."""
    if is_distributed():
        raise RecipeError("--seeds starts its processes itself: leave torchrun out, or --seeds")
    for seed in seeds:
        # Of repeated flags the last counts: here no seeds, and this one.
        if code := launch([*arguments, "--seeds", "--seed", str(seed)]):
            return code
    return 0


def count_processes(options: Options, gpus: int) -> tuple[int, int]:
    """Return how many processes to start, and over how many of them each network is split."""
    towers = options.towers
    if towers is None:
        on_gpus = gpus >= 2 * options.replicas and options.device in ("auto", "cuda")
        towers = 2 if on_gpus and can_split(read_network_config(options)) else 1
    return options.replicas * towers, towers


def read_network_config(options: Options) -> AlexNetConfig:
    """Return the configuration of the network to train; its number of classes is arbitrary."""
    if options.initial_weights and options.starts_from_weights:
        return load_weights(Path(options.initial_weights)).config
    return options.recipe.network(2)


def check_process_count(options: Options, processes: int, gpus: int, cores: int) -> None:
    """Raise RecipeError if this machine has too few GPUs or cores for the processes."""
    if gpus and options.device in ("auto", "cuda") and processes > gpus:
        available = f"{gpus} GPU{'s' if gpus > 1 else ''}"
        reason = f"each needs a GPU, and this machine has {available}; use --device cpu"
    elif processes > MAX_PROCESSES_PER_CORE * cores:
        reason = f"this machine has {cores} cores"
    else:
        return
    raise RecipeError(f"--replicas {options.replicas} makes {processes} processes: {reason}")


def wait_for_processes(processes: Sequence[BaseProcess]) -> None:
    """Wait until all have ended; if one fails, end those that outlast the grace period."""
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
    """Wait for all of them, together at most GRACE_SECONDS."""
    deadline = time.monotonic() + GRACE_SECONDS
    for process in processes:
        process.join(max(0, deadline - time.monotonic()))


def collect_exit_code(
    codes: Sequence[int | None], messages: Messages, received: Sequence[int]
) -> int:
    """Print the workers' errors, each once, and return the exit code of the run.

    received: the stop signals that were forwarded. Raises ProcessError for a failure that no
    worker explained.
    """
    texts: dict[str, list[str]] = {"error": [], "hint": [], "peer lost": []}
    while not messages.empty():
        kind, text = messages.get()
        texts[kind].append(text)
    errors = texts["error"]
    stopped = {
        0,
        EXIT_PEER_LOST,
        *(128 + n for n in STOP_SIGNALS),
        *(-n for n in STOP_SIGNALS),
    }
    if received and set(codes) <= stopped and any(codes):
        errors = errors or ["training/run.py: interrupted"]
        codes = [128 + received[0]]
    for line in dict.fromkeys(errors):
        StderrChannel().send_error(line)
    explained = [code for code in codes if code and (code == EXIT_EXPLAINED or code > 128)]
    if explained or not any(codes):
        return min(explained, default=0)
    failure = describe_failure(codes, texts["peer lost"])
    raise ProcessError(" ".join([f"{failure}, which ends the run.", *texts["hint"][-1:]]))


def describe_failure(codes: Sequence[int | None], peer_lost: Sequence[str]) -> str:
    """Describe which process failed and how; one that was killed goes before those that lost it.

    peer_lost: torch's errors in the processes that lost another.
    """
    failed = [(number, code) for number, code in enumerate(codes) if code]
    failed.sort(key=lambda process: (process[1] == EXIT_PEER_LOST, process[1] == -signal.SIGTERM))
    number, code = failed[0]
    if code == EXIT_PEER_LOST:
        reason = peer_lost[0] if peer_lost else "for an unknown reason"
        how = f"lost its connection to the others ({reason})"
    elif code < 0:
        how = f"was killed by {signal.Signals(-code).name}"
    else:
        how = f"failed with code {code}"
    return f"process {number} of {len(codes)} {how}"


def find_free_port() -> int:
    """Return a TCP port of this machine on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
