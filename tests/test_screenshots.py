"""The gallery: a picture of every page, all there, small, and of the demo photographs only."""

import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from app import create_app
from app.config import Settings
from docs.demo_home import (
    ScreenshotError,
    difference_from_demo,
    find_demo_photographs,
    temporary_copy,
)
from docs.pages import SCREENSHOTS
from docs.screenshots import FOLDER, GALLERY, gallery_page
from model.network.config import AlexNetConfig
from model.weights.checkpoint import Weights, save_weights
from storage.files import switch_link
from storage.home import Home
from training.dataset.demo import make_demo

MAX_BYTES = 1_850_000
"""Of all pictures together: they are part of the repository."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo photographs."""
    return make_demo(tmp_path_factory.mktemp("home") / "demo")


@pytest.fixture
def make_home(tmp_path: Path, weights_of: Callable[..., Weights]) -> Callable[[Path], Home]:
    """Makes a home with weights trained on a folder, an empty index and a database."""

    def make(photographs: Path) -> Home:
        home = Home(root=tmp_path / "var")
        weights = home.runs / "one" / "weights.safetensors"
        config = AlexNetConfig(net="cifar", side=32, crop=24, classes=2)
        save_weights(weights_of(config, data=str(photographs)), weights)
        switch_link(home.weights, weights)
        (home.index / "current").mkdir(parents=True)
        with closing(sqlite3.connect(home.database)) as database:
            database.execute("CREATE TABLE visits (id INTEGER)")
        return home

    return make


def test_every_page_of_the_navigation_is_in_the_gallery(tmp_path: Path) -> None:
    app = create_app(Settings.from_environment({"ALEXNET_HOME": str(tmp_path)}))
    page = app.test_client().get("/").get_data(as_text=True)
    navigation = page.split("<nav", 1)[1].split("</nav>", 1)[0]
    labels = re.findall(r"<a [^>]*>([^<]+)</a>", navigation)
    sections = list(dict.fromkeys(shot.section for shot in SCREENSHOTS))
    assert labels
    assert sections[: len(labels)] == labels


def test_the_gallery_is_current_and_its_pictures_are_there_and_small() -> None:
    assert GALLERY.read_text() == gallery_page(), "run: make screenshots"
    linked = re.findall(r"\(screenshots/([^)]+)\)", gallery_page())
    assert sorted(linked) == sorted(file.name for file in FOLDER.iterdir())
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= MAX_BYTES
    for shot in SCREENSHOTS:
        for view in shot.views:
            with Image.open(FOLDER / shot.file_name(view)) as picture:
                assert (picture.format, picture.width) == ("WEBP", view.width)


def test_visits_change_nothing_in_the_home(demo: Path, make_home: Callable[[Path], Home]) -> None:
    home = make_home(demo)
    assert find_demo_photographs(home) == demo
    before = {file: file.stat().st_mtime_ns for file in home.root.rglob("*")}
    with temporary_copy(home) as copy:
        assert copy.root != home.root
        assert copy.weights.resolve() == home.weights.resolve()
        with closing(sqlite3.connect(copy.database)) as database:
            database.execute("INSERT INTO visits VALUES (1)")
            database.commit()
        copy.uploads.mkdir()
    assert not copy.root.exists()
    assert {file: file.stat().st_mtime_ns for file in home.root.rglob("*")} == before
    with closing(sqlite3.connect(home.database)) as database:
        assert database.execute("SELECT count(*) FROM visits").fetchone() == (0,)


def test_other_photographs_are_never_published(
    demo: Path, make_home: Callable[[Path], Home], tmp_path: Path
) -> None:
    other = tmp_path / "photographs"
    shutil.copytree(demo, other)
    assert difference_from_demo(other) is None
    shutil.copy(other / "val/coffee/coffee_01.jpg", other / "val/coffee/holiday.jpg")
    with pytest.raises(ScreenshotError, match="val/coffee"):
        find_demo_photographs(make_home(other))
    (other / "val/coffee/holiday.jpg").unlink()
    shutil.copy(other / "val/coffee/coffee_01.jpg", other / "val/coffee/coffee_00.jpg")
    assert "val/coffee/coffee_00.jpg" in (difference_from_demo(other) or "")
    shutil.rmtree(other / "train/moon")
    assert "train" in (difference_from_demo(other) or "")


def test_without_a_home_the_command_that_makes_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScreenshotError, match="make demo"):
        find_demo_photographs(Home(root=tmp_path))
