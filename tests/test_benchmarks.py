"""The benchmark of training and the emulation of bf16 compute what they say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.training import TurnFigures, summarise_turns
from experiments.precision import round_to_bf16

ROOT = Path(__file__).resolve().parents[1]


def test_ratios_are_taken_round_by_round() -> None:
    ours = [TurnFigures(20.0, 0.01, 1.0), TurnFigures(40.0, 0.02, 2.0), TurnFigures(30.0, 0.0, 2.0)]
    theirs = [TurnFigures(10.0, 0, 1), TurnFigures(80.0, 0, 1), TurnFigures(20.0, 0, 1)]
    found = summarise_turns(ours, {"ours": ours, "theirs": theirs})
    assert found["images_per_second"] == 30.0
    assert found["to theirs"] == 1.5  # of 2.0, 0.5 and 1.5
    assert found["to ours"] == 1.0
    assert (found["wait"], found["memory"]) == (0.01, 2.0)


@pytest.mark.slow
def test_every_contender_takes_its_turns(few_photographs: Path, tmp_path: Path) -> None:
    figures_file = tmp_path / "figures.json"
    words = ["--batch", "2", "--steps", "1", "--rounds", "1", "--compile", "off"]
    words += ["--data", str(few_photographs), "--json", str(figures_file)]
    # "torchvision" is "same settings" with fewer of them.
    contenders = ["ours", "two towers", "same settings", "limit"]
    words += ["--only", *contenders]
    done = subprocess.run(
        [sys.executable, "benchmarks/training.py", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(figures_file.read_text())
    assert set(figures) == {*contenders, "processor"}
    for name in contenders:
        assert figures[name]["images_per_second"] > 0
        assert figures[name]["memory"] > 0
        assert name in done.stdout


def test_layers_rounded_by_hand_are_those_of_bf16_autocast() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, groups=1), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5)
    )
    x = torch.randn(4, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        native = network(x)
    exact = network(x)
    native.float().sum().backward()
    gradient = network[0].weight.grad.clone()  # type: ignore[union-attr, operator]
    network.zero_grad()
    round_to_bf16(network)
    rounded = network(x)
    rounded.sum().backward()
    assert rounded.dtype == torch.float32
    # A bf16 number has eight bits: sums in another order may round to the next one.
    torch.testing.assert_close(rounded, native.float(), rtol=2**-7, atol=2**-7)
    torch.testing.assert_close(network[0].weight.grad, gradient, rtol=2**-5, atol=2**-5)
    assert not torch.equal(rounded, exact)
