"""A new home's pages: what is missing, what is making it, and what to run otherwise."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.config import Settings
from storage.activity import record_activity
from storage.files import switch_link
from storage.home import Home
from storage.progress import ignore_progress
from storage.runs import RunFolder
from storage.steps import StepRecord, append_step
from training.recipe.config import PAPER

Page = Callable[[TestResponse], Any]
ROOT = Path(__file__).resolve().parents[3]
LOCAL = {"base_url": "http://127.0.0.1"}


@pytest.fixture
def new_settings(settings: Settings, tmp_path: Path) -> Settings:
    """Settings of a home with nothing in it, whose user sits at this machine."""
    home = Home(root=tmp_path / "a home")
    return replace(settings, home=home, switch_without_token=True, admin_token="")


@pytest.fixture
def visitor(new_settings: Settings, open_app: Callable[[Settings], Flask]) -> FlaskClient:
    return open_app(new_settings).test_client()


def start_run(home: Home, **description: Any) -> RunFolder:
    """Write what a run has written within its first epoch."""
    run = RunFolder(home.runs / "running")
    run.path.mkdir(parents=True)
    run.update_description(recipe=asdict(replace(PAPER, epochs=4)), finished=False, **description)
    return run


def statuses(shown: Any) -> list[str]:
    """The status of each step."""
    return [p.text for p in shown.one("ol", "setup").all("p", "status")]


def test_the_command_works_as_typed_from_any_folder(
    visitor: FlaskClient, page: Page, new_settings: Settings, tmp_path: Path
) -> None:
    shown = page(visitor.get("/", **LOCAL))
    assert statuses(shown) == ["missing", "waiting"]
    command = shown.one("code").text
    assert command.endswith(" training/run.py")
    # The same Python, in the same folder and with the same variables, without what takes seconds.
    code = "from storage.home import home_from_environment as home; print(home().root)"
    command = command.replace("training/run.py", f"-c {shlex.quote(code)}")
    done = subprocess.run(
        command, shell=True, cwd=tmp_path, env={}, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{new_settings.home.root}\n"


def test_visitors_from_elsewhere_see_no_paths_of_the_server(
    visitor: FlaskClient, new_settings: Settings
) -> None:
    for address in ("/", "/explore", "/models", "/training"):
        shown = visitor.get(address, base_url="http://alexnet.example").get_data(as_text=True)
        assert str(new_settings.home.root) not in shown
        assert sys.prefix not in shown


@pytest.mark.parametrize("address", ["/", "/explore", "/models"])
def test_while_a_run_is_going_nobody_is_invited_to_start_another(
    visitor: FlaskClient, page: Page, new_settings: Settings, address: str
) -> None:
    run = start_run(new_settings.home)
    record = StepRecord(
        time=run.description.stat().st_mtime,
        epoch=1,
        step=50,
        steps=100,
        images=6400,
        loss=2.0,
        images_per_second=10.0,
        data_wait=0.0,
        memory=1.0,
        remaining=40.0,
        rates={},
        gradient_norms={},
        update_norms={},
    )
    append_step(run.steps, record)
    shown = page(visitor.get(address, **LOCAL))
    # Half of the first of four epochs.
    assert float(shown.one("progress").attributes["value"]) == pytest.approx(0.125)
    assert shown.all("code") == []
    assert "/training/running" in [a.attributes["href"] for a in shown.all("a")]


def test_a_run_that_stopped_is_resumed_not_repeated(
    visitor: FlaskClient, page: Page, new_settings: Settings
) -> None:
    run = start_run(new_settings.home, ended="failed")
    run.checkpoint.write_bytes(b"")
    shown = page(visitor.get("/", **LOCAL))
    assert statuses(shown) == ["stopped", "waiting"]
    words = shlex.split(shown.one("code").text)
    assert words[words.index("--resume") + 1] == str(run.path)


def test_decoding_before_a_run_has_a_folder_is_shown(
    visitor: FlaskClient, page: Page, new_settings: Settings
) -> None:
    with record_activity(new_settings.home.training_activity, ignore_progress) as report:
        report("Decoding the photographs", 200)(50)
        for address in ("/", "/training"):
            shown = page(visitor.get(address, **LOCAL))
            assert "50 of 200" in shown.one("main").text
            assert shown.all("code") == []
    assert page(visitor.get("/", **LOCAL)).all("progress") == []


def test_with_weights_only_the_index_is_missing_and_a_build_of_it_is_followed(
    visitor: FlaskClient, page: Page, new_settings: Settings, settings: Settings
) -> None:
    switch_link(new_settings.home.weights, settings.home.weights.resolve())
    shown = page(visitor.get("/explore", **LOCAL))
    assert statuses(shown) == ["ready", "missing"]
    assert shown.one("code").text.endswith("flask index build")
    assert visitor.get("/filters").status_code == visitor.get("/layers").status_code == 200
    assert page(visitor.get("/filters")).all("ol", "setup") == []
    with record_activity(new_settings.home.index_activity, ignore_progress) as report:
        report("Computing features", 40)(30)
        for address in ("/", "/explore", "/models"):
            shown = page(visitor.get(address, **LOCAL))
            assert float(shown.one("progress").attributes["value"]) == pytest.approx(0.75)
            assert shown.all("code") == []


def test_what_the_demo_is_starting_is_not_asked_for(
    visitor: FlaskClient, page: Page, new_settings: Settings, settings: Settings
) -> None:
    with record_activity(new_settings.home.demo_activity, ignore_progress):
        shown = page(visitor.get("/", **LOCAL))
        assert statuses(shown) == ["running", "waiting"]
        assert shown.all("code") == []
        switch_link(new_settings.home.weights, settings.home.weights.resolve())
        shown = page(visitor.get("/explore", **LOCAL))
        assert statuses(shown) == ["ready", "running"]
        assert shown.all("code") == []
    assert statuses(page(visitor.get("/explore", **LOCAL))) == ["ready", "missing"]


def test_a_build_records_its_steps_and_leaves_nothing(shop: Any, monkeypatch) -> None:
    seen = set()
    file = shop.settings.home.index_activity
    write = Path.write_text

    def watch(self: Path, text: str, *args: Any, **kwargs: Any) -> int:
        if self == file:
            seen.add(json.loads(text)["step"])
        return write(self, text, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", watch)
    shop.right("build")
    assert seen
    assert not file.exists()


@pytest.mark.parametrize("path", ["x", "a" * 22, "together/x", "a" * 22 + "/delete", "deleted"])
def test_a_new_home_has_no_results(visitor: FlaskClient, path: str) -> None:
    assert visitor.get(f"/results/{path}").status_code == 404
