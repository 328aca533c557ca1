"""The processes of a run start and stop together, and leave nothing behind."""

import json
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import safe_open

from model.weights.checkpoint import load_weights
from training.distributed.launch import (
    ProcessError,
    check_process_count,
    collect_exit_code,
    count_processes,
)
from training.distributed.mesh import EXIT_PEER_LOST
from training.distributed.worker import Messages, QueueChannel
from training.recipe.config import ORIGINAL, PAPER, RecipeError
from training.recipe.options import Options

StartTraining = Callable[..., subprocess.Popen[str]]
WaitForFile = Callable[[subprocess.Popen[str], Path, str], Path]
WaitForExit = Callable[..., tuple[str, str]]
RunTraining = Callable[..., tuple[str, str]]
FindProcesses = Callable[[Path], dict[int, str]]
# A small network, since what is tested is the processes; test_mesh.py and test_finetune.py have
# two towers.
REPLICAS = ["--replicas", "2", "--variant", "cifar", "--batch", "4", "--epochs", "1000"]


@pytest.mark.parametrize(
    ("gpus", "options", "expected"),
    [
        (0, Options(), (1, 1)),
        (1, Options(), (1, 1)),
        (2, Options(), (2, 2)),
        (8, Options(), (2, 2)),
        (8, Options(replicas=4), (8, 2)),
        (8, Options(replicas=8), (8, 1)),
        (8, Options(device="cpu"), (1, 1)),
        (8, Options(towers=1), (1, 1)),
        (0, Options(towers=2), (2, 2)),
        (0, Options(towers=2, replicas=2), (4, 2)),
        (0, Options(replicas=3), (3, 1)),
        (2, Options(recipe=ORIGINAL), (2, 2)),
        # Networks of one GPU stay on one.
        (2, Options(recipe=replace(PAPER, variant="one-gpu")), (1, 1)),
        (2, Options(recipe=replace(PAPER, variant="cifar-lrn")), (1, 1)),
        (2, Options(recipe=replace(PAPER, variant="torchvision")), (1, 1)),
    ],
)
def test_two_gpus_hold_a_tower_each(gpus: int, options: Options, expected: tuple[int, int]) -> None:
    assert count_processes(options, gpus) == expected


@pytest.mark.parametrize(
    ("options", "processes", "gpus", "cores", "reason"),
    [
        (Options(replicas=99), 99, 0, 2, "2 cores"),
        (Options(towers=2), 2, 1, 16, "1 GPU"),
        (Options(replicas=9), 9, 8, 64, "8 GPUs"),
    ],
)
def test_more_processes_than_the_machine_has_room_for_are_refused(
    options: Options, processes: int, gpus: int, cores: int, reason: str
) -> None:
    with pytest.raises(RecipeError, match=reason):
        check_process_count(options, processes, gpus, cores)


def test_processes_that_fit_are_accepted() -> None:
    check_process_count(Options(towers=2, replicas=2), 4, 0, 2)
    check_process_count(Options(towers=2), 2, 2, 2)
    check_process_count(Options(towers=2, device="cpu"), 2, 1, 2)


@pytest.fixture
def messages() -> Messages:
    return multiprocessing.get_context("spawn").SimpleQueue()


def test_an_error_of_all_processes_is_printed_once(
    messages: Messages, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        QueueChannel(messages).send_error("training/run.py: no such folder")
    assert collect_exit_code([2, 2], messages, []) == 2
    assert capsys.readouterr().err == "training/run.py: no such folder\n"


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        (
            [EXIT_PEER_LOST, -9],
            "process 1 of 2 was killed by SIGKILL.* Resume so.",
        ),
        ([-11, EXIT_PEER_LOST], "process 0 of 2 was killed by SIGSEGV"),
        ([-15, 1], "process 1 of 2 failed with code 1"),
        ([-15, -9], "process 1 of 2 was killed by SIGKILL"),
        ([0, -9], "process 1 of 2 was killed by SIGKILL"),
        (
            [EXIT_PEER_LOST, EXIT_PEER_LOST],
            r"process 0 of 2 lost .* \(NCCL says no\)",
        ),
    ],
)
def test_the_process_that_died_first_is_named_with_how_to_resume(
    messages: Messages, codes: list[int], expected: str
) -> None:
    QueueChannel(messages).send_hint("Resume so.")
    QueueChannel(messages).send_peer_lost("NCCL says no")
    with pytest.raises(ProcessError, match=expected):
        collect_exit_code(codes, messages, [])


@pytest.mark.parametrize(
    ("codes", "received", "code"),
    [
        ([0, 0], [], 0),
        ([143, 143], [signal.SIGTERM], 143),
        ([143, 143], [signal.SIGINT], 130),
        # Before they could note signals, processes die of them.
        ([-15, -15], [signal.SIGTERM], 143),
        ([-15, EXIT_PEER_LOST], [signal.SIGINT, signal.SIGINT], 130),
        ([143, 130], [], 130),
        ([0, 0], [signal.SIGTERM], 0),
    ],
)
def test_asked_to_stop_a_run_ends_with_the_signals_code(
    messages: Messages, codes: list[int], received: list[int], code: int
) -> None:
    assert collect_exit_code(codes, messages, received) == code


def test_a_signal_does_not_hide_a_full_disk(
    messages: Messages, capsys: pytest.CaptureFixture[str]
) -> None:
    QueueChannel(messages).send_error("training/run.py: no room")
    assert collect_exit_code([2, EXIT_PEER_LOST], messages, [signal.SIGTERM]) == 2
    assert capsys.readouterr().err == "training/run.py: no room\n"


@pytest.fixture
def find_processes() -> Callable[[Path], dict[int, str]]:
    """Find the processes that work on a home: their command lines by their ids."""

    def find(home: Path) -> dict[int, str]:
        found = {}
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if f"ALEXNET_HOME={home}\0" in (place / "environ").read_text(errors="replace"):
                    found[int(place.name)] = (place / "cmdline").read_text()
        return found

    return find


def wait_until_gone(home: Path, find_processes: FindProcesses, seconds: float = 60) -> None:
    """Wait until nothing works on a home any more."""
    end = time.monotonic() + seconds
    while found := find_processes(home):
        assert time.monotonic() < end, found
        time.sleep(0.1)


def worker_ids(home: Path, find_processes: FindProcesses) -> list[int]:
    """The ids of the processes with a replica each."""
    found = find_processes(home).items()
    return sorted(pid for pid, command in found if "--multiprocessing-fork" in command)


@pytest.mark.slow
def test_a_killed_worker_ends_the_run_with_one_line_that_says_how_to_resume(
    start_training: StartTraining,
    wait_for_file: WaitForFile,
    wait_for_exit: WaitForExit,
    run_training: RunTraining,
    find_processes: FindProcesses,
    tmp_path: Path,
) -> None:
    process = start_training(tmp_path, *REPLICAS, "--checkpoint-seconds", "0")
    checkpoint = wait_for_file(process, tmp_path, "runs/*/checkpoint.safetensors")
    (_, second) = worker_ids(tmp_path, find_processes)
    os.kill(second, signal.SIGKILL)
    _, errors = wait_for_exit(process, 2)
    (line,) = errors.splitlines()
    assert "process 1 of 2" in line
    assert "SIGKILL" in line
    assert f"--resume {checkpoint.parent}" in line
    wait_until_gone(tmp_path, find_processes)
    # In one process, which is allowed; fewer epochs must be accepted.
    words = ["--resume", checkpoint.parent, "--epochs", "1", "--accept", "epochs"]
    printed, _ = run_training(tmp_path, *words)
    assert "1 × 1 processes" in printed
    assert load_weights(tmp_path / "weights.safetensors").provenance.epochs >= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "send"),
    [
        (signal.SIGTERM, os.kill),  # to the launcher
        (signal.SIGINT, os.killpg),  # to all of them, as a terminal does
    ],
)
def test_asked_to_stop_two_processes_save_and_leave_nothing_behind(
    start_training: StartTraining,
    wait_for_file: WaitForFile,
    wait_for_exit: WaitForExit,
    find_processes: FindProcesses,
    tmp_path: Path,
    number: signal.Signals,
    send: Callable[[int, int], None],
) -> None:
    process = start_training(tmp_path, *REPLICAS)
    run = wait_for_file(process, tmp_path, "runs/*/epochs.jsonl").parent
    send(process.pid, number)
    printed, errors = wait_for_exit(process, 128 + number)
    assert len(errors.splitlines()) == 1
    assert f"--resume {run}" in printed
    wait_until_gone(tmp_path, find_processes)
    with safe_open(run / "checkpoint.safetensors", framework="pt") as file:
        assert len(json.loads(file.metadata()["history"])) >= 1
        assert file.get_slice("conv1.weight").get_shape() == [64, 3, 5, 5]
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.slow
def test_workers_whose_launcher_is_killed_save_and_end_by_themselves(
    start_training: StartTraining,
    wait_for_file: WaitForFile,
    find_processes: FindProcesses,
    tmp_path: Path,
) -> None:
    process = start_training(tmp_path, *REPLICAS)
    epochs = wait_for_file(process, tmp_path, "runs/*/epochs.jsonl")
    process.kill()
    process.communicate()
    wait_until_gone(tmp_path, find_processes)
    assert (epochs.parent / "checkpoint.safetensors").exists()


@pytest.mark.slow
def test_ctrl_c_ends_a_run_that_has_nothing_to_save_yet(
    start_training: StartTraining, find_processes: FindProcesses, tmp_path: Path
) -> None:
    process = start_training(tmp_path, *REPLICAS)
    while len(worker_ids(tmp_path, find_processes)) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all of them
    printed = process.communicate(timeout=200)
    assert process.returncode == 128 + signal.SIGINT, printed
    wait_until_gone(tmp_path, find_processes)
    assert not (tmp_path / "weights.safetensors").exists()
