"""The engine answers with weights and index that belong together, and keeps up with them."""

import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.config import Settings
from app.database.images import find_image
from app.database.session import DatabaseError, session_factory
from app.decoding.child import DecodeRequest
from app.indexing import build as indexing
from app.inference import loader as engine_module
from app.inference.classify import Classification, classify_image
from app.inference.loader import ModelLoader
from app.inference.served_weights import load_servable
from app.inference.state import LabelsOnly, NotReady, NotReadyError, Ready
from index import store
from index.manifest import MANIFEST_FILE, write_manifest
from index.sample import SAMPLE_FILE as SAMPLE
from model.image.decode import ImageError
from model.image.preprocess import decode_square
from model.network.alexnet import AlexNet
from model.network.config import AlexNetConfig
from model.predict import Predictor
from model.weights import checkpoint
from storage.files import switch_link
from storage.home import Home


@pytest.fixture(scope="module")
def settings(narrow_settings: Settings) -> Settings:
    """A home of narrow weights, which are read and written here again and again."""
    return narrow_settings


def no_steps(name: str, total: int) -> Callable[[int], None]:
    return lambda done: None


def loader_of(settings: Settings) -> ModelLoader:
    return ModelLoader(settings, session_factory(settings))


def classify(loader: ModelLoader, data: bytes, **options: Any) -> Classification:
    return classify_image(loader.require_ready(), loader.sessions, data, **options)[0]


def build(settings: Settings) -> str:
    return indexing.build_index(settings, session_factory(settings), no_steps).manifest.name


def not_ready(loader: ModelLoader) -> NotReady:
    """Why there is no network."""
    with pytest.raises(NotReadyError) as error:
        loader.require_predictor()
    return error.value.state


def train_anew(home: Home, shift: float) -> str:
    """Make other weights the ones in use, as a training run does; give their identity."""
    old = checkpoint.load_weights(home.weights)
    new = replace(old, mean=old.mean + shift)
    file = home.runs / f"run{shift}" / "weights.safetensors"
    checkpoint.save_weights(new, file)
    switch_link(home.weights, file)
    return new.identity


def wait_for(engine: ModelLoader, good: Callable[[Ready], bool]) -> Ready:
    """The state when it is as expected; it is read aside while the old one serves."""
    for _ in range(600):
        state = engine.get_state()
        assert not isinstance(state, NotReady)
        if isinstance(state, Ready) and good(state):
            return state
        time.sleep(0.05)
    raise AssertionError(state)


def settle(engine: ModelLoader) -> None:
    """Wait until what is being read aside has been read."""
    engine.get_state()
    with engine.lock:
        pass


@contextmanager
def counted_loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Note each time a weights file is read."""
    paths: list[Path] = []

    def load(path: Path) -> checkpoint.Weights:
        paths.append(path)
        return load_servable(path)

    monkeypatch.setattr(engine_module, "load_servable", load)
    yield paths


@pytest.fixture
def home(tmp_path: Path, settings: Settings, copy_home) -> Settings:
    """A copy of the home with weights and index that may be changed."""
    return replace(settings, home=copy_home(settings.home, tmp_path / "home"))


@pytest.fixture
def new_home(tmp_path: Path, settings: Settings) -> Settings:
    """A home with weights alone."""
    home = Home(root=tmp_path / "home")
    switch_link(home.weights, settings.home.weights.resolve())
    return replace(settings, home=home)


@pytest.fixture(scope="module")
def engine(settings: Settings) -> ModelLoader:
    return loader_of(settings)


def test_an_upload_is_answered(engine: ModelLoader, jpeg: bytes, settings: Settings) -> None:
    answer = classify(engine, jpeg)
    state = engine.get_state()
    assert isinstance(state, Ready)
    look = state.predictor.predict(decode_square(jpeg))
    assert answer.top5 == state.predictor.top5(look.probabilities)
    assert len(answer.crops) == 10
    assert (answer.width, answer.height) == (300, 200)
    assert list(answer.milliseconds) == ["decode", "network", "search", "pixels"]
    assert answer.weights == state.predictor.identity == state.manifest.weights
    assert answer.version.name == store.read_current_version(settings.home.index)
    features = state.index.vectors.take(np.arange(len(state.index))).astype(np.float64)
    expected = np.sort(np.sqrt(((features - look.fc7) ** 2).sum(1)))[:6]
    assert [n.distance for n in answer.neighbours] == pytest.approx(expected.tolist())
    assert all(neighbour.label for neighbour in answer.neighbours)


def test_a_training_image_is_not_its_own_neighbour(engine: ModelLoader) -> None:
    state = engine.get_state()
    assert isinstance(state, Ready)
    image = int(state.index.id_map.ids[4])
    found = find_image(engine.sessions, image)
    assert found
    answer = classify(engine, found.file.read_bytes(), without=image)
    assert len(answer.neighbours) == 6
    assert image not in [neighbour.id for neighbour in answer.neighbours]


def test_what_cannot_be_answered_is_told(engine: ModelLoader, home: Settings) -> None:
    with pytest.raises(ImageError):
        classify(engine, b"no image")
    with pytest.raises(ImageError, match="pixels"):
        classify(engine, b"\x89PNG\r\n\x1a\n" + PNG_2X2, request=DecodeRequest(max_pixels=0))


PNG_2X2 = bytes.fromhex(
    "0000000d49484452000000020000000208020000"
    "00fdd49a730000000c49444154789c6360c00d0000000e000125a7ec9a0000000049454e44ae426082"
)


def test_many_threads_get_the_same_answer(settings: Settings, jpeg: bytes) -> None:
    engine = loader_of(settings)
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(classify(engine, jpeg))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 6
    assert all(answer.neighbours == answers[0].neighbours for answer in answers)
    assert all(answer.top5 == answers[0].top5 for answer in answers)


def test_first_calls_at_once_read_the_weights_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = loader_of(settings)
    with counted_loads(monkeypatch) as loads:
        threads = [threading.Thread(target=engine.get_state) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        engine.get_state()
    assert len(loads) == 1


def test_nothing_there_yet(tmp_path: Path, settings: Settings) -> None:
    empty = loader_of(replace(settings, home=Home(root=tmp_path / "none")))
    state = empty.get_state()
    assert isinstance(state, NotReady)
    assert (state.reason, state.command) == ("no-weights", "python training/run.py")
    with pytest.raises(NotReadyError, match=r"python training/run\.py"):
        classify(empty, b"")
    assert not (tmp_path / "none").exists()


def test_it_follows_from_weights_to_index_without_a_restart(new_home: Settings) -> None:
    engine = loader_of(new_home)
    state = engine.get_state()
    assert isinstance(state, LabelsOnly)
    assert (state.missing.reason, state.missing.command) == ("no-index", "flask index build")
    name = build(new_home)
    assert wait_for(engine, lambda state: state.manifest.name == name).predictor is state.predictor


def test_before_any_index_the_newest_weights_give_labels(new_home: Settings, jpeg: bytes) -> None:
    engine = loader_of(new_home)
    answer = classify_image(engine.require_serving(), engine.sessions, jpeg)[0]
    assert len(answer.top5) == 5
    assert len(answer.crops) == 10
    assert (answer.neighbours, answer.by_pixels, answer.version) == ([], [], None)
    assert list(answer.milliseconds) == ["decode", "network"]
    with pytest.raises(NotReadyError, match="not indexed"):
        engine.require_ready()
    identity = train_anew(new_home.home, 1.0)
    settle(engine)
    assert engine.require_serving().predictor.identity == identity


def test_a_server_that_starts_after_a_run_serves_the_pair_of_before(home: Settings) -> None:
    old = checkpoint.load_weights(home.home.weights).identity
    identity = train_anew(home.home, 1.0)
    state = loader_of(home).get_state()
    assert isinstance(state, Ready)
    assert state.predictor.identity == state.manifest.weights == old != identity


def test_the_network_is_given_without_an_index(
    new_home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = loader_of(new_home)
    with counted_loads(monkeypatch) as loads:
        first, again = engine.require_predictor(), engine.require_predictor()
        assert isinstance(first, Predictor)
        assert first is again
        assert len(loads) == 1
        identity = train_anew(new_home.home, 1.0)
        settle(engine)
        other = engine.require_predictor()
        assert isinstance(other, Predictor)
        assert other.identity == identity
    build(new_home)
    state = wait_for(engine, lambda _: True)
    assert state.predictor is engine.require_predictor() is other


def test_the_network_is_given_beside_a_damaged_index(home: Settings) -> None:
    (home.home.index / "current" / "ids.npy").write_bytes(b"damaged")
    train_anew(home.home, 1.0)
    engine = loader_of(home)
    assert isinstance(engine.get_state(), NotReady)
    manifest = store.read_manifest(home.home.index / "current")
    assert engine.require_predictor().identity == manifest.weights


def test_without_usable_weights_no_network_is_given(home: Settings) -> None:
    home.home.weights.resolve().write_bytes(b"damaged")
    engine = loader_of(home)
    found = not_ready(engine)
    assert (found.reason, found.command) == ("damaged", "python training/run.py")
    home.home.weights.resolve().unlink()
    found = not_ready(engine)
    assert (found.reason, found.command) == ("mismatch", "python training/run.py")
    shutil.rmtree(home.home.index)
    home.home.weights.unlink()
    assert not_ready(engine).reason == "no-weights"


def train_for_cifar(home: Home, config: AlexNetConfig) -> None:
    """Make weights of a net for CIFAR-10 the ones in use."""
    old = checkpoint.load_weights(home.weights)
    classes, side = old.classes[: config.classes], config.side
    mean = old.mean[:, :side, :side].contiguous()
    new = replace(old, config=config, classes=classes, mean=mean)
    file = home.runs / "cifar" / "weights.safetensors"
    checkpoint.save_weights(replace(new, state=AlexNet(config).state_dict()), file)
    switch_link(home.weights, file)


@pytest.mark.parametrize(
    ("side", "crop", "features"), [(32, 32, 2048), (32, 24, 1152), (256, 44, 3872)]
)
def test_weights_for_other_pictures_are_told(
    new_home: Settings, side: int, crop: int, features: int
) -> None:
    told = rf"\bcifar\b.*\b{side}×{side}\b.*\b{features}\b"
    train_for_cifar(new_home.home, AlexNetConfig(net="cifar", classes=5, side=side, crop=crop))
    engine = loader_of(new_home)
    found = not_ready(engine)
    assert (found.reason, found.command) == ("damaged", "python training/run.py")
    assert re.search(told, found.message)
    assert isinstance(engine.get_state(), NotReady)
    with pytest.raises(NotReadyError, match=told):
        classify(engine, b"")
    with pytest.raises(checkpoint.WeightsError, match=told):
        build(new_home)
    assert not new_home.home.index.exists()


def test_weights_for_other_pictures_leave_the_pair_in_service(home: Settings, jpeg: bytes) -> None:
    engine = loader_of(home)
    old = engine.get_state()
    train_for_cifar(home.home, AlexNetConfig(net="cifar", classes=5, side=32, crop=32))
    settle(engine)
    assert engine.get_state() is old
    assert classify(engine, jpeg).weights == old.predictor.identity  # type: ignore[union-attr]


def test_the_pair_in_service_stays_until_the_new_index_is_published(home: Settings) -> None:
    engine = loader_of(home)
    old = engine.get_state()
    assert isinstance(old, Ready)
    identity = train_anew(home.home, 1.0)
    settle(engine)
    assert engine.get_state() is old
    name = build(home)
    new = wait_for(engine, lambda state: state is not old)
    assert (new.predictor.identity, new.manifest.name) == (identity, name)


def test_a_new_index_of_the_same_weights_is_taken(
    home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = loader_of(home)
    old = engine.get_state()
    assert isinstance(old, Ready)
    with counted_loads(monkeypatch) as loads:
        name = build(home)
        new = wait_for(engine, lambda state: state.manifest.name == name)
    assert new.predictor is old.predictor
    assert loads == []


def test_nobody_waits_while_the_next_pair_is_read(
    home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = loader_of(home)
    old = engine.get_state()
    train_anew(home.home, 1.0)
    name = build(home)
    go_on = threading.Event()

    def slow(path: Path) -> checkpoint.Weights:
        assert go_on.wait(30)
        return load_servable(path)

    monkeypatch.setattr(engine_module, "load_servable", slow)
    assert [engine.get_state() is old for _ in range(5)] == [True] * 5
    go_on.set()
    wait_for(engine, lambda state: state.manifest.name == name)


def test_an_index_of_before_samples_is_served_without(home: Settings, jpeg: bytes) -> None:
    ready = loader_of(home).get_state()
    assert isinstance(ready, Ready)
    assert ready.sample is not None
    assert ready.sample.whole
    np.testing.assert_array_equal(ready.sample.ids, np.sort(ready.index.id_map.ids))
    version = home.home.index / ready.version.name
    (version / SAMPLE).unlink()
    files = {name: seal for name, seal in ready.manifest.files.items() if name != SAMPLE}
    write_manifest(replace(ready.manifest, files=files), version)
    engine = loader_of(home)
    older = engine.get_state()
    assert isinstance(older, Ready)
    assert older.sample is None
    assert len(classify(engine, jpeg).neighbours) == 6


@pytest.mark.parametrize("file", ["ids.npy", "files.npz", SAMPLE, MANIFEST_FILE, None])
def test_a_damaged_index_is_told_and_not_read_again(
    home: Settings, monkeypatch: pytest.MonkeyPatch, file: str | None
) -> None:
    version = home.home.index / "current"
    damaged = version / (file or store.read_manifest(version).shards[0].file)
    damaged.write_bytes(damaged.read_bytes()[:100])
    engine = loader_of(home)
    with counted_loads(monkeypatch) as loads:
        states = [engine.get_state() for _ in range(3)]
    assert isinstance(states[0], NotReady)
    assert (states[0].reason, states[0].command) == ("damaged", "flask index build")
    assert states[1] is states[2] is states[0]
    assert len(loads) <= 1
    build(home)
    assert isinstance(engine.get_state(), Ready)


def test_damaged_weights_are_told_and_not_read_again(home: Settings) -> None:
    file = home.home.weights.resolve()
    whole = file.read_bytes()
    file.write_bytes(whole[:1000])
    engine = loader_of(home)
    states = [engine.get_state() for _ in range(3)]
    assert isinstance(states[0], NotReady)
    assert (states[0].reason, states[0].command) == ("damaged", "python training/run.py")
    assert states[1] is states[2] is states[0]
    file.write_bytes(whole)
    assert isinstance(engine.get_state(), Ready)


def test_damage_and_loss_leave_the_pair_in_service(home: Settings, jpeg: bytes) -> None:
    engine = loader_of(home)
    old = engine.get_state()
    before = classify(engine, jpeg)
    shutil.rmtree(home.home.index)
    home.home.weights.unlink()
    settle(engine)
    assert engine.get_state() is old
    assert classify(engine, jpeg).neighbours == before.neighbours


def test_another_database_is_told(home: Settings) -> None:
    home.home.database.unlink()
    engine = loader_of(home)
    state = engine.get_state()
    assert isinstance(state, NotReady)
    assert (state.reason, state.command) == ("database", "flask db upgrade")
    build(home)
    assert isinstance(engine.get_state(), Ready)


def test_a_database_that_comes_back_is_noticed(home: Settings) -> None:
    aside = home.home.root / "aside"
    aside.mkdir()
    for file in home.home.root.glob("app.sqlite3*"):
        file.rename(aside / file.name)
    engine = loader_of(home)
    state = engine.get_state()
    assert isinstance(state, NotReady)
    assert state.reason == "database"
    for file in home.home.root.glob("app.sqlite3*"):
        file.unlink()
    engine.sessions.kw["bind"].dispose()
    for file in aside.iterdir():
        file.rename(home.home.root / file.name)
    assert isinstance(engine.get_state(), Ready)


def test_a_database_that_fails_while_answering_is_told(home: Settings, jpeg: bytes) -> None:
    engine = loader_of(home)
    assert isinstance(engine.get_state(), Ready)
    engine.sessions.kw["bind"].dispose()
    home.home.database.write_bytes(b"nothing" * 1000)
    with pytest.raises(DatabaseError):
        classify(engine, jpeg)
