"""What a long command records of its progress, and what another process reads of it."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from storage.activity import Activity, read_activity, record_activity
from storage.progress import ignore_progress

HOLDER = """
import sys, pathlib
from storage.activity import record_activity
from storage.progress import ignore_progress
with record_activity(pathlib.Path(sys.argv[1]), ignore_progress) as report:
    report("Decoding", 10)(4)
    report("Decoding", 10)(10)
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_another_process_reads_what_is_done_until_it_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "new/activity.json"
    assert read_activity(file) is None
    command = [sys.executable, "-c", HOLDER, str(file)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "ready\n"
        found = read_activity(file)
        assert found is not None
        assert (found.step, found.done, found.total) == ("Decoding", 10, 10)
        holder.send_signal(signal.SIGKILL)
    assert file.exists()
    assert read_activity(file) is None


def test_the_first_of_two_keeps_its_record_and_both_report(tmp_path: Path) -> None:
    file, reported = tmp_path / "activity.json", []

    def report(step: str, total: int):
        return lambda done: reported.append((step, total, done))

    with record_activity(file, report) as first:
        first("one", 3)(3)
        with record_activity(file, report) as second:
            second("two", 5)(5)
            assert json.loads(file.read_text())["step"] == "one"
        assert read_activity(file).step == "one"
    assert not file.exists()
    assert reported == [("one", 3, 3), ("two", 5, 5)]


def test_an_unwritable_place_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with record_activity(tmp_path / "file/activity.json", ignore_progress) as report:
        report("one", 1)(1)
    assert (tmp_path / "file").read_text() == ""


def test_half_written_records_and_nonsense_are_read_as_unknown(tmp_path: Path) -> None:
    file = tmp_path / "activity.json"
    with record_activity(file, ignore_progress) as report:
        report("one", 1)
        file.write_text('{"step": "on')
        assert read_activity(file).step == ""
        file.write_text('{"step": 3, "done": -1, "total": "x", "since": NaN}')
        assert (read_activity(file).done, read_activity(file).total) == (0, 0)


@pytest.mark.parametrize(
    ("done", "total", "left"), [(0, 10, None), (5, 10, 20), (10, 10, 0), (3, 0, None)]
)
def test_the_rest_takes_as_long_as_what_is_done(done: int, total: int, left: float | None) -> None:
    activity = Activity(step="one", done=done, total=total, since=100)
    assert activity.estimate_remaining_seconds(120) == left
