"""A small real home: photographs, the whole network with seeded weights, an index over them."""

import io
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from flask import Flask, abort
from flask.testing import FlaskClient
from PIL import Image
from skimage import data
from werkzeug.datastructures import FileStorage, MultiDict
from werkzeug.test import TestResponse, encode_multipart

from app import create_app
from app.config import Settings
from app.database.session import DatabaseError, session_factory
from app.inference.classify import Classification, classify_image
from app.inference.loader import ModelLoader
from app.inference.state import Ready
from index import store
from index.engines.protocol import SearchError
from model.network.config import FEATURES, AlexNetConfig
from model.weights.checkpoint import Weights, load_weights, save_weights
from storage.files import switch_link
from storage.home import Home
from tests.narrow_networks import narrow_network

CLASSES = ("astronaut", "brick", "chelsea", "coffee", "grass", "rocket")
LABELS = {name: name for name in CLASSES} | {
    "chelsea": "tabby cat",
    "coffee": "<b>coffee & cream</b>",
}
LIMITS = {
    "ALEXNET_PAGE_SIZE": "4",
    "ALEXNET_UPLOAD_MEGABYTES": "1",
    "ALEXNET_UPLOAD_MEGAPIXELS": "2",
    # All tests come from one address, and would be too many in a minute.
    "ALEXNET_UPLOAD_RATE": "0",
    "ALEXNET_API_RATE": "0",
}
TRAIN, VAL = 9, 2
VOID = {"meta", "link", "input", "img", "source", "br", "hr"}


@dataclass
class Element:
    """An element of a page, its attributes, and all the text inside it."""

    tag: str
    attributes: dict[str, str]
    text: str = ""
    children: list["Element"] = field(default_factory=list)

    def all(self, tag: str | None = None, class_: str | None = None) -> list["Element"]:
        """Every element inside this one with that tag and that class."""
        found = []
        for child in self.children:
            classes = child.attributes.get("class", "").split()
            if (tag is None or child.tag == tag) and (class_ is None or class_ in classes):
                found.append(child)
            found += child.all(tag, class_)
        return found

    def one(self, tag: str | None = None, class_: str | None = None) -> "Element":
        """The only such element."""
        (found,) = self.all(tag, class_)
        return found


class Reader(HTMLParser):
    """Builds the tree of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("page", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Element(tag, {n: v or "" for n, v in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"<{self.open[-1].tag}> is closed by </{tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data


def read_page(response: TestResponse) -> Element:
    """The tree of a page; fails when its elements do not nest."""
    assert response.mimetype == "text/html"
    reader = Reader()
    reader.feed(response.get_data(as_text=True))
    assert len(reader.open) == 1
    return reader.open[0]


class Browser(FlaskClient):
    """Flask's client; it leaves no file open, neither of a long form nor of a response."""

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        form = kwargs.get("data")
        if isinstance(form, dict):
            boundary, kwargs["data"] = encode_multipart(as_files(form))
            kwargs["content_type"] = f"multipart/form-data; boundary={boundary}"
        return super().open(*args, **{"buffered": True, **kwargs})


def as_files(form: dict[str, Any]) -> MultiDict[str, Any]:
    """A form's fields, a pair of bytes to read and a name being a file."""
    pairs = ((k, v) for k, vs in form.items() for v in (vs if isinstance(vs, list) else [vs]))
    return MultiDict((k, FileStorage(*v) if isinstance(v, tuple) else v) for k, v in pairs)


def photograph(name: str, seed: int) -> Image.Image:
    """Cut a square from a photograph that scikit-image ships, the place drawn from a seed."""
    whole = getattr(data, name)()
    top, left = np.random.default_rng(seed).integers(0, min(whole.shape[:2]) - 120, 2)
    return Image.fromarray(whole[top : top + 120, left : left + 120])


def make_photographs(root: Path) -> None:
    """Write train/<class>/* and val/<class>/*, and readable labels, one of them hostile."""
    for split, count in (("train", TRAIN), ("val", VAL)):
        for index, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for n in range(count):
                seed = 100 * index + n + (50 if split == "val" else 0)
                photograph(name, seed).save(folder / f"{n:02}.jpg")
    lines = (f"{folder} {label}\n" for folder, label in LABELS.items())
    (root / "classes.txt").write_text("".join(lines))


def make_weights(
    weights_of: Callable[..., Weights], home: Home, photographs: Path, config: AlexNetConfig
) -> None:
    """Write weights of a network, not trained, and point the home at them."""
    state = dict(weights_of(config, CLASSES, seed=1).state)
    # So that of the six labels it is always the same five that are shown.
    state["fc8.bias"][CLASSES.index("grass")] -= 50
    weights = weights_of(
        config,
        CLASSES,
        labels=LABELS,
        state=state,
        data=str(photographs),
        images=TRAIN * len(CLASSES),
        epochs=2,
        preset="small",
    )
    file = home.runs / "first" / "weights.safetensors"
    save_weights(weights, file)
    switch_link(home.weights, file)


def settings_of(root: Path, **changes: str) -> Settings:
    """Settings as the environment would give them."""
    return Settings.from_environment(
        {
            "ALEXNET_HOME": str(root),
            "ALEXNET_DEVICE": "cpu",
            # Measuring takes seconds, and the tests' truths are torch's.
            "ALEXNET_RUNTIME": "torch",
            **changes,
        }
    )


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photographs."""
    root = tmp_path_factory.mktemp("photographs")
    make_photographs(root)
    return root


CopyHome = Callable[[Home, Path], Home]


@pytest.fixture(scope="session")
def copy_home() -> CopyHome:
    """Copies a home, of which connections may be open."""
    return copy_home_to


def copy_home_to(home: Home, root: Path) -> Home:
    """Copy a home, its database by SQLite itself.

    A process that opens and closes the file of a database, its log or its shared memory gives up
    all its locks on it (POSIX): another process then deletes the log this one still writes to.
    """
    shutil.copytree(
        home.root, root, symlinks=True, ignore=shutil.ignore_patterns(f"{home.database.name}*")
    )
    copy = Home(root=root)
    copy_database(home.database, copy.database)
    return copy


def copy_database(source: Path, target: Path) -> None:
    """Copy a SQLite database that may be open."""
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)


MakeHome = Callable[[AlexNetConfig], Settings]


@pytest.fixture(scope="session")
def make_home(
    tmp_path_factory: pytest.TempPathFactory,
    weights_of: Callable[..., Weights],
    photographs: Path,
) -> MakeHome:
    """Makes a home with weights of a network and an index built by the command; its settings."""

    def make(config: AlexNetConfig) -> Settings:
        settings = settings_of(tmp_path_factory.mktemp("home"), **LIMITS)
        make_weights(weights_of, settings.home, photographs, config)
        built = create_app(settings).test_cli_runner().invoke(args=["index", "build"])
        assert built.exit_code == 0, built.output
        return settings

    return make


PAPER = AlexNetConfig(classes=len(CLASSES), init="he", input_scale=60)
SMALL = replace(PAPER, crop=67)
"""The network sees 67 pixels, the fewest it can. So it has all layers, 4096 features, and a third
of the weights and a tenth of the work."""


@pytest.fixture(scope="session")
def settings(make_home: MakeHome) -> Settings:
    """A home that all tests share, of the small network."""
    return make_home(SMALL)


@pytest.fixture(scope="session")
def narrow_settings(make_home: MakeHome) -> Settings:
    """A home whose layers are narrow as well, for tests that write weights and build indexes.

    It has the 4096 features that an index needs, and a twentieth of the weights.
    """
    return make_home(narrow_network(SMALL, features=FEATURES))


@pytest.fixture(scope="session")
def paper_settings(make_home: MakeHome) -> Settings:
    """A home whose network sees 224 pixels, as the paper's, for tests of the layers' shapes."""
    return make_home(PAPER)


@pytest.fixture(scope="session")
def environment(settings: Settings) -> dict[str, str]:
    """The variables that make another process use the same home with the same limits."""
    return {
        "ALEXNET_HOME": str(settings.home.root),
        "ALEXNET_DEVICE": "cpu",
        "ALEXNET_RUNTIME": "torch",
        **LIMITS,
    }


@pytest.fixture(scope="session")
def app(settings: Settings) -> Flask:
    """The application with everything there."""
    return opened(settings)


def opened(settings: Settings) -> Flask:
    """The application, with clients that leave nothing open."""
    app = create_app(settings)
    app.test_client_class = Browser
    return app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A browser without a window, its cookies empty."""
    return app.test_client()


@pytest.fixture(scope="session")
def failing(settings: Settings) -> FlaskClient:
    """The application with addresses, for people and for programs, that fail as they are told."""
    app = opened(settings)

    @app.get("/fail/<kind>")
    @app.get("/api/fail/<kind>")
    def fail(kind: str) -> str:
        if kind == "bug":
            raise ZeroDivisionError("a secret of the inside")
        if kind == "database":
            raise DatabaseError("The database postgresql://host/secret is locked")
        if kind == "full":
            raise DatabaseError("could not extend /secret: No space left on device")
        if kind == "search":
            raise SearchError("http://secret:19530 is gone")
        if kind == "file":
            raise OSError(5, "Input/output error", "/secret/path")
        abort(int(kind))

    return app.test_client()


@pytest.fixture
def empty(tmp_path: Path) -> FlaskClient:
    """The application with nothing there yet."""
    return opened(settings_of(tmp_path / "home")).test_client()


@pytest.fixture(scope="session")
def open_app() -> Callable[[Settings], Flask]:
    """Makes an application with other settings."""
    return opened


@pytest.fixture(scope="session")
def page() -> Callable[[TestResponse], Element]:
    """Reads a page."""
    return read_page


@pytest.fixture(scope="session")
def jpeg() -> bytes:
    """A photograph that is not in the training set."""
    out = io.BytesIO()
    photograph("chelsea", 7).resize((300, 200)).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture
def token(client: FlaskClient) -> str:
    """The forms' token of this client's session."""
    return token_of(client)


def token_of(client: FlaskClient) -> str:
    """Read the forms' token where a browser finds it."""
    found = re.search(r'name="csrf_token" value="([^"]+)"', client.get("/").get_data(as_text=True))
    assert found
    return found[1]


Send = Callable[..., TestResponse]


@pytest.fixture
def send(client: FlaskClient) -> Send:
    """Sends bytes by the form of the first page, under a name."""

    def send(data: bytes, filename: str = "cat.jpg", client: FlaskClient = client) -> TestResponse:
        form = {"csrf_token": token_of(client), "image": (io.BytesIO(data), filename)}
        return client.post("/", data=form)

    return send


@dataclass(frozen=True)
class Uploader:
    """A client that has classified an image, and the token of the result."""

    client: FlaskClient
    token: str


@pytest.fixture(scope="session")
def make_uploader(jpeg: bytes) -> Callable[[Flask], Uploader]:
    """Makes a client of an application that has classified cat.jpg."""

    def make(app: Flask) -> Uploader:
        client = app.test_client()
        form = {"csrf_token": token_of(client), "image": (io.BytesIO(jpeg), "cat.jpg")}
        return Uploader(client, client.post("/", data=form).location.rsplit("/", 1)[1])

    return make


@pytest.fixture(scope="module")
def uploader(app: Flask, make_uploader: Callable[[Flask], Uploader]) -> Uploader:
    """A client that has classified cat.jpg; for tests that leave the result as it is.

    One for each module: others let uploads expire.
    """
    return make_uploader(app)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Keep torch from taking every core for a network this small a test needs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def root(tmp_path: Path, photographs: Path) -> Path:
    """A folder of three classes of nine photographs each that may be changed."""
    for name in ("astronaut", "chelsea", "coffee"):
        for split in ("train", "val"):
            shutil.copytree(photographs / split / name, tmp_path / "photographs" / split / name)
        for late in sorted((tmp_path / "photographs/train" / name).iterdir())[9:]:
            late.unlink()
    (tmp_path / "photographs/classes.txt").write_text(
        "astronaut astronaut\nchelsea tabby cat\ncoffee a cup of coffee\n"
    )
    return tmp_path / "photographs"


@dataclass(frozen=True)
class Shop:
    """A home with an index over a folder of photographs, all of which may be changed."""

    settings: Settings
    photographs: Path

    @property
    def index(self) -> Path:
        """The folder of the index."""
        return self.settings.home.index

    @property
    def name(self) -> str | None:
        """The version that is served."""
        return store.read_current_version(self.index)

    @property
    def version(self) -> Path:
        """Its folder."""
        return self.index / (self.name or "none")

    def run(self, *words: str, **changes: Any) -> Result:
        """Run a command of `flask index`, with other settings where they are named."""
        app = create_app(replace(self.settings, **changes))
        done = app.test_cli_runner().invoke(args=["index", *words])
        app.extensions["sessions"].kw["bind"].dispose()
        lines = [line for line in done.stderr.splitlines(keepends=True) if "━" not in line]
        done.stderr_bytes = "".join(lines).encode()  # without the finished progress bars
        return done

    def right(self, *words: str, **changes: Any) -> str:
        """Run it; it ends well. Gives what it said."""
        done = self.run(*words, **changes)
        assert done.exit_code == 0, done.output
        return done.stdout

    def refused(self, *words: str, **changes: Any) -> str:
        """Run it; it ends with exit code 2 and one line on the error stream, which it gives."""
        done = self.run(*words, **changes)
        assert done.exit_code == 2, done.output
        (line,) = done.stderr.strip().splitlines()
        return line

    def classify(self, data: bytes, loader: ModelLoader | None = None) -> Classification:
        """Classify an image, by default as a server that is started now does."""
        loader = loader or self.loader()
        return classify_image(loader.require_ready(), loader.sessions, data)[0]

    def finish_run(self, name: str, shift: float) -> str:
        """Leave what a run that has finished leaves; give the identity of its weights."""
        home = self.settings.home
        weights = load_weights(home.weights)
        new = replace(weights, mean=weights.mean + shift)
        file = home.runs / name / "weights.safetensors"
        save_weights(new, file)
        switch_link(home.weights, file)
        return new.identity

    def loader(self) -> ModelLoader:
        """A loader that is started now."""
        return ModelLoader(self.settings, session_factory(self.settings))

    def state(self) -> Ready:
        """What a server that is started now answers with."""
        state = self.loader().get_state()
        assert isinstance(state, Ready), state
        return state


@pytest.fixture(scope="session")
def built_shop(
    tmp_path_factory: pytest.TempPathFactory, narrow_settings: Settings, photographs: Path
) -> Shop:
    """Three classes of nine photographs, indexed once, and both folders kept beside for copies."""
    place = tmp_path_factory.mktemp("shop")
    shop = Shop(replace(narrow_settings, home=Home(root=place / "home")), place / "photographs")
    for split in ("train", "val"):
        for name in ("astronaut", "chelsea", "coffee"):
            shutil.copytree(photographs / split / name, shop.photographs / split / name)
    weights = load_weights(narrow_settings.home.weights)
    provenance = replace(weights.provenance, data=str(shop.photographs))
    save_weights(replace(weights, provenance=provenance), place / "weights.safetensors")
    switch_link(shop.settings.home.weights, place / "weights.safetensors")
    shop.right("build")
    shutil.copytree(shop.photographs, place / "kept/photographs")
    copy_home_to(shop.settings.home, place / "kept/home")
    return shop


@pytest.fixture
def shop(built_shop: Shop) -> Shop:
    """The same as it was at first, whatever the tests before did to it."""
    place = built_shop.photographs.parent
    for folder in ("home", "photographs"):
        shutil.rmtree(place / folder, ignore_errors=True)
        shutil.copytree(place / "kept" / folder, place / folder, symlinks=True)
    return built_shop


@pytest.fixture
def weights_alone(tmp_path: Path, settings: Settings) -> FlaskClient:
    """The application with weights, but without an index or a database."""
    home = Home(root=tmp_path / "alone")
    switch_link(home.weights, settings.home.weights.resolve())
    return opened(replace(settings, home=home)).test_client()


@pytest.fixture(scope="session")
def with_weights(
    tmp_path_factory: pytest.TempPathFactory, settings: Settings
) -> Callable[[Weights], Flask]:
    """Makes the application with the same database and other weights, which no index fits."""

    def make(weights: Weights) -> Flask:
        folder = tmp_path_factory.mktemp("other")
        home = Home(root=folder / "home")
        save_weights(weights, folder / "weights.safetensors")
        switch_link(home.weights, folder / "weights.safetensors")
        database = f"sqlite:///{settings.home.database}"
        return opened(replace(settings, home=home, database_url=database))

    return make
