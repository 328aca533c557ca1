"""The project's C, compiled for this machine."""

import shutil
import tempfile
from pathlib import Path

import pytest

from model.network.cpu.c_library import CompilerError, compile_library, run_on_threads

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")


@needs_compiler
def test_nothing_remains_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, folder = tmp_path / "seven.c", tmp_path / "temporary"
    source.write_text("int seven(void) { return 7; }\n")
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    assert compile_library(source).seven() == 7
    assert list(folder.iterdir()) == []


@needs_compiler
def test_the_compilers_first_line_is_the_reason(tmp_path: Path) -> None:
    source = tmp_path / "wrong.c"
    source.write_text("int seven(void) { return unknown; }\n")
    with pytest.raises(CompilerError, match=r"wrong\.c"):
        compile_library(source)


def test_without_a_compiler_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(CompilerError, match="there is no C compiler no-such-compiler"):
        compile_library(tmp_path / "any.c")


@pytest.mark.parametrize("count", [0, 1, 2, 7, 1000])
def test_the_parts_cover_everything_once(count: int) -> None:
    parts: list[tuple[int, int]] = []

    def loop(value: str, begin: int, end: int) -> int:
        assert value == "given"
        parts.append((begin, end))
        return 0

    assert not any(run_on_threads(loop, ("given",), count))
    assert sorted(n for begin, end in parts for n in range(begin, end)) == list(range(count))
