"""Networks defined by the authors' files, from the command line to weights that need no files."""

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from PIL import Image

from model.network.alexnet import AlexNet
from model.predict import Predictor
from model.weights.checkpoint import load_weights
from model.weights.header import read_weights_header
from storage.runs import RunFolder
from training.batches.batches import Batch, Batches
from training.evaluate import main as evaluate
from training.optimisation.sgd import group_parameters
from training.recipe.config import CIFAR, RecipeError
from training.recipe.options import parse_options
from training.recipe.schedule import schedule_epoch

RunTraining = Callable[..., tuple[str, str]]

LAYERS = """
[data]
type=data
dataIdx=0
[labels]
type=data
dataIdx=1
[one]
type=conv
inputs=data
channels=3
filters=4
filterSize=5
stride=2
padding=1
neuron=relu
initW=0.05
[shrink]
type=pool
pool=avg
inputs=one
channels=4
sizeX=3
stride=2
[even]
type=rnorm
inputs=shrink
channels=4
size=3
[two]
type=local
inputs=even
channels=4
filters=6
filterSize=3
neuron=relu
initW=0.05
[out]
type=fc
inputs=two
outputs=10
[probs]
type=softmax
inputs=out
[logprob]
type=cost.logreg
inputs=labels,probs
"""
PARAMETERS = """
[one]
epsW=0.0001
epsB=0.002
momW=0.9
momB=0.9
wc=0
[two]
epsW=0.001
epsB=0.004
momW=0.5
momB=0.25
wc=0.004
[out]
epsW=0.001
epsB=0.002
momW=0.9
momB=0.9
wc=0.01
[even]
scale=0.9
pow=0.5
[logprob]
coeff=1
"""
SIZES = ("--crop", "24", "--side", "32")


@pytest.fixture
def layers(tmp_path: Path) -> Path:
    folder = tmp_path / "definition"
    folder.mkdir()
    (folder / "layer-params-tiny.cfg").write_text(PARAMETERS)
    path = folder / "layers-tiny.cfg"
    path.write_text(LAYERS)
    return path


def test_each_layer_learns_as_its_parameters_say(layers: Path) -> None:
    options = parse_options(["--layers", str(layers), *SIZES])
    recipe = options.recipe
    with torch.device("meta"):
        network = AlexNet(recipe.network(10))
    named = {id(p): name for name, p in network.named_parameters()}
    rates = schedule_epoch([], recipe).rates
    found = {
        named[id(p)]: (rates[group.name], group.momentum or recipe.momentum, group.decay)
        for group in group_parameters(network, recipe)
        for p in group.parameters
    }
    expected = {
        "conv1.weight": (0.0001, 0.9, 0), "conv1.bias": (0.002, 0.9, 0),
        "local2.weight": (0.001, 0.5, 0.004), "local2.bias": (0.004, 0.25, 0),
        "fc3.weight": (0.001, 0.9, 0.01), "fc3.bias": (0.002, 0.9, 0),
    }  # fmt: skip
    assert set(found) == set(expected)
    for name, numbers in expected.items():
        assert found[name] == pytest.approx(numbers), name
    # What the files do not say is the preset's, for small images that of CIFAR-10's networks.
    assert (options.preset, recipe.epochs, recipe.drop_after) == ("cifar", 520, (500, 510))
    large = parse_options(["--layers", str(layers), "--epochs", "7"])
    assert (large.preset, large.recipe.epochs, large.recipe.colour_noise) == ("paper", 7, 0.1)
    assert large.recipe.network(5).side == 256


def test_the_command_line_overrides_the_files(layers: Path) -> None:
    words = ["--layers", str(layers), *SIZES, "--rate", "0.5", "--preset", "figure-1"]
    options = parse_options(words)
    assert (options.preset, options.recipe.rate, options.recipe.mirrors) == ("figure-1", 0.5, False)


def test_the_recipe_of_the_13_percent_net_is_that_by_name(tmp_path: Path) -> None:
    """ORIGINAL.md's rates and weight decays in a file, against the preset `cifar`."""
    common = "epsW=0.001\nepsB=0.002\nmomW=0.9\nmomB=0.9\n"
    conv = "type=conv\npadding=2\nfilterSize=5\nfilters=64\nneuron=relu\n"
    pool = "type=pool\npool=max\nsizeX=3\nstride=2\nchannels=64\n"
    local = "type=local\npadding=1\nfilterSize=3\nfilters=32\nneuron=relu\ninitW=0.04\n"
    head, tail = LAYERS.split("[one]")[0], LAYERS[LAYERS.index("[probs]") :]
    layers = tmp_path / "layers-13.cfg"
    layers.write_text(
        f"{head}[a]\n{conv}inputs=data\nchannels=3\ninitW=0.0001\n[pa]\n{pool}inputs=a\n"
        f"[b]\n{conv}inputs=pa\nchannels=64\n[pb]\n{pool}inputs=b\n"
        f"[c]\n{local}inputs=pb\nchannels=64\n[d]\n{local}inputs=c\nchannels=32\n"
        f"[out]\ntype=fc\ninputs=d\noutputs=10\n{tail}"
    )
    decays = {"a": 0, "b": 0, "c": 0.004, "d": 0.004, "out": 0.004}
    parameters = "".join(f"[{name}]\n{common}wc={decay}\n" for name, decay in decays.items())
    (tmp_path / "params.cfg").write_text(parameters)
    words = ["--layers", str(layers), "--layer-params", str(tmp_path / "params.cfg"), *SIZES]
    found = []
    for recipe in (parse_options(words).recipe, CIFAR):
        with torch.device("meta"):
            network = AlexNet(recipe.network(10))
        groups = group_parameters(network, recipe)
        by_parameter = {id(p): group for group in groups for p in group.parameters}
        for done in (0, 505, 515):
            rates = schedule_epoch([0.5] * done, recipe).rates
            found.append(
                [
                    (rates[by_parameter[id(p)].name], by_parameter[id(p)].decay)
                    for p in network.parameters()
                ]
            )
    assert found[:3] == [[pytest.approx(pair) for pair in pairs] for pairs in found[3:]]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--side", "32"], "--side needs --layers"),
        (["--crop", "32"], "--crop needs --layers"),
        (["--layer-params", "x.cfg"], "--layer-params needs --layers"),
        (["--layers", "x.cfg", "--resume", "run"], "--resume keeps the run's network"),
        (["--layers", "{layers}", *SIZES, "--variant", "tanh"], "name two networks"),
        (["--layers", "{layers}", "--crop", "40", "--side", "32"], "--side cannot be 32"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    words: list[str], reason: str, layers: Path
) -> None:
    with pytest.raises(RecipeError, match=reason):
        parse_options([word.format(layers=layers) for word in words])


def test_errors_of_a_file_are_one_line(run_training: RunTraining, layers: Path) -> None:
    layers.write_text(LAYERS.replace("type=local", "type=eltsum"))
    _, errors = run_training(layers.parent, "--layers", layers, *SIZES, code=2)
    (line,) = errors.splitlines()
    number = layers.read_text().splitlines().index("type=eltsum") + 1
    assert f"{layers}, line {number}: [two] is of the type eltsum" in line
    layers.with_name("layer-params-tiny.cfg").unlink()
    _, errors = run_training(layers.parent, "--layers", layers, *SIZES, code=2)
    assert "name it with --layer-params" in errors


def test_a_run_and_its_weights_need_no_files_any_more(
    run_training: RunTraining,
    photographs: Path,
    layers: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home = tmp_path / "home"
    words = ("--layers", layers, *SIZES, "--batch", "5", "--epochs", "2", "--compile", "off")
    printed, _ = run_training(home, *words)
    assert "Preset cifar: as named" in printed
    assert "Nine crops" in printed
    (folder,) = (home / "runs").iterdir()
    shutil.rmtree(layers.parent)
    whole = load_weights(folder / "weights.safetensors")
    assert (whole.config.net, whole.config.classes, whole.config.crop) == ("defined", 3, 24)
    header = read_weights_header(folder / "weights.safetensors")
    assert header.config == whole.config
    assert [layer.name for layer in header.config.layers] == [
        # 24 + 2 pixels hold 11 windows of 5 and most of a twelfth.
        "border", "conv1", "relu1", "pool1", "mapnorm1", "local2", "relu2", "flatten", "fc3",
    ]  # fmt: skip
    image = Image.open(next((photographs / "val").glob("*/0.jpg")))
    predictor = Predictor.from_weights(whole, "cpu")
    one = predictor.predict(predictor.make_square(image))
    assert one.probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert one.crop_probabilities.shape == (9, 3)
    monkeypatch.setenv("ALEXNET_HOME", str(home))
    command = ["training/evaluate.py", "--data", str(photographs), "--json", str(tmp_path / "x")]
    monkeypatch.setattr("sys.argv", command)
    assert evaluate() == 0
    results = json.loads((tmp_path / "x").read_text())["results"]
    assert len(results) == 2
    capsys.readouterr()


def test_a_run_is_resumed_without_the_files(
    run_training: RunTraining, layers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--layers", layers, *SIZES, "--batch", "5", "--epochs", "2", "--compile", "off")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    run_training(whole, *words)
    # The signal comes while the second epoch's batches are made.
    usual, sent = Batches.__iter__, list[int]()

    def iterate(batches: Batches) -> Iterator[Batch]:
        if batches.epoch == 2:
            sent.append(signal.SIGTERM)
        return usual(batches)

    stop = "training.train.catch_stop_signals"
    monkeypatch.setattr(stop, lambda: nullcontext(lambda: sent[0] if sent else 0))
    monkeypatch.setattr(Batches, "__iter__", iterate)
    run_training(stopped, *words, code=128 + signal.SIGTERM)
    monkeypatch.undo()
    shutil.rmtree(layers.parent)
    (folder,) = (stopped / "runs").iterdir()
    assert RunFolder(folder).read_description()["finished"] is False
    printed, _ = run_training(stopped, "--resume", folder)
    assert "Resuming" in printed
    ends = [load_weights(home / "weights.safetensors").identity for home in (whole, stopped)]
    assert ends[0] == ends[1]
