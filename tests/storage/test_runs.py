"""What the application reads of runs, against what training writes, and against any nonsense."""

import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.views.runs.recipe import FIELDS, describe_recipe
from app.views.runs.status import determine_run_status
from storage.home import Home
from storage.runs import Epoch, Run, RunFolder, read_run, read_runs
from training.recipe.config import PAPER, PRESETS, Recipe

NOW = datetime(2026, 11, 24, 18, 0, tzinfo=UTC)
TOLD = {"preset": "demo", "data": "/somewhere/photographs", "finished": False}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home without anything."""
    return Home(root=tmp_path / "home")


def epoch(number: int, **changes: Any) -> Epoch[float]:
    """An epoch as training has it."""
    known = Epoch(
        epoch=number,
        rate=0.01,
        loss=2.0 / number,
        top1_error=0.5 / number,
        top5_error=0.1 / number,
        images_per_second=33.3,
        data_wait=0.5,
        seconds=40.0,
        memory=3.1,
    )
    return replace(known, **changes)


def record(
    home: Home, name: str, epochs: int = 3, recipe: Recipe = PAPER, **told: Any
) -> RunFolder:
    """Write a run's folder by training's own means."""
    run = RunFolder(home.runs / name)
    run.path.mkdir(parents=True)
    run.update_description(**{**TOLD, "recipe": asdict(recipe), **told})
    for number in range(1, epochs + 1):
        run.append_epoch(epoch(number))
    return run


def age(run: RunFolder, seconds: float) -> None:
    """Have everything in a run's folder written so many seconds before now."""
    moment = NOW.timestamp() - seconds
    for path in (*run.path.rglob("*"), run.path):
        os.utime(path, (moment, moment))


def one(home: Home, name: str = "run") -> Run:
    """Read a run that is there."""
    found = read_run(home, name)
    assert found is not None
    return found


def test_what_training_writes_comes_back(home: Home) -> None:
    record(home, "20261124-150627-demo-photographs", weights="abc", ten_crops=[0.25, 0.125])
    (run,) = read_runs(home)
    assert [asdict(e) for e in run.epochs] == [asdict(epoch(n)) for n in (1, 2, 3)]
    assert (run.preset, run.data, run.planned_epochs) == ("demo", "photographs", 90)
    assert (run.weights, run.ten_crops, run.finished) == ("abc", (0.25, 0.125), False)
    assert run.started_at == datetime(2026, 11, 24, 15, 6, 27, tzinfo=UTC)
    assert run.best_epoch == run.last_epoch == run.epochs[2]


def test_every_value_of_a_recipe_has_a_word_and_the_papers_value() -> None:
    # Word and value are typed twice, since app and training do not know each other.
    assert {field.key: field.paper for field in FIELDS} == asdict(PAPER)
    for recipe in PRESETS.values():
        told = json.loads(json.dumps(asdict(recipe)))
        departs = {row.label for row in describe_recipe(told) if row.paper is not None}
        other = {k for k, v in asdict(recipe).items() if v != getattr(PAPER, k)}
        assert departs == {field.label for field in FIELDS if field.key in other}
    assert [row.paper for row in describe_recipe({"dropout": 0.5, "seed": 9})] == [None, None]


def test_a_line_that_is_being_written_is_left_out(home: Home) -> None:
    run = record(home, "run")
    whole = run.epochs.read_bytes()
    line = json.dumps(asdict(epoch(4))).encode()
    for end in range(len(line)):
        run.epochs.write_bytes(whole + line[:end])
        assert [e.epoch for e in one(home).epochs] == [1, 2, 3]
    run.epochs.write_bytes(whole + line)
    assert [e.epoch for e in one(home).epochs] == [1, 2, 3, 4]


def test_what_is_no_number_is_unknown_and_a_repeated_epoch_counts_last(home: Home) -> None:
    run = record(home, "run", epochs=1)
    run.append_epoch(epoch(2, loss=math.nan, top1_error=7.0, seconds=math.inf))
    run.append_epoch(epoch(1, loss=0.25))
    with run.epochs.open("a") as file:
        file.write('{"epoch": 3, "loss": "low", "rate": true, "memory": 1e999}\n[1]\n\n')
        file.write('{"epoch": 1.5}\n{"epoch": 0}\n{"epoch": -1}\n{"epoch": 1e300}\n')
    first, second, third = one(home).epochs
    assert first.loss == 0.25
    assert (second.loss, second.top1_error, second.seconds) == (None, None, None)
    assert second.rate == 0.01
    assert set(asdict(third).values()) == {3, None}


def test_of_a_huge_file_the_end_is_read(home: Home) -> None:
    run = record(home, "run", epochs=0)
    lines = (json.dumps(asdict(epoch(n))) + "\n" for n in range(1, 20_001))
    run.epochs.write_text("".join(lines))
    read = one(home).epochs
    assert read[-1].epoch == 20_000
    assert 1000 < len(read) < 20_000
    assert [e.epoch for e in read] == list(range(read[0].epoch, 20_001))
    (run.path / "run.json").write_text(json.dumps({"preset": "x" * 1_000_000}))
    assert one(home).preset == ""


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to itself", "device"])
def test_what_is_no_file_is_nothing(home: Home, kind: str) -> None:
    run = record(home, "run")
    for file in ("run.json", "environment.json"):
        (run.path / file).unlink(missing_ok=True)
        make: dict[str, Callable[[Path], Any]] = {
            "folder": Path.mkdir,
            "pipe": os.mkfifo,
            "link to itself": lambda path: path.symlink_to(path),
            "device": lambda path: path.symlink_to("/dev/zero"),
        }
        make[kind](run.path / file)
    assert len(one(home).epochs) == 3
    assert (one(home).preset, one(home).environment) == ("", {})


def test_foreign_and_hidden_folders_and_files_are_no_runs(home: Home) -> None:
    assert read_runs(home) == []
    record(home, "run")
    record(home, ".hidden")
    (home.runs / "notes").mkdir()
    (home.runs / "notes/read me.txt").write_text("{}")
    (home.runs / "a file").write_text("{}")
    (home.runs / "gone").symlink_to(home.runs / "nowhere")
    (home.runs / os.fsdecode(b"not text \xff")).mkdir()
    assert [run.name for run in read_runs(home)] == ["run"]
    assert read_run(home, "notes") is None
    for name in ("..", ".", "", "run/", "../runs/run", str(home.runs / "run"), "run\0"):
        assert read_run(home, name) is None


def test_the_newest_is_first(home: Home) -> None:
    for name in ("20250101-000000-demo-a", "20260101-000000-demo-b", "20251224-180000-small-c"):
        record(home, name)
    assert [run.name[-1] for run in read_runs(home)] == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("seconds", "epochs", "told", "name"),
    [
        (10_000, 3, {"finished": True}, "finished"),
        (5, 3, {}, "running"),
        (5, 0, {}, "running"),
        (100, 3, {}, "running"),  # epochs of 40 s: two may be late
        (400, 3, {}, "stopped"),
        (400, 0, {}, "running"),  # the first checkpoint is written after 300 s
        (1000, 0, {}, "stopped"),
        (1000, 0, {"options": {"checkpoint_seconds": 900}}, "running"),
        (1000, 3, {"options": {"checkpoint_seconds": 900}}, "stopped"),
        (-50, 3, {}, "running"),  # the clocks of two machines differ
    ],
)
def test_how_far_it_is_is_told_by_its_last_write(
    home: Home, seconds: float, epochs: int, told: dict[str, Any], name: str
) -> None:
    age(record(home, "run", epochs, **told), seconds)
    assert determine_run_status(one(home), NOW).name == name
    assert one(home).last_write_at == NOW - timedelta(seconds=seconds)


def test_what_remains_is_estimated_from_the_last_epochs(home: Home) -> None:
    run = record(home, "run", epochs=0, recipe=replace(PAPER, epochs=10))
    for number, seconds in enumerate((500.0, 60.0, 50.0, 40.0), start=1):
        run.append_epoch(epoch(number, seconds=seconds))
    age(run, 20)
    # Six epochs of 50 s, of which 20 s have gone.
    assert determine_run_status(one(home), NOW).remaining == pytest.approx(6 * 50 - 20)
    age(run, 75)
    assert determine_run_status(one(home), NOW).remaining == pytest.approx(5 * 50)
    run.update_description(recipe={"epochs": 4})
    age(run, 20)
    assert determine_run_status(one(home), NOW).remaining is None


def test_epochs_older_than_a_field_lack_only_that(home: Home) -> None:
    run = record(home, "run", epochs=1)
    run.append_epoch(epoch(2, conv1_low_frequency=0.9))
    old, new = (json.loads(line) for line in run.epochs.read_text().splitlines())
    del old["conv1_low_frequency"]
    run.epochs.write_text(f"{json.dumps(old)}\n{json.dumps(new)}\n")
    assert one(home).epochs == (epoch(1), epoch(2, conv1_low_frequency=0.9))
