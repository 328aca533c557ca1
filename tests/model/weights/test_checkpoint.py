"""The weights file: all that is needed to use it, whole or not at all, never code."""

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.dataset.folder import ClassName
from model.network.alexnet import AlexNet
from model.network.architectures import VARIANTS
from model.network.config import AlexNetConfig
from model.weights import checkpoint
from model.weights.checkpoint import (
    Pca,
    Weights,
    check_finite,
    load_weights,
    read_tensors,
    save_weights,
)
from model.weights.header import WeightsError, parse_dataclass, read_weights_header

LABELS = {"n01440764": "tench", "b": "B", "c": "C"}


@pytest.fixture(scope="module")
def weights(weights_of: Callable[..., Weights]) -> Weights:
    return weights_of(
        AlexNetConfig(classes=3, side=80, crop=67, init="he", input_scale=60.0, dropout=0.25),
        list(LABELS),
        labels=LABELS,
        mean=torch.rand(3, 80, 80, generator=torch.Generator().manual_seed(3)) * 255,
        pca=Pca(torch.tensor([0.2, 0.02, 0.004]), torch.eye(3)),
        images=30,
        epochs=2,
        preset="small",
        top1_error=0.4,
        top5_error=0.0,
        commit="0123",
    )


@pytest.fixture(scope="module")
def file(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_weights(weights, path)
    return path


def test_everything_comes_back(weights: Weights, file: Path) -> None:
    read = load_weights(file)
    assert (read.config, read.classes, read.provenance) == (
        weights.config,
        weights.classes,
        weights.provenance,
    )
    assert torch.equal(read.mean, weights.mean)
    assert torch.equal(read.pca.eigenvalues, weights.pca.eigenvalues)
    assert read.state.keys() == weights.state.keys()
    assert all(torch.equal(read.state[name], tensor) for name, tensor in weights.state.items())
    x = torch.randn(1, 3, 67, 67)
    original = AlexNet(weights.config)
    original.load_state_dict(dict(weights.state))
    with torch.inference_mode():
        assert torch.equal(read.build_network()(x).logits, original.eval()(x).logits)


def test_the_identity_names_what_answers_depend_on(weights: Weights, file: Path) -> None:
    assert load_weights(file).identity == weights.identity
    later = replace(weights, provenance=replace(weights.provenance, epochs=9))
    assert later.identity == weights.identity
    bias = weights.state["conv1.bias"].clone()
    bias[5] += 1e-6
    for other in (
        replace(weights, state={**weights.state, "conv1.bias": bias}),
        replace(weights, config=replace(weights.config, input_scale=61.0)),
        replace(weights, classes=(*weights.classes[:2], ClassName("c", "D"))),
        replace(weights, mean=weights.mean + 1),
    ):
        assert other.identity != weights.identity


def test_it_is_a_plain_safetensors_file_that_others_can_read(file: Path) -> None:
    header, tensors = read_tensors(file)
    assert json.loads(header["classes"])[0] == ["n01440764", "tench"]
    assert json.loads(header["provenance"])["commit"] == "0123"
    assert load_file(file).keys() == tensors.keys()
    assert tensors["mean_image"].shape == (3, 80, 80)


def test_what_happens_to_a_file_later_changes_nothing_that_was_read(
    weights: Weights, file: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "w.safetensors"
    shutil.copyfile(file, copy)
    read = load_weights(copy)
    size = copy.stat().st_size
    with copy.open("r+b") as content:
        content.write(bytes(size))
        content.truncate(100)
    assert read.identity == weights.identity


def test_a_file_that_changes_while_it_is_read_is_refused(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "w.safetensors"
    shutil.copyfile(file, copy)
    read_tensor, read = checkpoint.read_tensor, []

    def read_then_change(*arguments: Any) -> torch.Tensor:
        read.append(read_tensor(*arguments))
        if len(read) == 3:
            os.truncate(copy, 1000)
        return read[-1]

    monkeypatch.setattr(checkpoint, "read_tensor", read_then_change)
    with pytest.raises(WeightsError, match="changed while it was read"):
        load_weights(copy)
    # The same size with other content, and another time.
    shutil.copyfile(file, copy)
    monkeypatch.setattr(checkpoint, "read_tensor", lambda *a: (os.utime(copy), read_tensor(*a))[1])
    with pytest.raises(WeightsError, match="changed while it was read"):
        load_weights(copy)


def test_a_file_from_before_there_were_variants_is_read(
    weights_of: Callable[..., Weights], tmp_path: Path
) -> None:
    config = AlexNetConfig(classes=3, init="he", input_scale=60.0, dropout=0.25)
    file = tmp_path / "whole"
    save_weights(weights_of(config, list(LABELS), labels=LABELS), file)
    # What AlexNetConfig had when there was the paper's net alone.
    fields = {
        "classes": 3, "lrn_k": 2.0, "lrn_n": 5, "lrn_alpha": 1e-4, "lrn_beta": 0.75,
        "dropout": 0.25, "init": "he", "input_scale": 60.0,
    }  # fmt: skip
    names = {
        f"{layer}.{part}"
        for layer in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
        for part in ("weight", "bias")
    }
    old = change(file, tmp_path / "old", {"config": json.dumps(fields)})
    assert set(read_tensors(old)[1]) == names | {
        "mean_image",
        "pca.eigenvalues",
        "pca.eigenvectors",
    }
    assert load_weights(old).config == load_weights(file).config
    assert load_weights(old).config.net == "paper"
    # The name that such weights had then, which an index of theirs still bears.
    classes = [list(pair) for pair in LABELS.items()]
    told = json.dumps({"config": fields, "classes": classes}, sort_keys=True)
    digest = hashlib.sha256(told.encode())
    for name, tensor in sorted(read_tensors(old)[1].items()):
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    assert load_weights(old).identity == digest.hexdigest()[:32]


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variants_configuration_survives_json(name: str) -> None:
    config = VARIANTS[name].config
    assert parse_dataclass(AlexNetConfig, json.loads(json.dumps(asdict(config)))) == config


@pytest.mark.parametrize("name", ["cifar-lrn-24-tanh", "cifar", "original"])
def test_weights_of_a_variant_come_back(weights: Weights, tmp_path: Path, name: str) -> None:
    config = replace(VARIANTS[name].config, classes=3)
    if name == "original":
        config = replace(config, side=80, crop=67)
    network = AlexNet(config).eval()
    mean = torch.rand(3, config.side, config.side)
    save_weights(
        replace(weights, config=config, mean=mean, state=network.state_dict()), tmp_path / "weights"
    )
    read = load_weights(tmp_path / "weights")
    (tmp_path / "weights").unlink()
    assert (read.config, tuple(read.mean.shape)) == (config, (3, config.side, config.side))
    x = torch.randn(2, 3, config.crop, config.crop)
    with torch.inference_mode():
        assert torch.equal(read.build_network()(x).logits, network(x).logits)


def test_a_mean_image_of_another_side_is_refused(weights: Weights, tmp_path: Path) -> None:
    config = replace(VARIANTS["cifar"].config, classes=3)
    wrong = replace(weights, config=config, state=AlexNet(config).state_dict())
    save_weights(wrong, tmp_path / "weights")
    with pytest.raises(WeightsError, match=r"mean_image has shape \(3, 80, 80\), expected"):
        load_weights(tmp_path / "weights")


def test_files_that_are_none_of_ours_are_refused(tmp_path: Path) -> None:
    for name, data in {
        "empty": b"",
        "text": b"weights",
        "pickle": pickle.dumps({"conv1.weight": 1}),
        "huge header": b"\xff" * 8 + b"{}",
    }.items():
        path = tmp_path / name
        path.write_bytes(data)
        for read in (load_weights, read_weights_header):
            with pytest.raises(WeightsError, match="cannot be read as a safetensors file"):
                read(path)
    save_file({"x": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(WeightsError, match="has format none"):
        load_weights(tmp_path / "other")
    with pytest.raises(WeightsError, match=r"does not exist; `python training/run.py`"):
        load_weights(tmp_path / "missing")


def test_the_header_alone_says_what_the_whole_file_says(file: Path, tmp_path: Path) -> None:
    header, whole = read_weights_header(file), load_weights(file)
    assert (header.config, header.classes, header.provenance, header.identity) == (
        whole.config,
        whole.classes,
        whole.provenance,
        whole.identity,
    )
    save_file({"x": torch.zeros(1)}, tmp_path / "old", metadata=header_without(file, "identity"))
    assert read_weights_header(tmp_path / "old").identity is None
    save_file({"x": torch.zeros(1)}, tmp_path / "no", metadata=header_without(file, "classes"))
    with pytest.raises(WeightsError, match=r"not a weights file of this project: 'classes'"):
        read_weights_header(tmp_path / "no")


def header_without(file: Path, name: str) -> dict[str, str]:
    """A file's header but for one of its parts."""
    return {key: value for key, value in read_tensors(file)[0].items() if key != name}


@pytest.mark.parametrize("name", ["fc6.weight", "mean_image", "pca.eigenvalues"])
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_values_that_are_not_finite_are_named(weights: Weights, name: str, value: float) -> None:
    check_finite(weights)
    state = {key: tensor.clone() for key, tensor in weights.state.items() if key == name}
    mean, eigenvalues = weights.mean.clone(), weights.pca.eigenvalues.clone()
    {**state, "mean_image": mean, "pca.eigenvalues": eigenvalues}[name].view(-1)[-1] = value
    pca = replace(weights.pca, eigenvalues=eigenvalues)
    with pytest.raises(WeightsError, match=name):
        check_finite(replace(weights, state={**weights.state, **state}, mean=mean, pca=pca))


@pytest.mark.parametrize("share", [0.0001, 0.5, 0.999])
def test_a_truncated_file_is_refused(file: Path, tmp_path: Path, share: float) -> None:
    data = file.read_bytes()
    path = tmp_path / "cut"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(WeightsError, match="cut"):
        load_weights(path)


def change(file: Path, to: Path, header: dict[str, str], **tensors: torch.Tensor | None) -> Path:
    """The same file with parts of its header and tensors replaced, or left out where None."""
    old, values = read_tensors(file)
    changed = {k: v for k, v in {**values, **tensors}.items() if v is not None}
    save_file(changed, to, metadata=old | header)
    return to


def test_a_file_that_does_not_fit_itself_is_refused_by_name(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "changed"
    with pytest.raises(WeightsError, match="has format 2"):
        load_weights(change(file, path, {"format": "2"}))
    with pytest.raises(WeightsError, match="unknown fields towers"):
        load_weights(change(file, path, {"config": '{"classes": 3, "towers": 16}'}))
    with pytest.raises(WeightsError, match="2 class names for 3 classes"):
        load_weights(change(file, path, {"classes": '[["a", "A"], ["b", "B"]]'}))
    with pytest.raises(WeightsError, match=r"not a weights file of this project"):
        load_weights(change(file, path, {"provenance": "{"}))
    shape = {"fc8.bias": torch.zeros(5)}
    with pytest.raises(WeightsError, match=r"fc8.bias has shape \(5,\), expected \(3,\)"):
        load_weights(change(file, path, {}, **shape))
    with pytest.raises(WeightsError, match=r"conv3.bias is missing"):
        load_weights(change(file, path, {}, **{"conv3.bias": None}))
    with pytest.raises(WeightsError, match="mean_image"):
        load_weights(change(file, path, {}, mean_image=None))
    with pytest.raises(WeightsError, match="float32"):
        load_weights(change(file, path, {}, **{"fc8.bias": torch.zeros(3, dtype=torch.float64)}))


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_else(
    weights: Weights, tmp_path: Path, limited: None
) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"the weights before")
    with pytest.raises(OSError, match="cannot write"):
        save_weights(weights, path)
    assert path.read_bytes() == b"the weights before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def limited() -> Iterator[None]:
    """No file may grow past a megabyte, as on a full disk."""
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, old)
    signal.signal(signal.SIGXFSZ, handler)
