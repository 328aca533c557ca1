"""Index commands killed by the system: the short form of what `experiments/killed.py` does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
AIMS = ("sealing", "publishing")


@pytest.mark.slow
def test_whatever_moment_a_command_dies_at_what_is_served_verifies(
    few_photographs: Path, narrow_weights: Path, tmp_path: Path
) -> None:
    words = ["--times", "2", "--images", "30", "--commands", "build", "update", "--aims", *AIMS]
    words += ["--data", str(few_photographs), "--weights", str(narrow_weights)]
    done = subprocess.run(
        [sys.executable, "experiments/killed.py", *words, "--json", str(tmp_path / "kills.json")],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path), "ALEXNET_HOME": str(tmp_path / "var")},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    kills = json.loads((tmp_path / "kills.json").read_text())
    assert [kill["aimed"] for kill in kills] == list(AIMS)
    assert {kill["served"] for kill in kills} <= {"none", "before", "new"}
    assert "2 kills, and every promise held" in done.stdout
