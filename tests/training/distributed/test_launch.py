"""Several processes of one run: started together, stopped together, and nothing left behind."""

import json
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import safe_open

from model.checkpoint import load_weights
from training.config import ORIGINAL, PAPER, RecipeError
from training.distributed.launch import (
    ProcessError,
    check_process_count,
    collect_exit_code,
    count_processes,
)
from training.distributed.mesh import PEER_LOST
from training.distributed.worker import Messages, QueueChannel
from training.options import Options

Begin = Callable[..., subprocess.Popen[str]]
End = Callable[..., tuple[str, str]]
Processes = Callable[[Path], set[int]]
PAIR = ["--towers", "2", "--batch", "2", "--epochs", "50"]


@pytest.mark.parametrize(
    ("gpus", "job", "expected"),
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
def test_two_gpus_take_a_tower_each(gpus: int, job: Options, expected: tuple[int, int]) -> None:
    assert count_processes(job, gpus) == expected


@pytest.mark.parametrize(
    ("job", "processes", "gpus", "cores", "why"),
    [
        (Options(replicas=99), 99, 0, 2, "2 cores"),
        (Options(towers=2), 2, 1, 16, "1 GPU"),
        (Options(replicas=9), 9, 8, 64, "8 GPUs"),
    ],
)
def test_a_crowd_is_refused(job: Options, processes: int, gpus: int, cores: int, why: str) -> None:
    with pytest.raises(RecipeError, match=why):
        check_process_count(job, processes, gpus, cores)


def test_what_has_room_is_not_refused() -> None:
    check_process_count(Options(towers=2, replicas=2), 4, 0, 2)
    check_process_count(Options(towers=2), 2, 2, 2)
    check_process_count(Options(towers=2, device="cpu"), 2, 1, 2)


@pytest.fixture
def messages() -> Messages:
    return multiprocessing.get_context("spawn").SimpleQueue()


def test_what_all_processes_say_is_said_once(
    messages: Messages, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        QueueChannel(messages).send_error("training/run.py: no such folder")
    assert collect_exit_code([2, 2], messages, []) == 2
    assert capsys.readouterr().err == "training/run.py: no such folder\n"


@pytest.mark.parametrize(
    ("codes", "said"),
    [
        (
            [PEER_LOST, -9],
            "process 1 of 2 was killed by SIGKILL, which ends the run. Go on so.",
        ),
        ([-11, PEER_LOST], "process 0 of 2 was killed by SIGSEGV"),
        ([-15, 1], "process 1 of 2 failed with code 1"),
        ([-15, -9], "process 1 of 2 was killed by SIGKILL"),
        ([0, -9], "process 1 of 2 was killed by SIGKILL"),
        (
            [PEER_LOST, PEER_LOST],
            r"process 0 of 2 lost .* \(NCCL says no\)",
        ),
    ],
)
def test_who_died_first_is_named_and_how_to_go_on(
    messages: Messages, codes: list[int], said: str
) -> None:
    QueueChannel(messages).send_hint("Go on so.")
    QueueChannel(messages).send_peer_lost("NCCL says no")
    with pytest.raises(ProcessError, match=said):
        collect_exit_code(codes, messages, [])


@pytest.mark.parametrize(
    ("codes", "handed", "code"),
    [
        ([0, 0], [], 0),
        ([143, 143], [signal.SIGTERM], 143),
        ([143, 143], [signal.SIGINT], 130),
        # Before they could note signals, processes die of them.
        ([-15, -15], [signal.SIGTERM], 143),
        ([-15, PEER_LOST], [signal.SIGINT, signal.SIGINT], 130),
        ([143, 130], [], 130),
        ([0, 0], [signal.SIGTERM], 0),
    ],
)
def test_asked_to_stop_a_run_ends_with_the_signals_code(
    messages: Messages, codes: list[int], handed: list[int], code: int
) -> None:
    assert collect_exit_code(codes, messages, handed) == code


def test_a_signal_does_not_hide_a_full_disk(
    messages: Messages, capsys: pytest.CaptureFixture[str]
) -> None:
    QueueChannel(messages).send_error("training/run.py: no room")
    assert collect_exit_code([2, PEER_LOST], messages, [signal.SIGTERM]) == 2
    assert capsys.readouterr().err == "training/run.py: no room\n"


def run_in(home: Path) -> Path:
    (folder,) = (home / "runs").iterdir()
    return folder


def wait_for(home: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    while not list(home.glob(pattern)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def gone(home: Path, processes: Processes, seconds: float = 30) -> bool:
    """Whether within some seconds nothing works on a home any more."""
    end = time.monotonic() + seconds
    while processes(home):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def workers(home: Path, processes: Processes) -> list[int]:
    """The processes with a tower each."""
    found = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in processes(home)}
    return sorted(pid for pid, words in found.items() if "--multiprocessing-fork" in words)


@pytest.mark.slow
def test_a_killed_process_ends_the_run_with_one_line_that_says_how_to_go_on(
    begin: Begin, end: End, processes: Processes, tmp_path: Path
) -> None:
    process = begin(tmp_path, *PAIR, "--checkpoint-seconds", "1")
    wait_for(tmp_path, "runs/*/checkpoint.safetensors", process)
    (_, second) = workers(tmp_path, processes)
    os.kill(second, signal.SIGKILL)
    killed = time.monotonic()
    _, errors = end(process, 2)
    assert time.monotonic() - killed < 60
    run = run_in(tmp_path)
    assert errors.splitlines() == [
        "training/run.py: process 1 of 2 was killed by SIGKILL, which ends the run. "
        f"To resume: python training/run.py --resume {run}"
    ]
    assert gone(tmp_path, processes)
    # In one process, which is allowed; fewer epochs must be.
    said, _ = end(begin(tmp_path, "--resume", run, "--epochs", "1", "--accept", "epochs"))
    assert "Resuming" in said
    assert "1 × 1 processes" in said
    assert load_weights(tmp_path / "weights.safetensors").provenance.epochs == 1


@pytest.mark.slow
@pytest.mark.parametrize("numbers", [[signal.SIGTERM], [signal.SIGINT, signal.SIGINT]])
def test_asked_to_stop_two_processes_save_and_leave_nothing_behind(
    begin: Begin,
    end: End,
    processes: Processes,
    tmp_path: Path,
    numbers: list[signal.Signals],
) -> None:
    process = begin(tmp_path, *PAIR)
    wait_for(tmp_path, "runs/*/environment.json", process)
    time.sleep(3)
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.2)
    said, errors = end(process, 128 + numbers[0])
    assert errors.splitlines() == ["training/run.py: interrupted"]
    assert gone(tmp_path, processes, 5)
    run = run_in(tmp_path)
    assert f"Saved. To resume: python training/run.py --resume {run}" in said
    with safe_open(run / "checkpoint.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["partial"])["step"] >= 1
        assert file.get_slice("fc6.weight").get_shape() == [4096, 9216]
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.slow
def test_processes_whose_starter_is_killed_save_and_end_by_themselves(
    begin: Begin, processes: Processes, tmp_path: Path
) -> None:
    process = begin(tmp_path, *PAIR)
    wait_for(tmp_path, "runs/*/environment.json", process)
    time.sleep(3)
    process.kill()
    process.communicate()
    assert gone(tmp_path, processes)
    assert (run_in(tmp_path) / "checkpoint.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [2.0, 5.0, 8.0])
def test_before_there_is_anything_to_save_a_signal_ends_it_too(
    begin: Begin, end: End, processes: Processes, tmp_path: Path, seconds: float
) -> None:
    process = begin(tmp_path, *PAIR)
    time.sleep(seconds)
    for pid in [process.pid, *workers(tmp_path, processes)]:
        os.kill(pid, signal.SIGINT)  # as a terminal does, to all of them
    said = process.communicate(timeout=60)
    # Before the program has come as far as to answer, Python dies of the signal itself.
    assert process.returncode in (130, -signal.SIGINT), said
    assert gone(tmp_path, processes, 20)
    assert not (tmp_path / "weights.safetensors").exists()
