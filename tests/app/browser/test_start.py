"""The server at its start."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_wrong_settings_are_refused_by_name_at_the_start(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:0", "app:create_app()"]
    wrong = {"ALEXNET_UPLOAD_DAYS": "soon", "ALEXNET_DEVICE": "abacus"}
    env = {**os.environ, "ALEXNET_HOME": str(tmp_path), **wrong}
    ended = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert "ALEXNET_UPLOAD_DAYS" in ended.stderr
    assert "ALEXNET_DEVICE" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_open_switching_is_for_this_machine_only(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gunicorn", "--bind", "0.0.0.0:0", "app:create_app()"]
    variables = {"ALEXNET_HOME": str(tmp_path), "ALEXNET_SWITCH_WITHOUT_TOKEN": "1"}
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert "ALEXNET_SWITCH_WITHOUT_TOKEN" in ended.stderr
    assert "Traceback" not in ended.stderr
