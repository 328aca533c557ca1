"""The map: its points are the index's, its colours can be told apart, its picture shows them."""

import io
import itertools
import json
import re
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image, ImageDraw, ImageFont
from werkzeug.test import TestResponse

from app.database.browse import list_classes
from app.database.images import read_class_ids_by_image
from app.inference.state import Ready
from app.views.map.layout import (
    COLOURS,
    MAX_COORDINATE,
    UNKNOWN,
    MapClass,
    TrainingMap,
    build_training_map,
    find_densest_places,
)
from app.views.map.page import describe_map
from app.views.map.picture import (
    HEIGHT,
    WIDTH,
    compute_dot_radius,
    convert_to_pixels,
    place_labels,
    render_map,
)
from app.views.map.points_file import pack_points
from index import sample
from index.manifest import MANIFEST_FILE, read_manifest, write_manifest

Page = Callable[[TestResponse], Any]
LIGHT, DARK = "#ffffff", "#1f1e1b"


@pytest.fixture
def state(app: Flask) -> Ready:
    """What is served."""
    found = app.extensions["loader"].get_state()
    assert isinstance(found, Ready)
    assert found.sample is not None
    return found


@pytest.fixture
def atlas(app: Flask, state: Ready) -> TrainingMap:
    """The map of what is served."""
    found = build_training_map(state, list_classes(app.extensions["sessions"], state.version.id))
    assert found is not None
    return found


def decoded(answer: TestResponse) -> Image.Image:
    """The picture of an answer."""
    return Image.open(io.BytesIO(answer.data)).convert("RGB")


def rgb(colour: str) -> np.ndarray:
    """A colour's channels, 0–255."""
    return np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)], float)


def linear(colour: str) -> np.ndarray:
    """A colour's channels as light, 0–1, by WCAG."""
    c = rgb(colour) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """WCAG's contrast of two colours."""
    low, high = sorted(float(linear(c) @ (0.2126, 0.7152, 0.0722)) for c in (one, other))
    return (high + 0.05) / (low + 0.05)


def unpack(data: bytes) -> dict[str, Any]:
    """The header and the columns of a points file, as its description says."""
    length = struct.unpack_from("<I", data)[0]
    found = json.loads(data[4 : 4 + length])
    names = ["ids", "x", "y", "numbers", *(["guesses"] if found["guessed"] else [])]
    start = 4 + length
    for name in names:
        found[name] = np.frombuffer(data, "<u4" if name == "ids" else "<u2", found["count"], start)
        start += found[name].nbytes
    assert start == len(data)
    return found


def alone(atlas: TrainingMap, one: int) -> TrainingMap:
    """A map of one image."""
    return replace(
        atlas,
        images=1,
        classes=[replace(atlas.classes[atlas.numbers[one]], images=1, nearest=None)],
        numbers=np.zeros(1, np.int64),
        guesses=None,
        **{name: getattr(atlas, name)[one : one + 1] for name in ("ids", "xs", "ys")},
    )


def test_points_come_from_the_index_and_classes_from_the_database(
    client: FlaskClient, app: Flask, settings: Any
) -> None:
    sent = unpack(client.get("/map/points.bin").data)
    with np.load(settings.home.index / "current" / sample.SAMPLE_FILE) as stored:
        ids, points = stored["ids"], stored["points"]
    classes = read_class_ids_by_image(
        app.extensions["sessions"], app.extensions["loader"].get_state().version.id
    )
    assert sent["ids"].tolist() == ids.tolist() == sorted(classes)
    assert [sent["classes"][n]["id"] for n in sent["numbers"]] == [classes[i] for i in ids.tolist()]
    places = np.stack([sent["x"], sent["y"]], axis=1)
    assert abs(places / sent["scale"] - points).max() <= 0.51 / sent["scale"]
    assert (sent["count"], sent["scale"]) == (54, MAX_COORDINATE)
    assert {c["images"] for c in sent["classes"]} == {9}
    labels = [c["label"] for c in sent["classes"]]
    assert labels == sorted(labels, key=str.casefold)


def test_guesses_are_the_review_s(client: FlaskClient, state: Ready) -> None:
    sent = unpack(client.get("/map/points.bin").data)
    guesses = dict(zip(state.review.ids.tolist(), state.review.guesses.tolist(), strict=True))
    classes = [*(c["id"] for c in sent["classes"]), 0]
    found = [classes[n] if n != UNKNOWN else 0 for n in sent["guesses"]]
    assert found == [guesses[i] for i in sent["ids"].tolist()]


def test_without_a_review_there_are_no_guesses(app: Flask, state: Ready) -> None:
    classes = list_classes(app.extensions["sessions"], state.version.id)
    plain = build_training_map(replace(state, review=None), classes)
    assert plain is not None
    sent = unpack(pack_points(plain))
    assert "guesses" not in sent
    assert sent["numbers"].tolist() == plain.numbers.tolist()


def test_a_hundred_thousand_points_are_little_more_than_a_megabyte(atlas: TrainingMap) -> None:
    many = replace(
        atlas,
        **{
            name: np.resize(getattr(atlas, name), 100_000)
            for name in ("ids", "numbers", "xs", "ys", "guesses")
        },
    )
    assert len(pack_points(many)) < 1.25e6


def test_a_classs_densest_place_is_where_most_images_lie() -> None:
    generator = np.random.default_rng(3)
    many = generator.normal((4000, 12000), 150, (90, 2))
    few = generator.normal((13000, 2000), 150, (30, 2))
    others = generator.normal((9000, 9000), 100, (50, 2))
    xs, ys = np.rint(np.concatenate([few, many, others])).astype(np.int64).T
    numbers = np.repeat([0, 1], [120, 50])
    found = find_densest_places(numbers, xs, ys, 2)
    assert np.abs(found - [[4000, 12000], [9000, 9000]]).max() < 100


def test_points_and_pictures_are_cached_by_version(client: FlaskClient, page: Page) -> None:
    shown = page(client.get("/map"))
    stage = shown.one("div", "stage").attributes
    pictures = (
        "/map.png?scheme=light&v=" + stage["data-points"].split("v=")[1],
        "/map.png?scheme=dark&v=" + stage["data-points"].split("v=")[1],
    )
    for address in (stage["data-points"], *pictures):
        answer = client.get(address)
        assert answer.status_code == 200
        assert answer.cache_control.immutable
        assert answer.cache_control.max_age > 10**7
        again = client.get(address, headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.data) == (304, b"")
        unnamed = client.get(address.split("?")[0])
        assert unnamed.cache_control.no_cache
    assert unpack(client.get(stage["data-points"]).data)["version"] == stage["data-version"]


def test_the_page_names_the_method_and_links_to_each_class(client: FlaskClient, page: Page) -> None:
    shown = page(client.get("/map"))
    assert re.search(r"t-SNE.*\b54\b", shown.one("div", "lead").text)
    links = shown.one("div", "key").all("a")
    for link, label in zip(
        links,
        ("<b>coffee & cream</b>", "astronaut", "brick", "grass", "rocket", "tabby cat"),
        strict=True,
    ):
        assert re.match(rf"9\b.*{re.escape(label)}$", link.text)
    for link in links:
        assert client.get(link.attributes["href"]).status_code == 200
    rows = shown.one("table", "positions").one("tbody").all("tr")
    places = {f"{d} {a}" for d in ("top", "middle", "bottom") for a in ("left", "right")}
    places |= {"middle", "top centre", "bottom centre"}
    assert {row.all("td")[0].text for row in rows} <= places
    labels = [row.one("th").text for row in rows]
    assert all(row.all("td")[1].text in set(labels) - {row.one("th").text} for row in rows)


def test_the_nearest_class_in_the_table_is_the_nearest(atlas: TrainingMap) -> None:
    for group in atlas.classes:
        others = [g for g in atlas.classes if g is not group]
        near = min(others, key=lambda g: np.hypot(g.x - group.x, g.y - group.y))
        assert group.nearest == near.label


def test_a_sample_states_its_size_and_the_total(app: Flask, state: Ready) -> None:
    some = state.sample.ids[::2]
    part = replace(state.sample, ids=some, points=state.sample.points[::2], whole=False)
    version = replace(state.version, count=1_281_167)
    classes = list_classes(app.extensions["sessions"], version.id)
    atlas = build_training_map(replace(state, sample=part, version=version), classes)
    assert re.search(r"\b27\b.*1,281,167\b", describe_map(atlas))
    assert sum(group.images for group in atlas.classes) == 27
    known = read_class_ids_by_image(app.extensions["sessions"], version.id)
    assert [atlas.classes[n].id for n in atlas.numbers] == [known[int(i)] for i in some]


def test_one_image_alone_is_a_map_too(atlas: TrainingMap) -> None:
    one = alone(atlas, 20)
    assert "t-SNE" not in describe_map(one)
    drawn = np.asarray(Image.open(io.BytesIO(render_map(one, "light"))).convert("RGB"))
    across, down = np.rint(convert_to_pixels(np.array([one.xs[0], one.ys[0]]))).astype(int)
    assert abs(drawn[down, across] - rgb(one.classes[0].colour.light)).max() <= 8


@pytest.mark.parametrize(("scheme", "ground"), [("light", LIGHT), ("dark", DARK)])
def test_the_picture_has_a_dot_of_its_class_s_colour_for_each_image(
    client: FlaskClient, atlas: TrainingMap, scheme: str, ground: str
) -> None:
    answer = client.get(f"/map.png?scheme={scheme}")
    assert answer.mimetype == "image/png"
    drawn = decoded(answer)
    assert drawn.size == (2 * WIDTH, 2 * HEIGHT)
    pixels = np.asarray(drawn).astype(float)
    assert abs(pixels[0, 0] - rgb(ground)).max() <= 4
    places = convert_to_pixels(np.stack([atlas.xs, atlas.ys], axis=1))
    apart = [
        n
        for n, place in enumerate(places)
        if np.sort(np.hypot(*(places - place).T))[1] > 4 * compute_dot_radius(len(places))
    ]
    assert len(apart) > 10
    right = 0
    for n in apart:
        across, down = np.rint(places[n]).astype(int)
        colour = getattr(atlas.classes[atlas.numbers[n]].colour, scheme)
        right += abs(pixels[down, across] - rgb(colour)).max() <= 10
    # A name may stand over a few.
    assert right >= 0.8 * len(apart)


def test_labels_do_not_overlap_and_stay_inside_the_picture() -> None:
    generator = np.random.default_rng(5)
    groups = [
        MapClass(
            id=n,
            label="a class of some length"[: 6 + n % 16],
            images=1 + n,
            x=int(x),
            y=int(y),
            where="",
            nearest=None,
            colour=COLOURS[n % 20],
        )
        for n, (x, y) in enumerate(generator.integers(0, MAX_COORDINATE, (80, 2)))
    ]
    places = convert_to_pixels(generator.integers(0, MAX_COORDINATE, (2000, 2)))
    names = list(place_labels(groups, places, ImageFont.load_default(26)))
    assert len(names) > 25
    assert names[0].map_class.images == 80
    paper = Image.new("L", (2 * WIDTH, 2 * HEIGHT))
    area = 0
    for name in names:
        left, top, right, bottom = (round(edge) for edge in name.box)
        assert 0 <= left < right <= 2 * WIDTH
        assert 0 <= top < bottom <= 2 * HEIGHT
        area += (right - left - 1) * (bottom - top - 1)
        ImageDraw.Draw(paper).rectangle((left, top, right - 2, bottom - 2), fill=255)
    # Boxes that overlapped would together cover less than they do one by one.
    assert int((np.asarray(paper) > 0).sum()) >= area * 0.999


def test_class_colours_stand_apart_from_each_other_and_the_background() -> None:
    for scheme, ground in (("light", LIGHT), ("dark", DARK)):
        colours = [getattr(colour, scheme) for colour in COLOURS]
        assert all(contrast(colour, ground) >= 3 for colour in colours)
        distances = [
            float(np.linalg.norm(rgb(a) - rgb(b))) for a, b in itertools.combinations(colours, 2)
        ]
        assert min(distances) > 20


def test_an_index_without_a_sample_has_no_map_and_no_patches(
    shop: Any, open_app: Callable[..., Flask], page: Page
) -> None:
    manifest = read_manifest(shop.version)
    without = {name: file for name, file in manifest.files.items() if name != sample.SAMPLE_FILE}
    (shop.version / sample.SAMPLE_FILE).unlink()
    (shop.version / MANIFEST_FILE).unlink()
    write_manifest(replace(manifest, files=without), shop.version)
    client = open_app(shop.settings).test_client()
    answer = client.get("/map")
    assert answer.status_code == 200
    shown = page(answer)
    assert shown.one("code").text == "flask index build"
    assert client.get("/map/points.bin").status_code == 404
    assert client.get("/map.png").status_code == 404
    kernel = page(client.get("/filters/5")).one("div", "closer")
    assert kernel.one("code").text == "flask index build"
    assert client.get("/filters/5/patches.png").status_code == 404


def test_without_weights_the_map_names_the_command(empty: FlaskClient, page: Page) -> None:
    assert "training/run.py" in page(empty.get("/map")).one("code").text
