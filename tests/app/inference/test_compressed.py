"""Compressed weights are indexed, served and listed as the plain file of the same network is."""

import io
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor

from app import create_app
from app.config import Settings
from app.database.session import session_factory
from app.inference.classify import classify_image
from app.inference.loader import ModelLoader
from app.inference.state import Ready
from app.inference.weights_files import find_weights_file
from model.weights.checkpoint import Weights, load_weights, save_weights
from storage.files import switch_link
from storage.home import Home


def keep_two_values(weights: Weights) -> Weights:
    """Make all of a layer's weights zero but the largest, and those equally large."""

    def compress(tensor: Tensor) -> Tensor:
        size = tensor.std()
        return tensor.sign() * size * (tensor.abs() > size)

    state = {k: compress(v) if k.endswith(".weight") else v for k, v in weights.state.items()}
    return replace(weights, state=state)


@pytest.fixture(scope="module")
def weights(settings: Settings) -> Weights:
    return keep_two_values(load_weights(settings.home.weights))


@pytest.fixture(scope="module")
def file(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """They, compressed."""
    file = tmp_path_factory.mktemp("compressed") / "weights.safetensors"
    save_weights(weights, file, compressed=True)
    return file


@pytest.fixture
def home(tmp_path: Path, settings: Settings, file: Path) -> Settings:
    """A home whose weights in use are compressed."""
    home = Home(root=tmp_path / "home")
    place = home.runs / "small" / "weights.safetensors"
    place.parent.mkdir(parents=True)
    shutil.copyfile(file, place)
    switch_link(home.weights, place)
    return replace(settings, home=home)


def state_of(settings: Settings) -> Ready:
    state = ModelLoader(settings, session_factory(settings)).get_state()
    assert isinstance(state, Ready), state
    return state


def test_the_application_takes_them(
    home: Settings, weights: Weights, jpeg: bytes, tmp_path: Path
) -> None:
    app = create_app(home)
    commands = app.test_cli_runner()
    built = commands.invoke(args=["index", "build"])
    assert built.exit_code == 0, built.output
    found = find_weights_file(home.home, "runs/small/weights.safetensors")
    assert found is not None
    assert found.info is not None
    assert (found.selected, found.problem, found.info.identity) == (True, "", weights.identity)
    sent = app.test_client().post("/api/classify", data={"image": (io.BytesIO(jpeg), "cat.jpg")})
    (answer,) = sent.get_json()["answers"]
    assert answer["weights"] == weights.identity
    (tmp_path / "cat.jpg").write_bytes(jpeg)
    classified = commands.invoke(args=["classify", str(tmp_path / "cat.jpg")])
    assert classified.exit_code == 0, classified.output
    sessions = session_factory(home)
    small = classify_image(state_of(home), sessions, jpeg)[0]
    # The plain file of the same network goes with the same index, and answers alike.
    save_weights(weights, home.home.weights.resolve())
    plain = classify_image(state_of(home), sessions, jpeg)[0]
    assert plain.weights == small.weights == weights.identity
    assert plain.top5 == small.top5
    assert plain.neighbours == small.neighbours


def test_a_damaged_file_is_named_like_any(home: Settings) -> None:
    file = home.home.weights.resolve()
    file.write_bytes(file.read_bytes()[:-1000])
    app = create_app(home)
    assert app.test_client().get("/healthz").status_code == 503
    found = find_weights_file(home.home, "runs/small/weights.safetensors")
    assert found is not None
    assert found.info is None
    assert found.problem
