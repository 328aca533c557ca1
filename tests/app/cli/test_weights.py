"""`flask weights import` and `export`, and others' weights over anybody's photographs."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from flask.testing import FlaskClient

from app import create_app
from app.config import Settings
from app.database.session import session_factory
from app.inference.loader import ModelLoader
from app.inference.state import Ready
from index import store
from model import load
from model.formats import deep_compression
from model.formats.exporting import write_state_dict
from model.image.preprocess import read_square
from model.network.architectures import VARIANTS
from model.weights.checkpoint import Weights, load_weights
from model.weights.header import read_weights_header
from tests.published_files import SHAPES, write_deep_compression

LABELS = {"ant": "an ant", "bee": "a bee", "cow": "a cow", "dog": "a dog", "eel": "an eel"}
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def published(weights_of: Callable[..., Weights], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network that sees photographs as Caffe's do, as a state dict that describes it."""
    config = replace(
        VARIANTS["caffenet"].config,
        classes=len(LABELS),
        crop=67,
        init="he",
        resize="warp",
        input_scale=60.0,
    )
    path = tmp_path_factory.mktemp("published") / "theirs.safetensors"
    write_state_dict(weights_of(config, list(LABELS), labels=LABELS, seed=5), path)
    return path


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory, photographs: Path) -> Path:
    """Photographs as people have them: in folders in folders, without classes."""
    root = tmp_path_factory.mktemp("album")
    for number, name in enumerate(("astronaut", "brick", "coffee", "rocket")):
        folder = root / ("" if number == 0 else f"2011/{name}")
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted((photographs / "train" / name).iterdir())[:4]:
            shutil.copy(file, folder / f"{name}-{file.name}")
    return root


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    root = tmp_path_factory.mktemp("home")
    return Settings.from_environment(
        {"ALEXNET_HOME": str(root), "ALEXNET_DEVICE": "cpu", "ALEXNET_RUNTIME": "torch"}
    )


def run(settings: Settings, *words: str | Path) -> Result:
    """Run a command of `flask`."""
    app = create_app(settings)
    done = app.test_cli_runner().invoke(args=[str(word) for word in words])
    app.extensions["sessions"].kw["bind"].dispose()
    return done


def right(settings: Settings, *words: str | Path) -> str:
    """Run it; it ends well. Gives what it said."""
    done = run(settings, *words)
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(settings: Settings, *words: str | Path) -> str:
    """Run it; it ends with exit code 2, and one line on the error stream, which it gives."""
    done = run(settings, *words)
    assert done.exit_code == 2, done.output
    assert not done.stdout
    (line,) = [line for line in done.stderr.strip().splitlines() if "━" not in line]
    return line


@pytest.fixture(scope="module")
def served(home: Settings, published: Path, album: Path) -> Ready:
    """The imported network with an index over the album."""
    said = right(home, "weights", "import", published, "--mean", "123,117,104")
    assert "trained on  unknown" in said
    assert "--data DIR" in refused(home, "index", "build")
    right(home, "index", "build", "--data", album)
    state = ModelLoader(home, session_factory(home)).get_state()
    assert isinstance(state, Ready)
    return state


def test_imported_weights_serve_anybodys_photographs(
    home: Settings, served: Ready, published: Path, album: Path
) -> None:
    assert home.home.weights.resolve() == home.home.imported / "theirs.safetensors"
    assert served.manifest.images == 16
    assert Path(served.manifest.data) == album
    predictor = load(home.home.weights)
    assert predictor.identity == served.manifest.weights
    assert predictor.loaded.weights.mean[:, 0, 0].tolist() == [123, 117, 104]
    assert [known.label for known in predictor.classes] == list(LABELS.values())
    # Each image is indexed as the network's authors had theirs: warped.
    file = album / "2011/brick/brick-00.jpg"
    square = read_square(file, resize="warp")
    features = predictor.extract_features(square[None])[0]
    stored = served.index.read_features(served.index.id_map.ids.tolist())
    assert np.abs(stored - features).max(axis=1).min() < 1e-4 * np.abs(features).max()
    guesses = predictor.classify(file, count=3)
    probabilities = predictor.predict(square).probabilities
    order = np.argsort(-probabilities)[:3]
    assert [guess.label for guess in guesses] == [predictor.classes[i].label for i in order]


def test_every_page_opens_over_such_an_index(
    home: Settings, served: Ready, open_app: Callable[[Settings], object]
) -> None:
    client: FlaskClient = open_app(home).test_client()  # type: ignore[attr-defined]
    image = int(served.index.id_map.ids[5])
    for address in ("/", "/explore", "/map", "/filters", "/filters/3", "/figure-4", "/models"):
        assert client.get(address).status_code == 200, address
    of = f"?of=image-{image}"
    for address in (f"/layers{of}", f"/layers/conv1{of}", f"/filters/3{of}"):
        assert client.get(address).status_code == 200, address
    page = client.get(f"/images/{image}").get_data(as_text=True)
    # The crops that this network sees, of the stretched image: 67 pixels, 94 from the edges.
    assert 'preserveAspectRatio="none"' in page
    assert "M94 94h67v67h-67z" in page
    (found,) = client.get("/api/models").json["models"]
    assert (found["kind"], found["key"]) == ("imported", "imported/theirs.safetensors")
    assert (found["facts"]["data"], found["facts"]["epochs"]) == ("unknown", None)


def test_the_index_is_updated_verified_and_built_again(
    home: Settings, served: Ready, album: Path
) -> None:
    right(home, "index", "verify")
    shutil.copy(album / "2011/coffee/coffee-00.jpg", album / "2011/rocket/another.jpg")
    assert right(home, "index", "update").startswith("1 images added")
    (album / "2011/rocket/another.jpg").unlink()
    # Without --data it is the folder that was indexed.
    assert f"16 images of {album}" in right(home, "index", "build")
    assert "up to date" in right(home, "index", "build", "--if-needed", "--data", album)
    assert "does not exist" in refused(home, "index", "build", "--data", album / "absent")


def test_a_second_import_changes_nothing(home: Settings, served: Ready, published: Path) -> None:
    file = home.home.imported / "theirs.safetensors"
    before = file.stat().st_mtime_ns
    words = ("weights", "import", "somewhere/theirs.pth", "--if-needed")
    assert str(store.read_current_version(home.home.index)) in right(home, *words)
    assert file.stat().st_mtime_ns == before
    # Other weights do not take the place of those that an index was built with.
    words = ("weights", "import", published, "--mean", "1,2,3")
    assert "--name" in refused(home, *words)
    right(home, *words, "--name", "others", "--no-use")
    assert home.home.weights.resolve() == file
    other = read_weights_header(home.home.imported / "others.safetensors")
    assert other.identity != served.manifest.weights
    (home.home.imported / "others.safetensors").unlink()


def test_weights_are_exported(home: Settings, served: Ready, tmp_path: Path) -> None:
    state, card = tmp_path / "state.pth", tmp_path / "card.md"
    right(home, "weights", "export", state, card)
    tensors = torch.load(state, weights_only=True)
    assert all(torch.equal(tensors[k], v) for k, v in served.predictor.loaded.weights.state.items())
    assert served.predictor.identity in card.read_text()
    assert "suffix" in refused(home, "weights", "export", tmp_path / "state.h5")
    assert "cannot be written" in refused(home, "weights", "export", tmp_path / "no/state.pth")
    absent = tmp_path / "absent.safetensors"
    assert str(absent) in refused(home, "weights", "export", card, "--weights", absent)


class Hostile:
    """What a pickle with code holds."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("exit 1",)


def test_what_cannot_be_imported_is_refused_in_one_line(
    home: Settings, served: Ready, published: Path, tmp_path: Path
) -> None:
    before = sorted(home.home.imported.iterdir())
    torch.save({"conv1.weight": Hostile()}, tmp_path / "hostile.pth")
    whole = published.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0 no weights")
    (tmp_path / "one.txt").write_text("ant\n")
    for words, said in (
        ([tmp_path / "hostile.pth"], "would run"),
        ([tmp_path / "cut.safetensors"], "cannot be read as a safetensors file"),
        ([tmp_path / "photo.jpg"], "of no format that is read"),
        ([tmp_path / "absent.pth"], "No such file"),
        ([published, "--variant", "torchvision"], "does not fit the network torchvision"),
        ([published, "--mean", "1,2"], "--mean takes three numbers"),
        ([published, "--mean", "1,2,300"], "from 0 to 255"),
        ([published, "--name", "../x"], "--name takes letters"),
        ([published, "--classes", tmp_path / "one.txt"], "1 classes' names"),
    ):
        assert said in refused(home, "weights", "import", *words)
    assert sorted(home.home.imported.iterdir()) == before
    assert home.home.weights.resolve() == home.home.imported / "theirs.safetensors"


def test_a_file_in_torchvisions_place_is_not_taken_for_its_own(home: Settings) -> None:
    home.home.downloads.mkdir(exist_ok=True)
    file = home.home.downloads / "alexnet-owt-7be5be79.pth"
    torch.save({"features.0.bias": torch.zeros(64)}, file)
    line = refused(home, "weights", "import", "torchvision")
    assert f"{file} is not the file that torchvision publishes" in line
    file.unlink()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where a server on this machine has bvlc_alexnet in few bytes, nearly all of it zeros."""
    layers = {
        name: (np.zeros(shape, np.float32), np.full(shape[0], 0.5, np.float32))
        for name, shape in SHAPES.items()
    }
    for weights, _ in layers.values():
        weights.reshape(-1)[::100_000] = 0.25
    layers["fc8"][1][281] = 9
    folder = tmp_path / "www"
    folder.mkdir()
    write_deep_compression(folder / "AlexNet_compressed.net", layers)
    server = HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/AlexNet_compressed.net"
    server.shutdown()
    thread.join()
    server.server_close()


def test_imagenet_is_fetched_by_name_and_knows_a_thousand_labels(
    address: str, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.from_environment({"ALEXNET_HOME": str(tmp_path / "home")})
    monkeypatch.setattr(deep_compression, "URL", "http://127.0.0.1:9/AlexNet_compressed.net")
    line = refused(settings, "weights", "import", "imagenet")
    assert deep_compression.URL in line
    assert "flask weights import AlexNet_compressed.net" in line
    monkeypatch.setattr(deep_compression, "URL", address)
    said = right(settings, "weights", "import", "imagenet")
    assert "1,000 classes" in said
    assert "Assumed" not in said
    file = settings.home.weights.resolve()
    assert file == settings.home.imported / "imagenet.safetensors"
    assert file.stat().st_size < 1e6
    weights = load_weights(file)
    assert weights.provenance.data == "ILSVRC-2012"
    digest = (settings.home.downloads / "AlexNet_compressed.net.sha256").read_text().split()[0]
    assert weights.provenance.source_sha256 == digest
    (guess, *_) = load(file).classify(photographs / "val/chelsea/00.jpg")
    assert guess.label == "tabby"
    assert [known.folder for known in weights.classes][:2] == ["n01440764", "n01443537"]
