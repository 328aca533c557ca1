"""float16 with a scaled loss: steps that overflow are skipped, and runs resume to the bit."""

import json
import math
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from storage.home import Home
from storage.runs import RunFolder, read_run
from storage.steps import read_last_step
from tests.narrow_networks import narrow_network
from training.dataset.prepare import PreparedDataset
from training.optimisation import divergence, precision
from training.optimisation.device import choose_fastest, set_tf32, uses_tf32
from training.optimisation.divergence import DivergedError
from training.optimisation.loop import train_network
from training.optimisation.precision import LossScale
from training.optimisation.state import TrainingState, init_state
from training.recipe.config import CIFAR
from training.recipe.options import parse_options
from training.records.callbacks import Callbacks, StoppedError
from training.records.checkpoints import load_checkpoint
from training.records.reporting import report_run
from training.records.run_folder import RunSpec, create_run

RECIPE = replace(CIFAR, variant="cifar-80sec", epochs=3, batch=5, hold_out=0.0, drop_after=(1, 2))
STEPS = 24 // 5
TOO_LARGE = 2.0**23
"""A scale with which the first gradients overflow."""


def fresh(data: PreparedDataset, scale: float = TOO_LARGE) -> TrainingState:
    config = narrow_network(RECIPE.network(len(data.class_names)))
    state = init_state(config, RECIPE, torch.device("cpu"))
    state.loss_scale.value = scale
    return state


def copy(state: TrainingState) -> list[torch.Tensor]:
    return [p.detach().clone() for p in state.network.parameters()]


def same(a: TrainingState, b: TrainingState) -> bool:
    return all(torch.equal(x, y) for x, y in zip(copy(a), copy(b), strict=True))


def test_the_scale_follows_torchs_grad_scaler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "GROWTH_STEPS", 3)
    theirs = torch.amp.GradScaler("cpu", growth_interval=3)
    parameter = torch.zeros(2, requires_grad=True)
    sgd, ours = torch.optim.SGD([parameter], 0.0), LossScale()
    for gradient in (1.0, math.inf, 1.0, 1.0, 1.0, 1.0, math.nan, math.inf, *[1.0] * 5):
        theirs.scale(torch.zeros(()))  # which sets it up
        assert ours.value == theirs.get_scale()
        parameter.grad = torch.tensor([1.0, gradient])
        theirs.step(sgd)
        theirs.update()
        parameter.grad = torch.tensor([1.0, gradient])
        overflow = ours.unscale([parameter])
        assert overflow == (not math.isfinite(gradient))
        if overflow:
            ours.skip()
        else:
            assert parameter.grad.tolist() == [1 / ours.value, 1 / ours.value]
            ours.keep()
    assert ours.value == theirs.get_scale() != 2.0**16


def test_steps_that_overflow_change_nothing_and_do_not_end_the_run(
    tiny: PreparedDataset, tmp_path: Path
) -> None:
    spec, home = RunSpec(tiny, RECIPE, precision="f16"), Home(root=tmp_path)
    run, state = create_run(home, spec, "cifar"), fresh(tiny)
    changed, printed = list[bool](), Console(record=True, width=200, force_terminal=False)
    before = copy(state)

    def note(*_: object) -> None:
        after = copy(state)
        changed.append(any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)))
        before[:] = after

    with report_run(run, spec, printed, lambda: 0, 1e9, 0) as reports:
        train_network(state, tiny, RECIPE, "f16", replace(reports, on_step=note))
    skipped = changed.count(False)
    assert 0 < skipped < len(changed) == RECIPE.epochs * STEPS
    # From the first on, until the scale is small enough.
    assert changed == [False] * skipped + [True] * (len(changed) - skipped)
    assert state.loss_scale.value == TOO_LARGE / 2**skipped
    assert sum(epoch.skipped_steps or 0 for epoch in state.history) == skipped
    assert all(math.isfinite(epoch.loss) for epoch in state.history)
    # What the files and the terminal say.
    read = read_run(home, run.path.name)
    assert read is not None
    assert [e.skipped_steps for e in read.epochs] == [e.skipped_steps for e in state.history]
    last = read_last_step(run.steps)
    assert last is not None
    assert last.loss_scale == state.loss_scale.value
    assert "skipped" in printed.export_text()


def test_other_precisions_have_no_scale(tiny: PreparedDataset) -> None:
    scaled, plain = fresh(tiny), fresh(tiny, 1.0)
    one = replace(RECIPE, epochs=1)
    for state in (scaled, plain):
        train_network(state, tiny, one, "f32", Callbacks())
        assert state.history[0].skipped_steps is None
    assert same(scaled, plain)
    assert scaled.loss_scale == LossScale(TOO_LARGE)


@pytest.mark.parametrize("stop_at", [1, 3, STEPS + 3])
def test_a_run_resumes_to_the_same_bits_scale_included(
    tiny: PreparedDataset, tmp_path: Path, stop_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The scale grows, overflows and shrinks again and again.
    monkeypatch.setattr(precision, "GROWTH_STEPS", 2)
    spec, start = RunSpec(tiny, RECIPE, precision="f16"), 2.0**21
    whole, stopped, resumed = fresh(tiny, start), fresh(tiny, start), fresh(tiny, 1.0)
    train_network(whole, tiny, RECIPE, "f16", Callbacks())
    assert 1 < sum(epoch.skipped_steps or 0 for epoch in whole.history) < 2 * STEPS
    run = create_run(Home(root=tmp_path), spec, "cifar")
    polls = iter(range(1, 1000))

    def stop() -> int:
        return signal.SIGTERM if next(polls) == stop_at else 0

    with (
        report_run(run, spec, Console(quiet=True), stop, 1e9) as callbacks,
        pytest.raises(StoppedError),
    ):
        train_network(stopped, tiny, RECIPE, "f16", callbacks)
    load_checkpoint(run, resumed, spec)
    assert resumed.loss_scale == stopped.loss_scale
    assert resumed.progress == stopped.progress
    train_network(resumed, tiny, RECIPE, "f16", Callbacks())
    assert same(resumed, whole)
    assert resumed.loss_scale == whole.loss_scale
    assert [e.loss for e in resumed.history] == [e.loss for e in whole.history]
    assert [e.skipped_steps for e in resumed.history] == [e.skipped_steps for e in whole.history]


def test_gradients_that_no_scale_helps_are_a_divergence(
    tiny: PreparedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LossScale, "unscale", lambda *_: True)
    monkeypatch.setattr(divergence, "MAX_SKIPPED", 6)
    state, losses = fresh(tiny), list[float]()
    callbacks = Callbacks(on_step=lambda _step, _steps, loss: losses.append(loss))
    with pytest.raises(DivergedError, match=r"6 steps .* --precision f32"):
        train_network(state, tiny, replace(RECIPE, epochs=100), "f16", callbacks)
    assert len(losses) == 5
    assert all(map(math.isfinite, losses))


def test_outputs_beyond_float16_are_not_counted_and_end_the_run_in_the_end(
    tiny: PreparedDataset,
) -> None:
    state = fresh(tiny, 1.0)
    with torch.no_grad():
        state.network.first_conv.weight.mul_(1e7)
    with pytest.raises(DivergedError, match="finite loss"):
        train_network(state, tiny, RECIPE, "f16", Callbacks())
    assert state.progress.unmeasured == state.progress.skipped == STEPS
    assert state.progress.loss == 0
    assert not state.recent_losses


def test_a_checkpoint_from_before_has_a_fresh_scale(tiny: PreparedDataset, tmp_path: Path) -> None:
    spec = RunSpec(tiny, RECIPE)
    run = create_run(Home(root=tmp_path), spec, "cifar")
    with report_run(run, spec, Console(quiet=True), lambda: 0, 1e9) as callbacks:
        callbacks.save_checkpoint(fresh(tiny, 8.0))
    header, rest = split_header(run)
    del header["__metadata__"]["loss_scale"], header["__metadata__"]["checksum"]
    write_header(run, header, rest)
    state = fresh(tiny)
    load_checkpoint(run, state, spec)
    assert state.loss_scale == LossScale()


def split_header(run: RunFolder) -> tuple[dict[str, dict[str, str]], bytes]:
    content = run.checkpoint.read_bytes()
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def write_header(run: RunFolder, header: dict[str, dict[str, str]], rest: bytes) -> None:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    run.checkpoint.write_bytes(len(text).to_bytes(8, "little") + text + rest)


@pytest.mark.parametrize(
    ("bf16", "capability", "expected"),
    [
        (True, (9, 0), "bf16"),  # H100
        (False, (7, 5), "f16"),  # T4
        (False, (7, 0), "f16"),  # V100
        (False, (6, 1), "f32"),  # GTX 1080, whose float16 is slower
        (True, None, "bf16"),
        (False, None, "f32"),
    ],
)
def test_cards_without_bf16_that_are_fast_in_float16_use_it(
    bf16: bool, capability: tuple[int, int] | None, expected: str
) -> None:
    assert choose_fastest(bf16, capability) == expected


def test_tf32_is_off_unless_it_is_asked_for() -> None:
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    assert not parse_options([]).tf32
    try:
        for enabled in (parse_options(["--tf32"]).tf32, False):
            set_tf32(enabled)
            assert [backend.allow_tf32 for backend in backends] == [enabled, enabled]
            assert uses_tf32() == enabled
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value
