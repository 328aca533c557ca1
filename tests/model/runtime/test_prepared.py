"""A network prepared in a process of its own answers as before, without torch."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch

from model.attribution.explain import isolate_tower, trace_forward_pass
from model.attribution.gradients import compute_gradient
from model.network.config import AlexNetConfig
from model.predict import Predictor
from model.runtime import graph_file, openvino_runtime, prepared
from model.runtime.agreement import make_test_images
from model.runtime.prepare import main
from model.runtime.prepared import open_predictor
from model.visualization.activations import trace_activations
from model.weights.checkpoint import Weights, load_weights, save_weights
from model.weights.header import WeightsError

pytest.importorskip("openvino", reason="OpenVINO is not installed")
SMALL = AlexNetConfig(classes=3, init="he", input_scale=60, side=104, crop=72)
WISH = "openvino-f32"
ANSWER = """
import sys
from pathlib import Path
import numpy as np
from model.visualization.activations import trace_activations
from model.attribution.explain import isolate_tower, trace_forward_pass
from model.attribution.gradients import compute_gradient
from model.runtime.prepared import open_predictor

def load(file):
    raise AssertionError("torch is needed")

file, folder, images, out = map(Path, sys.argv[1:])
predictor = open_predictor(file, "cpu", "openvino-f32", folder, load)
pixels = np.load(images)
features = predictor.extract_features(pixels)
probabilities = predictor.predict_probabilities(pixels)
conv5 = trace_activations(predictor, pixels[0]).layers[4].towers[1]
forward = trace_forward_pass(predictor, pixels[0], isolate_tower(predictor.config, 2))
gradient = compute_gradient(forward, 1)
np.savez(
    out,
    probabilities=probabilities,
    features=features,
    conv1=predictor.conv1,
    conv5=conv5,
    gradient=gradient,
)
print(sorted({"torch", "faiss", "flask"} & set(sys.modules)))
"""


@pytest.fixture(scope="module")
def weights(weights_of: Callable[..., Weights]) -> Weights:
    return weights_of(SMALL)


@pytest.fixture
def file(weights: Weights, tmp_path: Path) -> Path:
    save_weights(weights, tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runtimes"


def refuse(file: Path) -> NoReturn:
    raise AssertionError("the network is read with torch")


def open_prepared(file: Path, folder: Path) -> Predictor:
    return open_predictor(file, "cpu", WISH, folder, refuse)


def open_any(file: Path, folder: Path) -> Predictor:
    return open_predictor(file, "cpu", WISH, folder, load_weights)


def test_a_process_that_answers_imports_no_torch(
    file: Path, folder: Path, weights: Weights, tmp_path: Path
) -> None:
    images, out = tmp_path / "images.npy", tmp_path / "answers.npz"
    pixels = make_test_images(SMALL.side, 2)
    np.save(images, pixels)
    words = [sys.executable, "-c", ANSWER, *map(str, (file, folder, images, out))]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
    truth = Predictor.from_weights(weights, "cpu")
    found = np.load(out)
    np.testing.assert_array_equal(found["conv1"], truth.conv1)
    np.testing.assert_allclose(
        found["probabilities"], truth.predict_probabilities(pixels), atol=1e-5
    )
    np.testing.assert_allclose(found["features"], truth.extract_features(pixels), atol=1e-3)
    conv5 = trace_activations(truth, pixels[0]).layers[4].towers[1]
    np.testing.assert_allclose(found["conv5"], conv5, atol=1e-3)
    forward = trace_forward_pass(truth, pixels[0], isolate_tower(SMALL, 2))
    gradient = compute_gradient(forward, 1)
    assert gradient.any()
    np.testing.assert_allclose(found["gradient"], gradient, atol=1e-3 * np.abs(gradient).max())


def test_what_was_prepared_is_opened_again_and_gives_the_network_when_asked(
    file: Path, folder: Path, weights: Weights
) -> None:
    assert main([str(file), "cpu", WISH, str(folder)]) is None
    predictor = open_predictor(file, "cpu", WISH, folder, load_weights)
    assert predictor.known is None
    assert (predictor.identity, predictor.provenance) == (weights.identity, weights.provenance)
    assert torch.equal(predictor.network.conv1.weight, weights.state["conv1.weight"])  # type: ignore[arg-type]
    assert open_prepared(file, folder).choice == predictor.choice


@pytest.mark.parametrize("damage", ["graph", "record", "other weights"])
def test_damage_is_prepared_or_read_anew(
    file: Path,
    folder: Path,
    damage: str,
    weights_of: Callable[..., Weights],
    weights: Weights,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert main([str(file), "cpu", WISH, str(folder)]) is None
    (record,) = folder.glob("*-cpu-openvino-f32.json")
    runs: list[Path] = []
    monkeypatch.setattr(prepared, "prepare_weights", lambda file, *_: runs.append(file))
    identity = weights.identity
    match damage:
        case "graph":
            graph = folder / f"{identity}.bin"
            content = bytearray(graph.read_bytes())
            content[len(content) // 2] ^= 1
            graph.write_bytes(content)
        case "record":
            record.write_text(record.read_text()[:100])
        case "other weights":
            other = weights_of(SMALL, seed=1)
            save_weights(other, file)
            identity = other.identity
    predictor = open_any(file, folder)
    assert predictor.known is None
    assert predictor.identity == identity
    assert predictor.loaded.weights.identity == identity
    assert runs == ([] if damage == "graph" else [file])


def test_a_file_that_changed_since_gives_no_other_network(
    file: Path, folder: Path, weights_of: Callable[..., Weights]
) -> None:
    assert main([str(file), "cpu", WISH, str(folder)]) is None
    predictor = open_any(file, folder)
    save_weights(weights_of(SMALL, seed=1), file)
    with pytest.raises(WeightsError, match="no longer holds"):
        _ = predictor.network


def test_what_cannot_be_prepared_is_said_and_read_with_torch(
    file: Path, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        assert open_any(file, folder).runtime.name == WISH
    assert "cannot be prepared" in caplog.text
    folder.unlink()
    whole = file.read_bytes()
    file.write_bytes(whole[:-1000])
    with pytest.raises(WeightsError):
        open_any(file, folder)
    assert "could not be prepared" in caplog.text
    with pytest.raises(WeightsError, match="cannot be read"):
        open_any(file.with_name("gone"), folder)


def test_where_torch_is_the_fastest_no_graph_is_stored(
    file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.runtime.protocol.MAX_FEATURE_ERROR", 1e-12)
    assert main([str(file), "cpu", "auto", str(folder)]) is None
    assert not list(folder.glob("*.bin"))
    monkeypatch.setattr(prepared, "prepare_weights", None)  # it is known and not tried again
    predictor = open_predictor(file, "cpu", "auto", folder, load_weights)
    assert predictor.runtime.name == "torch"
    assert "OpenVINO was refused" in predictor.choice.reason


def test_without_torch_what_another_machine_prepared_is_taken(
    file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared, "is_torch_installed", lambda: False)
    with pytest.raises(WeightsError, match="not prepared"):
        open_prepared(file, folder)
    with monkeypatch.context() as patch:
        patch.setattr(prepared, "describe_machine", lambda: {"processor": "another"})
        assert main([str(file), "cpu", WISH, str(folder)]) is None
    (record,) = folder.glob("*-cpu-openvino-f32.json")
    assert open_prepared(file, folder).runtime.name == WISH
    # Whether this processor has bf16 or not, there is an answer.
    stored = json.loads(record.read_text())
    stored["choice"]["name"] = "openvino-bf16"
    record.write_text(json.dumps(stored))
    monkeypatch.setattr(openvino_runtime.OpenVinoRuntime, "has_bf16", lambda _: False)
    predictor = open_prepared(file, folder)
    assert predictor.runtime.name == predictor.choice.name == WISH
    assert "bf16" in predictor.choice.reason


def test_graphs_of_weights_no_longer_used_are_deleted(folder: Path) -> None:
    folder.mkdir()
    for name in ("first", "second", "third"):
        for suffix in graph_file.SUFFIXES:
            (folder / f"{name}{suffix}").touch()
        graph_file.delete_old_graphs(folder / f"{name}.xml")
    assert {path.name for path in folder.iterdir()} == {
        "second.bin", "second.xml", "third.bin", "third.xml"
    }  # fmt: skip
