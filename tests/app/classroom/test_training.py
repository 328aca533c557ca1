"""Training from the page: it outlives the server, is stopped and resumed, and ends on Models."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from app.classroom.datasets import read_dataset
from app.classroom.training_process import (
    locate_lock,
    read_started,
    read_training_progress,
)
from storage.activity import is_held
from storage.home import Home

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[3]
EPOCHS = 8
SERVER = """
import os, re, signal, sys
from app import create_app
client = create_app().test_client()
csrf = re.search(r'csrf_token" value="([^"]+)', client.get("/new").text)[1]
def post(address, **fields):
    return client.post(address, data={"csrf_token": csrf, **fields}).status_code
assert post("/new/token", token=sys.argv[1]) == 303
assert post("/new/whole/train", **{"from": "served", "epochs": sys.argv[2]}) == 303
os.kill(os.getpid(), signal.SIGKILL)
"""


def wait_for(condition: Callable[[], bool], home: Home) -> None:
    """Wait until something is so; the log of the training says why it never is."""
    end = time.monotonic() + 120
    while not condition():
        log = home.datasets / "whole/training.log"
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)


def test_training_outlives_the_server_and_is_stopped_and_resumed(
    school, teacher, two_classes, page, environment
) -> None:
    home: Home = school.extensions["settings"].home
    teacher.send_zip(two_classes, "whole")
    dataset = read_dataset(home, "whole")
    variables = {"ALEXNET_HOME": str(home.root), "ALEXNET_ADMIN_TOKEN": teacher.token}
    server = subprocess.run(
        [sys.executable, "-c", SERVER, teacher.token, str(EPOCHS)],
        cwd=ROOT,
        env=os.environ | environment | variables | {"OMP_NUM_THREADS": "1"},
    )
    assert server.returncode == -signal.SIGKILL

    def state():
        return read_training_progress(home, dataset)

    assert state().running
    started = read_started(home)
    assert os.getsid(started.pid) == started.pid
    # One at a time, and its photographs stay.
    again = teacher.post("/new/whole/train", **{"from": "scratch", "epochs": "1"})
    assert again.status_code == 409
    assert teacher.post("/new/whole/delete").status_code == 409
    wait_for(lambda: bool(state().run and state().run.epochs), home)
    run = state().run.name
    shown = page(teacher.client.get("/new/whole"))
    assert f"/training/{run}" in {a.attributes.get("href") for a in shown.all("a")}
    assert list_actions(shown) & {"train", "stop", "resume"} == {"stop"}

    assert teacher.post("/new/whole/train/stop").status_code == 303
    wait_for(lambda: not is_held(locate_lock(home)), home)
    stopped = state()
    assert stopped.run.ended == "stopped"
    assert 1 <= len(stopped.run.epochs) < EPOCHS
    assert teacher.post("/new/whole/train/stop").status_code == 409
    shown = page(teacher.client.get("/new/whole"))
    assert list_actions(shown) & {"train", "stop", "resume"} == {"train", "resume"}

    assert teacher.post("/new/whole/train/resume").status_code == 303
    wait_for(lambda: state().run.finished and not state().running, home)
    assert state().run.name == run
    assert [epoch.epoch for epoch in state().run.epochs] == [*range(1, EPOCHS + 1)]
    models = page(teacher.client.get("/models"))
    assert f"{run}/weights.safetensors" in {
        field.attributes.get("value", "").removeprefix("runs/") for field in models.all("input")
    }
    assert teacher.post("/new/whole/train/resume").status_code == 409
    assert teacher.post("/new/whole/delete").status_code == 303


def list_actions(shown) -> set[str]:
    """The last parts of the addresses that a page's forms are sent to."""
    return {form.attributes.get("action", "").rsplit("/", 1)[-1] for form in shown.all("form")}


def test_why_training_did_not_start_stands_on_the_page(school, teacher, two_classes, page) -> None:
    home: Home = school.extensions["settings"].home
    teacher.send_zip(two_classes, "whole")
    for epochs in ("0", "-1", "many", "1001", ""):
        refused = teacher.post("/new/whole/train", **{"from": "scratch", "epochs": epochs})
        assert refused.status_code == 400
    assert teacher.post("/new/whole/train/resume").status_code == 409
    # As a process leaves it that ended before its run had a folder.
    started = {"dataset": "whole", "pid": 2**22, "started_at": "2026-01-01T00:00:00Z"}
    (home.datasets / ".training.json").write_text(json.dumps(started))
    (home.datasets / "whole/training.log").write_text("training/run.py: the disk is full\n")
    shown = page(teacher.client.get("/new/whole"))
    assert shown.one("pre").text == "training/run.py: the disk is full"
    assert list_actions(shown) & {"train", "stop", "resume"} == {"train"}
