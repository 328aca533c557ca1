"""The command line's manners: one form of error, any path, any terminal, and a quiet Ctrl-C."""

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from training.distributed.worker import StderrChannel, train_in_process
from training.recipe.config import RecipeError
from training.recipe.options import parse_options

ROOT = Path(__file__).resolve().parents[2]
WORDS = ("--variant", "cifar-80sec", "--batch", "12", "--epochs", "1")
RunTraining = Callable[..., tuple[str, str]]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--epcohs", "3"], ["--epcohs", "perhaps you meant --epochs"]),
        (["--epochs", "many"], ["--epochs", "many"]),
        (["--precision", "f8"], ["--precision", "f8", "bf16"]),
        (["--batch"], ["--batch"]),
    ],
)
def test_a_mistake_in_the_flags_is_one_line(words: list[str], parts: list[str]) -> None:
    with pytest.raises(RecipeError) as refused:
        parse_options(words)
    said = str(refused.value)
    assert all(part in said for part in parts)
    assert "\n" not in said
    assert not set(said) & set("│╭╰─")


def test_help_is_still_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_options(["--help"])
    assert ended.value.code == 0
    assert "--epochs" in capsys.readouterr().out


def test_brackets_in_a_path_are_neither_markup_nor_an_error(
    run_training: RunTraining, photographs: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(photographs, tmp_path / "a [bold] set [/red]"))
    # A photograph that cannot be read is named, too.
    (data / "train/cat/0.jpg").write_bytes(b"")
    printed, _ = run_training(tmp_path / "home [x]", "--data", data, *WORDS)
    assert str(data) in printed
    assert str(data / "train/cat/0.jpg") in printed
    run_folder = next((tmp_path / "home [x]/runs").iterdir())
    assert f"to {run_folder}/weights.safetensors" in printed
    # With three classes, five guesses are always right.
    assert "top-1" in printed
    assert "top-5" not in printed


def test_where_only_ascii_can_be_written_the_training_goes_on(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    monkeypatch.setenv("ALEXNET_HOME", str(tmp_path / "home"))
    words = ("--data", str(photographs), *WORDS, "--no-ten-crops")
    assert train_in_process(words, StderrChannel()) == 0
    sys.stdout.flush()
    assert b"1 ? 1 processes" in written.getvalue()


def test_ctrl_c_while_modules_are_imported_is_quiet(
    start_process: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """The import of torch, which takes the longest, is replaced by one that never ends."""
    (tmp_path / "torch.py").write_text(
        "import pathlib, time\n"
        f"pathlib.Path({str(tmp_path / 'importing')!r}).touch()\n"
        "time.sleep(1000)\n"
    )
    process = start_process(
        [sys.executable, "training/run.py"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    while not (tmp_path / "importing").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == -signal.SIGINT
