"""What strangers may do to the server: the short form of what `experiments/abuse.py` does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.abuse import POINTS, main
from experiments.abused_server import NotLoopbackError, split_loopback

ROOT = Path(__file__).resolve().parents[1]
CHEAP = ("malformed", "ownership", "tokens")


def run(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "experiments/abuse.py", *words],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.slow
def test_the_server_holds(few_photographs: Path, narrow_weights: Path, tmp_path: Path) -> None:
    file = tmp_path / "outcomes.json"
    home = ["--data", str(few_photographs), "--weights", str(narrow_weights)]
    done = run("--only", *CHEAP, *home, "--json", str(file), folder=tmp_path)
    outcomes = json.loads(file.read_text())
    assert {name: one["held"] for name, one in outcomes.items()} == dict.fromkeys(CHEAP, True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(tmp_path.glob("abuse-*"))


def test_only_this_machine_is_abused(monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("http://192.0.2.1:8000", "https://127.0.0.1", "http://127.0.0.1.example"):
        with pytest.raises(NotLoopbackError):
            split_loopback(address)
    monkeypatch.setattr(sys, "argv", ["abuse.py", "--url", "http://192.0.2.1:8000"])
    with pytest.raises(SystemExit, match=r"192\.0\.2\.1"):
        main()
    assert len(POINTS) == 12
