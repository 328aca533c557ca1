"""The documentation's pictures: of every page, all there, small, and of the demo only."""

import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import torch
from PIL import Image

from app import create_app
from app.config import Settings
from docs.demo_home import NotDemoError, beside, demo_folder, difference
from docs.pages import SHOTS
from docs.screenshots import FOLDER, GALLERY, gallery
from model.alexnet import AlexNetConfig
from model.checkpoint import Weights, save
from storage.files import switch_link
from storage.home import Home
from training.dataset.demo import make_demo

MOST = 1_500_000
"""Bytes of all pictures together."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo photographs."""
    return make_demo(tmp_path_factory.mktemp("home") / "demo")


@pytest.fixture
def home(tmp_path: Path, weights_of: Callable[..., Weights]) -> Callable[[Path], Home]:
    """Makes a home that has weights trained on a folder, an index and a database, as far as
    somebody looks who wants to know whether it may be shown."""

    def make(photographs: Path) -> Home:
        home = Home(root=tmp_path / "var")
        weights = home.runs / "one" / "weights.safetensors"
        config = AlexNetConfig(net="cifar", side=32, crop=24, classes=2)
        save(weights_of(config, ("a", "b"), torch.zeros(3, 32, 32), str(photographs)), weights)
        switch_link(home.weights, weights)
        (home.index / "current").mkdir(parents=True)
        with closing(sqlite3.connect(home.database)) as database:
            database.execute("CREATE TABLE shown (id INTEGER)")
        return home

    return make


def test_every_page_of_the_navigation_is_shown(tmp_path: Path) -> None:
    app = create_app(Settings.from_environment({"ALEXNET_HOME": str(tmp_path)}))
    page = app.test_client().get("/").get_data(as_text=True)
    bar = page.split("<nav", 1)[1].split("</nav>", 1)[0]
    words = re.findall(r"<a [^>]*>([^<]+)</a>", bar)
    assert len(words) == 8
    assert list(dict.fromkeys(shot.room for shot in SHOTS))[: len(words)] == words


def test_the_gallery_shows_every_picture_and_every_picture_is_there() -> None:
    text = GALLERY.read_text()
    assert text == gallery()
    named = re.findall(r"!\[[^\]]+\]\(screenshots/([^)]+)\)", text)
    assert len(named) == len(set(named)) == sum(len(shot.looks) for shot in SHOTS)
    assert set(named) == {file.name for file in FOLDER.iterdir()}


def test_the_pictures_are_small() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= MOST
    for shot in SHOTS:
        assert any(look.width == 1280 and look.scheme == "light" for look in shot.looks)
        for look in shot.looks:
            with Image.open(FOLDER / shot.file(look)) as picture:
                assert picture.format == "WEBP"
                assert picture.width == look.width


def test_a_home_of_the_demo_is_shown_and_left_as_it_is(
    demo: Path, home: Callable[[Path], Home]
) -> None:
    own = home(demo)
    assert demo_folder(own) == demo
    before = {file: file.stat().st_mtime_ns for file in own.root.rglob("*")}
    with beside(own) as shown:
        assert shown.root != own.root
        assert shown.weights.resolve() == own.weights.resolve()
        with closing(sqlite3.connect(shown.database)) as database:
            database.execute("INSERT INTO shown VALUES (1)")
            database.commit()
        (shown.uploads).mkdir()
    assert not shown.root.exists()
    assert {file: file.stat().st_mtime_ns for file in own.root.rglob("*")} == before
    with closing(sqlite3.connect(own.database)) as database:
        assert database.execute("SELECT count(*) FROM shown").fetchone() == (0,)


def test_photographs_of_anybody_else_are_never_shown(
    demo: Path, home: Callable[[Path], Home], tmp_path: Path
) -> None:
    other = tmp_path / "photographs"
    shutil.copytree(demo, other)
    assert difference(other) is None
    shutil.copy(other / "val/coffee/coffee_01.jpg", other / "val/coffee/holiday.jpg")
    with pytest.raises(NotDemoError, match="not the demo photographs"):
        demo_folder(home(other))
    (other / "val/coffee/holiday.jpg").unlink()
    shutil.copy(other / "val/coffee/coffee_01.jpg", other / "val/coffee/coffee_00.jpg")
    assert difference(other) == "val/coffee/coffee_00.jpg shows something else"
    shutil.rmtree(other / "train/moon")
    assert difference(other) == "train holds other classes"


def test_a_home_with_nothing_in_it_leads_to_the_command(tmp_path: Path) -> None:
    with pytest.raises(NotDemoError, match="run `make demo` first"):
        demo_folder(Home(root=tmp_path))
