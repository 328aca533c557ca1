"""`python training/compress.py`, from trained weights to a file that everything reads."""

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from model.network.architectures import VARIANTS
from model.network.config import AlexNetConfig
from model.weights.checkpoint import Weights, load_weights, save_weights
from model.weights.header import WeightsError, read_weights_header
from storage.home import Home
from training.compress import main
from training.compression.options import (
    CompressionError,
    CompressionOptions,
    LayerCompression,
    choose_layers,
)
from training.compression.run import compress
from training.dataset.prepare import PreparedDataset
from training.evaluation.run import evaluate
from training.optimisation.loop import train_network
from training.optimisation.state import init_state
from training.recipe.config import CIFAR
from training.records.callbacks import Callbacks

ROOT = Path(__file__).resolve().parents[3]
CPU = ["--device", "cpu", "--precision", "f32"]
# What is left of so small a network is less redundant.
GENTLE = ["--conv.density", "0.5", "--dense.density", "0.5", "--last.density", "1"]


@dataclass(frozen=True)
class Trained:
    """Weights of a small network that knows the photographs, and where they lie."""

    weights: Weights
    file: Path
    photographs: Path
    home: Home


@pytest.fixture(scope="module")
def trained(
    tiny: PreparedDataset,
    photographs: Path,
    weights_of: Callable[..., Weights],
    tmp_path_factory: pytest.TempPathFactory,
) -> Trained:
    config = replace(VARIANTS["cifar"].config, classes=3, init="he", input_scale=60.0)
    recipe = replace(CIFAR, epochs=10, batch=4, drops=0, seed=1)
    state = init_state(config, recipe, torch.device("cpu"))
    train_network(state, tiny, recipe, "f32", Callbacks())
    last = state.history[-1]
    weights = weights_of(
        config,
        [c.folder for c in tiny.class_names],
        mean=tiny.mean,
        pca=tiny.pca,
        state={k: v.contiguous() for k, v in state.network.state_dict().items()},
        data=str(photographs),
        images=24,
        epochs=10,
        preset="cifar",
        top1_error=last.top1_error,
        top5_error=last.top5_error,
    )
    root = tmp_path_factory.mktemp("trained")
    save_weights(weights, root / "w.safetensors")
    return Trained(weights, root / "w.safetensors", photographs, Home(root=root / "home"))


def run(trained: Trained, *words: str | Path) -> tuple[Path, str]:
    """Compress; give the file and what was printed."""
    printed = io.StringIO()
    arguments = [str(word) for word in words]
    file = compress(arguments, trained.home, Console(file=printed, width=200))
    return file, printed.getvalue()


def test_with_the_photographs_the_accuracy_is_kept(trained: Trained, tmp_path: Path) -> None:
    before = trained.weights.provenance.top1_error
    assert before is not None
    assert before <= 1 / 12  # of twelve images, of which guessing gets four
    target = tmp_path / "small.safetensors"
    words = [trained.file, "--output", target, "--data", trained.photographs]
    file, printed = run(trained, *words, "--conv.density", "0.6", "--epochs", "20", *CPU)
    assert file == target
    assert list(tmp_path.iterdir()) == [target]
    small = load_weights(target)
    found, old = small.provenance, trained.weights.provenance
    assert found.top1_error is not None
    assert found.top1_error <= before + 1 / 12
    assert (found.epochs, found.images, found.data) == (30, 24, str(trained.photographs))
    assert (found.preset, small.classes) == (old.preset, trained.weights.classes)
    assert torch.equal(small.mean, trained.weights.mean)
    conv = LayerCompression(density=0.6, bits=6)
    options = CompressionOptions(weights=file, conv=conv)
    for name, layer in choose_layers(small.config, options).items():
        kept = small.state[name][small.state[name] != 0]
        assert kept.numel() == round(layer.density * small.state[name].numel()), name
        assert len(kept.unique()) <= 2**layer.bits, name  # type: ignore[no-untyped-call]
        # The network learned meanwhile: the layer's biases, too.
        bias = name.replace("weight", "bias")
        assert not torch.equal(small.state[bias], trained.weights.state[bias]), bias
    assert target.stat().st_size < trained.file.stat().st_size / 6
    # The errors in the file and on the terminal are those that an evaluation measures.
    words = [file, "--data", trained.photographs, *CPU]
    measured = evaluate([str(w) for w in words], trained.home, Console(file=io.StringIO()))
    errors = {result.crops: result.top1.error for result in measured.results}
    assert errors == {"centre": found.top1_error, "ten": found.ten_crop_top1_error}
    (line,) = (line for line in printed.splitlines() if "top-1, ten crops" in line)
    assert f"{found.ten_crop_top1_error:.2%}" in line
    assert f"{target.stat().st_size / 1e6:.1f} MB" in printed
    assert small.identity in printed


def test_without_the_photographs_the_errors_are_not_claimed(trained: Trained) -> None:
    file, _ = run(trained, trained.file, *GENTLE)
    assert file == trained.file.with_name("w-compressed.safetensors")
    small = load_weights(file)
    provenance = small.provenance
    assert (provenance.top1_error, provenance.ten_crop_top1_error) == (None, None)
    assert provenance.epochs == trained.weights.provenance.epochs
    # The kept weights are the largest, each near its old value.
    for name in ("conv2.weight", "local3.weight"):
        before, after = trained.weights.state[name], small.state[name]
        kept = after != 0
        assert kept.float().mean() == pytest.approx(0.5, abs=0.001)
        assert before[kept].abs().min() >= before[~kept].abs().max()
        assert (after - before)[kept].norm() < 0.05 * before.norm()


def test_pruning_at_once_is_measured_too(trained: Trained, tmp_path: Path) -> None:
    target = tmp_path / "small.safetensors"
    words = ["--output", target, "--data", trained.photographs]
    with_data, _ = run(trained, trained.file, *words, *GENTLE, *CPU)
    without, _ = run(trained, trained.file, *GENTLE)
    assert load_weights(with_data).identity == load_weights(without).identity
    assert load_weights(with_data).provenance.ten_crop_top1_error is not None


def test_compressing_again_changes_nothing(trained: Trained, tmp_path: Path) -> None:
    once, _ = run(trained, trained.file, *GENTLE)
    twice, _ = run(trained, once, "--output", tmp_path / "twice", *GENTLE)
    assert load_weights(twice).identity == load_weights(once).identity


def test_the_way_back_gives_a_plain_file(trained: Trained) -> None:
    file, _ = run(trained, trained.file, *GENTLE)
    plain, printed = run(trained, file, "--decompress")
    assert plain == trained.file.with_name("w-compressed-plain.safetensors")
    assert not read_weights_header(plain).compressed
    assert load_weights(plain).identity == load_weights(file).identity
    assert load_weights(file).identity in printed


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--conv.density", "0"], r"--conv\.density"),
        (["--dense.density", "1.5"], r"--dense\.density"),
        (["--first.bits", "9"], r"--first\.bits"),
        (["--last.bits", "0"], r"--last\.bits"),
        (["--epochs", "-1"], "--epochs"),
        (["--rate", "0"], "--rate"),
        (["--decompress"], "is not compressed"),
        (["--decompress", "--data", "x"], "takes no --data"),
    ],
)
def test_wrong_options_are_named(trained: Trained, words: list[str], reason: str) -> None:
    with pytest.raises(CompressionError, match=reason):
        run(trained, trained.file, *words)


def test_weights_are_not_written_over_themselves(trained: Trained) -> None:
    with pytest.raises(CompressionError, match=r"w\.safetensors is the file to read"):
        run(trained, trained.file, "--output", trained.file)


def test_photographs_of_other_classes_are_refused(
    trained: Trained, weights_of: Callable[..., Weights], tmp_path: Path
) -> None:
    file = tmp_path / "other.safetensors"
    save_weights(weights_of(trained.weights.config, ["cat", "coffee", "lawn"]), file)
    with pytest.raises(CompressionError, match="lawn"):
        run(trained, file, "--data", trained.photographs)


def test_weights_that_are_not_finite_are_refused(trained: Trained, tmp_path: Path) -> None:
    bad = trained.weights.state["conv2.bias"].clone().fill_(float("nan"))
    weights = replace(trained.weights, state={**trained.weights.state, "conv2.bias": bad})
    save_weights(weights, tmp_path / "bad")
    with pytest.raises(WeightsError, match=r"conv2\.bias"):
        run(trained, tmp_path / "bad")


def test_every_layer_of_the_paper_has_a_kind() -> None:
    options = CompressionOptions(weights=Path("w"))
    layers = choose_layers(AlexNetConfig(), options)
    middle = {f"conv{n}.weight": options.conv for n in range(2, 6)}
    dense = {f"fc{n}.weight": options.dense for n in (6, 7)}
    ends = {"conv1.weight": options.first, "fc8.weight": options.last}
    assert layers == middle | dense | ends


@pytest.mark.parametrize("words", [["missing.safetensors"], ["w.safetensors", "--epochs", "-1"]])
def test_an_error_is_one_line_with_exit_code_2(
    trained: Trained,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(trained.file.parent)
    monkeypatch.setattr(sys, "argv", ["training/compress.py", *words])
    assert main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("training/compress.py: ")


def test_a_full_disk_leaves_nothing(
    trained: Trained, small_disk: Callable[[str], AbstractContextManager[Path]]
) -> None:
    with small_disk("200k") as disk:
        with pytest.raises(OSError, match="small"):
            run(trained, trained.file, "--output", disk / "small.safetensors")
        assert not list(disk.iterdir())


@pytest.mark.slow
def test_an_interruption_leaves_nothing(
    trained: Trained, start_process: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    words = [trained.file, "--output", tmp_path / "small.safetensors", *CPU]
    words += ["--data", trained.photographs, "--epochs", "10000"]
    process = start_process(
        [sys.executable, "training/compress.py", *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"ALEXNET_HOME": str(trained.home.root), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    next(line for line in process.stdout if re.match(r"epoch +2/", line))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines() == ["training/compress.py: interrupted"]
    assert not list(tmp_path.iterdir())
