"""`python training/photographs.py`: which folder it prints."""

import sys
from pathlib import Path

import pytest

from model.dataset.folder import scan_folder
from training.photographs import main


def test_it_prints_the_folder_that_is_named_or_the_demos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALEXNET_HOME", str(tmp_path))
    for words, folder in (([], tmp_path / "demo"), (["--data", "my album"], Path("my album"))):
        monkeypatch.setattr(sys, "argv", ["photographs.py", *words])
        assert main() == 0
        assert capsys.readouterr().out == f"{folder}\n"
    assert len(scan_folder(tmp_path / "demo").classes) == 14


def test_what_goes_wrong_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ALEXNET_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(sys, "argv", ["photographs.py"])
    assert main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("training/photographs.py: ")
