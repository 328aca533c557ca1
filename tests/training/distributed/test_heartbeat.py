"""A process that is stopped, not dead, is reported by the others, and the run goes on with it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from training.distributed.heartbeat import SILENCE_SECONDS, Pulse
from training.distributed.launch import find_free_port

ROOT = Path(__file__).parents[3]
SCRIPT = """
import os, sys, time
import torch.distributed as dist
from training.distributed import heartbeat

heartbeat.BEAT_SECONDS, heartbeat.SILENCE_SECONDS = 0.1, 1.0
if os.environ["RANK"] == "0":
    held = dist.TCPStore("127.0.0.1", int(os.environ["MASTER_PORT"]), is_master=True,
                         wait_for_workers=False)
with heartbeat.watch_peers(lambda sentence: print(sentence, flush=True)) as pulse:
    while len(pulse.names) < 2:
        time.sleep(0.01)
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_silence_is_reported_once_and_so_is_its_end() -> None:
    pulse = Pulse(1, {0: 0.0, 1: 0.0, 2: 0.0}, 0.0)
    pulse.names[2] = "host, pid 7"
    for moment in (10.0, 41.0):
        pulse.hear(0, round(moment), moment)
        pulse.hear(1, round(moment), moment)
    # Rank 0 is heard of and would say it.
    assert pulse.report_changes(41.0) == []
    pulse = Pulse(0, {0: 0.0, 1: 0.0, 2: 0.0}, 0.0, names={2: "host, pid 7"})
    for moment in (10.0, 40.0):
        pulse.hear(0, round(moment), moment)
        pulse.hear(1, round(moment), moment)
        pulse.hear(2, 5, moment)
    assert pulse.report_changes(39.0) == []
    (sentence,) = pulse.report_changes(41.0)
    assert sentence.startswith("process 2 of 3 (host, pid 7) has not answered for 31 s")
    assert pulse.report_changes(42.0) == []
    pulse.hear(2, 6, 43.0)
    assert pulse.report_changes(44.0) == ["process 2 of 3 (host, pid 7) answers again"]
    # Within a minute, with the interval of looking.
    assert SILENCE_SECONDS <= 45


def test_one_that_was_stopped_itself_accuses_nobody() -> None:
    pulse = Pulse(0, {0: 0.0, 1: 0.0}, 0.0)
    pulse.restart(1000.0)
    assert pulse.report_changes(1001.0) == []


def test_without_the_store_only_its_holder_is_accused() -> None:
    pulse = Pulse(1, {0: 0.0, 1: 0.0, 2: 0.0}, 0.0)
    (sentence,) = pulse.report_changes(60.0)
    assert sentence.startswith("process 0 of 3")


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    """Two processes of a run, which beat ten times a second."""
    port = find_free_port()
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            cwd=ROOT,
            env=os.environ
            | {
                "RANK": str(rank),
                "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    yield started
    for process in started:
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=60)


def test_a_process_that_is_stopped_is_named_by_the_other(
    processes: list[subprocess.Popen[str]],
) -> None:
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for stopped, victim in enumerate(processes):
        other = processes[1 - stopped]
        victim.send_signal(signal.SIGSTOP)
        assert other.stdout is not None
        line = other.stdout.readline()
        assert line.startswith(f"process {stopped} of 2")
        assert f"pid {victim.pid}) has not answered" in line
        victim.send_signal(signal.SIGCONT)
        assert "answers again" in other.stdout.readline()
