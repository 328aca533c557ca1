"""A search by several images: by the mean of their features, against brute force."""

import itertools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select
from werkzeug.test import TestResponse

from app.database.session import Sessions, read_session, session_factory
from app.database.tables import Image
from app.inference.mean_query import PickError, find_nearest_to_mean
from app.inference.state import Ready
from index.search import QueryError
from model.image.preprocess import read_square

Page = Callable[[TestResponse], Any]


@pytest.fixture(scope="module")
def ready(app: Flask) -> Ready:
    """What answers."""
    state = app.extensions["loader"].get_state()
    assert isinstance(state, Ready)
    return state


@pytest.fixture(scope="module")
def sessions(app: Flask) -> Sessions:
    """The database."""
    found: Sessions = app.extensions["sessions"]
    return found


@pytest.fixture(scope="module")
def ids(ready: Ready) -> list[int]:
    """The images of the index."""
    return sorted(ready.index.id_map.ids.tolist())


def test_the_features_of_an_image_are_those_the_network_gives(
    ready: Ready, sessions: Sessions, photographs, ids: list[int]
) -> None:
    with read_session(sessions) as session:
        paths = dict(session.execute(select(Image.id, Image.path)).all())
    for image in (ids[40], ids[3]):
        look = ready.predictor.predict(read_square(photographs / paths[image]))
        computed = np.asarray(look.fc7)
        found = ready.index.read_features([image])[0]
        assert found == pytest.approx(computed, abs=float(1e-3 * np.abs(computed).max()))
    both = ready.index.read_features([ids[3], ids[40], ids[3]])
    assert both.dtype == np.float32
    assert (both[2] == both[0]).all()
    assert (both[1] == ready.index.read_features([ids[40]])[0]).all()
    with pytest.raises(QueryError, match="no image 4242, 4243"):
        ready.index.read_features([ids[0], 4242, 4243])


@pytest.mark.parametrize("count", [2, 3, 6])
def test_the_nearest_to_the_mean_are_those_of_brute_force(
    ready: Ready, sessions: Sessions, ids: list[int], count: int
) -> None:
    picked = ids[1 :: len(ids) // count][:count]
    features = dict(zip(ids, ready.index.read_features(ids).astype(float), strict=True))
    mean = sum(features[image] for image in picked) / count
    far = {image: float(np.sqrt(np.sum((features[image] - mean) ** 2))) for image in ids}
    nearest = sorted((image for image in ids if image not in picked), key=lambda i: far[i])[:24]
    found = find_nearest_to_mean(ready, sessions, picked)
    assert [one.id for one in found.neighbours] == nearest
    assert [one.distance for one in found.neighbours] == pytest.approx(
        [far[image] for image in nearest], rel=1e-5
    )
    assert [one.picture.id for one in found.picked] == picked
    assert [one.distance for one in found.picked] == pytest.approx([far[i] for i in picked])


def test_as_many_are_found_as_are_asked_for(
    ready: Ready, sessions: Sessions, ids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the number asked for is the most that a search gives."""
    monkeypatch.setattr("index.search.MAX_NEIGHBOURS", 40)
    found = find_nearest_to_mean(ready, sessions, ids[:6], 40)
    assert len({one.id for one in found.neighbours} - {*ids[:6]}) == 40


def test_copies_of_what_was_picked_are_left_out(shop) -> None:
    source = shop.photographs / "train/chelsea/00.jpg"
    (shop.photographs / "train/chelsea/copy.jpg").write_bytes(source.read_bytes())
    (shop.photographs / "train/chelsea/01.jpg").unlink()
    shop.right("update")
    state, sessions = shop.state(), session_factory(shop.settings)
    with read_session(sessions) as session:
        ids = {path: image for image, path in session.execute(select(Image.id, Image.path))}
    first, copy, gone = (ids[f"train/chelsea/{name}.jpg"] for name in ("00", "copy", "01"))
    coffee = ids["train/coffee/00.jpg"]
    found = find_nearest_to_mean(state, sessions, [copy, coffee], 100)
    told = [one.id for one in found.neighbours]
    assert len(told) == 27 - 3
    assert not {first, copy, coffee} & set(told)
    with pytest.raises(PickError, match=f"Image {gone} is not in the index"):
        find_nearest_to_mean(state, sessions, [first, gone])


def test_the_page_shows_the_picked_and_the_nearest(
    client: FlaskClient, page: Page, ids: list[int]
) -> None:
    picked = [ids[0], ids[20], ids[50]]
    shown = page(client.get("/explore/mean", query_string={"image": picked}))
    tiles = shown.one("ul", "mean-images").all("a", "tile")
    assert [tile.attributes["href"] for tile in tiles] == [f"/images/{image}" for image in picked]
    found = shown.one("ol", "neighbours")
    links = [tile.attributes["href"] for tile in found.all("a", "tile")]
    assert len(set(links)) == 24
    assert not set(links) & {f"/images/{image}" for image in picked}
    distances = [float(n.text.split()[-1]) for n in found.all("span", "number")]
    assert distances == sorted(distances)


def test_one_of_three_can_be_left_out_but_not_of_two(
    client: FlaskClient, page: Page, ids: list[int]
) -> None:
    shown = page(client.get("/explore/mean", query_string={"image": ids[:3]}))
    leave = [a.attributes["href"] for a in shown.all("a", "remove")]
    pairs = [re.findall(r"image=(\d+)", address) for address in leave]
    assert {tuple(map(int, pair)) for pair in pairs} == set(itertools.combinations(ids[:3], 2))
    fewer = client.get(leave[0])
    assert fewer.status_code == 200
    assert page(fewer).all("a", "remove") == []


@pytest.mark.parametrize(
    ("picked", "fault"),
    [
        ([], ""),
        (["1"], ""),
        (["1", "1"], ""),
        (["1", "2", "3", "4", "5", "6", "7"], "7"),
        (["1", "4242"], "4242"),
        (["1", "2147483648"], "2147483648"),
        (["1", "99999999999999999999999"], ""),
        (["1", "-2"], ""),
        (["1", "x"], ""),
        (["1", "²"], ""),
    ],
)
def test_a_selection_that_cannot_be_searched_is_refused(
    client: FlaskClient, page: Page, picked: list[str], fault: str
) -> None:
    answer = client.get("/explore/mean", query_string={"image": picked})
    assert answer.status_code == 400
    assert fault in page(answer).one("div", "message").text


def test_an_example_of_the_validation_set_cannot_be_picked(
    client: FlaskClient, page: Page, sessions: Sessions
) -> None:
    with read_session(sessions) as session:
        example = session.scalars(select(Image.id).where(Image.split == "val")).first()
    answer = client.get("/explore/mean", query_string={"image": [1, example]})
    assert answer.status_code == 400
    assert f"Image {example} is not in the index" in page(answer).one("div", "message").text
