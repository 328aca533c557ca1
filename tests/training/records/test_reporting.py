"""What a run shows on the terminal while it goes on, and when it saves."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from storage.home import Home
from storage.machine import read_processor_name
from storage.progress import show_progress_bar
from storage.runs import Epoch, RunFolder
from training.dataset.prepare import PreparedDataset
from training.optimisation.loop import train_network
from training.optimisation.state import init_state
from training.recipe.config import CIFAR
from training.records.reporting import draw_conv1, format_epoch, report_run
from training.records.run_folder import RunSpec, create_run

RECIPE = replace(CIFAR, epochs=1, batch=5)
SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"
EPOCH = Epoch(
    epoch=7,
    rate=0.001,
    loss=2.3456,
    top1_error=0.407,
    top5_error=0.182,
    images_per_second=123.45,
    data_wait=0.25,
    seconds=61.0,
    memory=3.21,
)


def console(*, terminal: bool) -> Console:
    return Console(
        file=io.StringIO(), force_terminal=terminal, width=200, highlight=False, soft_wrap=True
    )


def shown(to: Console) -> str:
    assert isinstance(to.file, io.StringIO)
    return to.file.getvalue()


def run_of(data: PreparedDataset, tmp_path: Path) -> tuple[RunFolder, RunSpec]:
    spec = RunSpec(data, RECIPE)
    return create_run(Home(root=tmp_path), spec, "cifar"), spec


def test_an_epochs_line_says_all_that_people_compare() -> None:
    said = format_epoch(EPOCH, 90)
    for part in ("7/90", "0.001", "2.346", "40.70%", "18.20%", "123.5", "0.2 s", "3.2 GiB", "61 s"):
        assert part in said


def test_the_top_5_error_is_shown_from_six_classes_on() -> None:
    assert "top-5" not in format_epoch(EPOCH, 90, classes=5)
    assert "top-5" in format_epoch(EPOCH, 90, classes=6)


def test_a_log_file_gets_the_lines_and_no_bars(tiny: PreparedDataset, tmp_path: Path) -> None:
    run, spec = run_of(tiny, tmp_path)
    to = console(terminal=False)
    with (
        report_run(run, spec, to, lambda: 0, 1e9) as callbacks,
        show_progress_bar(to, "decoding", 3) as advance,
    ):
        advance(3)
        train_network(
            init_state(RECIPE.network(3), RECIPE, torch.device("cpu")),
            tiny,
            RECIPE,
            "f32",
            callbacks,
        )
    (only,) = shown(to).splitlines()
    assert only.startswith("epoch   1/1  rate 0.001")


def test_a_terminal_sees_the_loss_and_has_its_cursor_back_after_an_error(
    tiny: PreparedDataset, tmp_path: Path
) -> None:
    run, spec = run_of(tiny, tmp_path)
    to = console(terminal=True)

    def fail() -> None:
        with report_run(run, spec, to, lambda: 0, 1e9) as callbacks:
            callbacks.on_step(1, 4, 2.345)
            raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        fail()
    said = shown(to)
    assert "loss 2.345" in said
    assert "1/4" in said
    assert said.rindex(SHOW_CURSOR) > said.rindex(HIDE_CURSOR)


def test_a_checkpoint_is_due_by_the_clock(
    tiny: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, spec = run_of(tiny, tmp_path)
    state = init_state(RECIPE.network(3), RECIPE, torch.device("cpu"))
    clock = [1000.0]
    monkeypatch.setattr("training.records.reporting.time.monotonic", lambda: clock[0])
    with report_run(run, spec, Console(quiet=True), lambda: 0, 300) as callbacks:
        assert not callbacks.checkpoint_due()
        clock[0] += 301
        assert callbacks.checkpoint_due()
        callbacks.save_checkpoint(state)
        assert not callbacks.checkpoint_due()
        assert run.checkpoint.exists()


def test_a_process_that_does_not_write_writes_nothing(
    tiny: PreparedDataset, tmp_path: Path
) -> None:
    spec, to = RunSpec(tiny, RECIPE), console(terminal=False)
    with report_run(None, spec, to, lambda: 0, 0) as callbacks:
        train_network(
            init_state(RECIPE.network(3), RECIPE, torch.device("cpu")),
            tiny,
            RECIPE,
            "f32",
            callbacks,
        )
    assert list(tmp_path.iterdir()) == []
    assert shown(to) == ""


@pytest.mark.parametrize("kernels", [torch.randn(96, 3, 11, 11), torch.randn(64, 3, 5, 5)])
def test_conv1s_halves_stand_side_by_side(kernels: Tensor) -> None:
    picture = np.array(draw_conv1(kernels))
    side = 4 * kernels.shape[-1]
    assert picture.shape[1] == 2 * (8 * (side + 4) - 4) + 16
    # The largest weight of the first kernel is drawn as far from mid-grey as can be.
    assert np.abs(picture[:side, :side].astype(int) - 128).max() in (127, 128)
    assert draw_conv1(kernels, 1).size[0] == 8 * (side + 4) - 4


def test_the_processor_has_a_name() -> None:
    info = Path("/proc/cpuinfo")
    if info.exists() and "model name" in info.read_text():
        assert read_processor_name() in info.read_text()
