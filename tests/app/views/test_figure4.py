"""Figure 4: the right answers under the right images, whichever are chosen, and as files."""

import io
import re
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image

from app.database.images import CatalogueImage, find_validation_images
from app.inference.classify import classify_image
from app.inference.state import Ready
from app.views.figure4.content import list_top_bars
from app.views.figure4.drawing import choose_fonts, fontManager, read_font_characters
from app.views.figure4.selection import SelectionError, draw_selection, pick_selection
from model.image.preprocess import read_square

Page = Callable[[Any], Any]
SVG, XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
RED = "#b3261e"
CLASSES = 6
DRAW = 2012
"""The figure's number, which no other test has asked the same application for."""


@pytest.fixture(scope="module")
def state(app: Flask) -> Ready:
    """What answers."""
    found = app.extensions["loader"].get_state()
    assert isinstance(found, Ready)
    return found


@pytest.fixture(scope="module")
def known(app: Flask, state: Ready) -> list[CatalogueImage]:
    """The validation images that were entered."""
    return find_validation_images(app.extensions["sessions"], state.version.dataset_id)


@pytest.fixture(scope="module")
def first(app: Flask, page: Page) -> tuple[Any, Any]:
    """The page with the placeholder of a figure, then the figure that it is filled with."""
    client = app.test_client()
    frame = page(client.get(f"/figure-4?draw={DRAW}"))
    waiting = frame.one("figure", "plate").attributes["data-from"]
    return frame, page(client.get(waiting)).one("figure", "plate")


@pytest.fixture
def shown(first: tuple[Any, Any]) -> Any:
    """The figure."""
    return first[1]


def ids(links: list[Any]) -> list[int]:
    """The images that links lead to."""
    return [int(link.attributes["href"].rsplit("/", 1)[1]) for link in links]


def left_of(figure: Any) -> list[int]:
    """The images on the left."""
    return ids([cell.all("a")[0] for cell in figure.one("ul", "labelled").children])


def right_of(figure: Any) -> list[int]:
    """The images in the first column on the right."""
    return ids([row.all("a")[0] for row in figure.one("ol", "retrievals").children])


def test_each_image_has_its_label_and_the_five_most_probable(
    app: Flask, shown: Any, known: list[CatalogueImage]
) -> None:
    cells = shown.one("ul", "labelled").children
    labels = {one.id: one.label for one in known}
    files = {one.id: one.file for one in known}
    assert len(cells) == 8
    for image, cell in zip(left_of(shown), cells, strict=True):
        assert cell.one("p", "truth").text == labels[image]
        data = files[image].read_bytes()
        ready, sessions = app.extensions["loader"].require_ready(), app.extensions["sessions"]
        alone = classify_image(ready, sessions, data)[0].top5
        bars = cell.one("ol").all("li")
        assert [bar.one("span", "label").text for bar in bars] == [one.label for one in alone]
        widths = [float(bar.one("rect", "fill").attributes["width"][:-1]) for bar in bars]
        assert widths == pytest.approx([100 * one.probability for one in alone], abs=0.02)


def test_a_bar_is_red_where_and_only_where_its_label_is_the_correct_one(shown: Any) -> None:
    red = Counter()
    for cell in shown.one("ul", "labelled").children:
        correct = cell.one("p", "truth").text
        for bar in cell.one("ol").all("li"):
            is_red = bar.attributes.get("class") == "correct"
            assert is_red == (bar.one("span", "label").text == correct)
            red[correct] += is_red
    # The weights of the tests never say grass: its images have five bars and none is red.
    assert red["grass"] == 0
    assert sum(red.values()) == 8 - sum(
        cell.one("p", "truth").text == "grass" for cell in shown.one("ul", "labelled").children
    )


def test_the_neighbours_equal_a_brute_force_search(
    state: Ready, known: list[CatalogueImage], shown: Any
) -> None:
    every = np.array(state.index.id_map.ids)
    features = state.index.read_features(every.tolist()).astype(np.float64)
    files = {one.id: one.file for one in known}
    rows = shown.one("ol", "retrievals").children
    assert len(rows) == 5
    for image, row in zip(right_of(shown), rows, strict=True):
        own = state.predictor.extract_features(read_square(files[image])[None])[0]
        distances = np.sqrt(np.square(features - own).sum(1))
        nearest = row.one("ol", "nearest").all("a")
        said = [float(a.one("img").attributes["alt"].rsplit(" ", 1)[1]) for a in nearest]
        assert said == pytest.approx(np.sort(distances)[:6], abs=0.06, rel=0.01)
        place = {int(number): i for i, number in enumerate(every)}
        assert [distances[place[near]] for near in ids(nearest)] == pytest.approx(
            np.sort(distances)[:6], rel=1e-4
        )


def test_a_number_always_draws_the_same_images_spread_over_classes(
    client: FlaskClient, page: Page, known: list[CatalogueImage]
) -> None:
    def drawn_by(query: str) -> tuple[list[int], list[int]]:
        figure = page(client.get(f"/figure-4{query}")).one("figure", "plate")
        return left_of(figure), right_of(figure)

    first = drawn_by("")
    assert drawn_by("?draw=1") == drawn_by("?draw=01") == first
    assert len({str(drawn_by(f"?draw={n}")) for n in (1, 2, 3, 10**17)}) == 4
    classes = {one.id: one.class_id for one in known}
    assert len({classes[image] for image in first[0]}) == CLASSES
    assert len(set(first[0])) == 8
    # Of the twelve there are four stand only on the right.
    assert len(set(first[1]) - set(first[0])) == 4


def test_the_draw_does_not_depend_on_ids_or_order(known: list[CatalogueImage]) -> None:
    ways = [draw_selection(some, 5, lambda one: True) for some in (known, known[::-1])]
    assert ways[0].ids == ways[1].ids


def test_the_placeholder_comes_at_once_and_the_content_is_cached(
    first: tuple[Any, Any], client: FlaskClient, page: Page
) -> None:
    frame, whole = first
    empty = frame.one("figure", "plate")
    (forward,) = (m for m in frame.all("meta") if "http-equiv" in m.attributes)
    assert forward.attributes["content"] == f"0; url={empty.attributes['data-from']}"
    assert len(empty.all("span", "blank")) == 30
    assert not empty.all("rect", "fill")
    assert "data-from" not in whole.attributes
    assert (left_of(whole), right_of(whole)) == (left_of(empty), right_of(empty))
    again = page(client.get(f"/figure-4?draw={DRAW}")).one("figure", "plate")
    assert len(again.all("rect", "fill")) == len(whole.all("rect", "fill")) == 40


def test_the_caption_names_the_data(shown: Any, photographs: Path) -> None:
    caption = shown.one("figcaption").text
    assert re.search(rf"eight validation images\b.*\b{re.escape(photographs.name)}\b", caption)
    assert re.search(r"five validation images\b.*\bfc7\b", caption)
    assert re.search(rf"{re.escape(photographs.name)} for 2 epochs", caption)


def test_images_can_be_chosen(client: FlaskClient, page: Page, known: list[CatalogueImage]) -> None:
    numbers = [one.id for one in known][::-1]
    left, right = numbers[:8], numbers[5:10]
    query = "&".join([*(f"image={n}" for n in left), *(f"row={n}" for n in right)])
    answer = page(client.get(f"/figure-4?{query}"))
    figure = answer.one("figure", "plate")
    assert left_of(figure) == left
    assert right_of(figure) == right
    (choose,) = (a for a in answer.all("a") if "/figure-4/choose" in a.attributes["href"])
    boxes = page(client.get(choose.attributes["href"])).all("input")
    checked = {(b.attributes["name"], int(b.attributes["value"])) for b in boxes if on(b)}
    assert checked == {*(("image", n) for n in left), *(("row", n) for n in right)}
    alone = page(client.get(f"/figure-4?{query.split('&row')[0]}"))
    assert right_of(alone.one("figure", "plate")) == left[:5]


def on(box: Any) -> bool:
    """Whether a box is checked."""
    return "checked" in box.attributes


@pytest.mark.parametrize(
    ("choice", "named"),
    [
        ([1, 2, 3], r"\beight images\b.*\bthree images\b"),
        ([1, 2, 3, 4, 5, 6, 7, 8, 9], r"\beight images\b.*\bnine images\b"),
        ([1, 1, 2, 3, 4, 5, 6, 7], r"\bleft\b"),
        (["train", 1, 2, 3, 4, 5, 6, 7], r"“\d+”"),
        (["x<b>", 1, 2, 3, 4, 5, 6, 7], "“x<b>”"),
        (["9" * 99, 1, 2, 3, 4, 5, 6, 7], f"“{'9' * 20}”"),
    ],
)
def test_a_wrong_choice_is_refused_and_stays_checked(
    client: FlaskClient,
    page: Page,
    known: list[CatalogueImage],
    shown: Any,
    choice: list[int | str],
    named: str,
) -> None:
    train = ids(shown.one("ol", "retrievals").children[0].one("ol", "nearest").all("a"))[0]
    names = [train if n == "train" else known[n].id if isinstance(n, int) else n for n in choice]
    for address in ("/figure-4", "/figure-4/choose"):
        answer = client.get(address, query_string={"image": names})
        assert answer.status_code == 400
        assert re.search(named, page(answer).one("div", "message").text)
    kept = {int(b.attributes["value"]) for b in page(answer).all("input") if on(b)}
    assert kept == {n for n in names if n in {one.id for one in known}}
    assert client.get("/figure-4.png", query_string={"image": names}).status_code == 400


def test_a_selection_needs_images_on_the_left(
    client: FlaskClient, page: Page, known: list[CatalogueImage]
) -> None:
    answer = client.get("/figure-4", query_string={"row": [one.id for one in known[:5]]})
    assert answer.status_code == 400
    assert page(answer).one("div", "message")


@pytest.mark.parametrize("draw", ["-1", "x", "1.5", "", "٣", "1" * 30])
def test_an_invalid_number_is_not_found(client: FlaskClient, draw: str) -> None:
    for address in ("/figure-4", "/figure-4.svg", "/figure-4/choose"):
        assert client.get(address, query_string={"draw": draw}).status_code == 404


def test_the_files_are_complete_and_ready_for_print(
    app: Flask, shown: Any, photographs: Path
) -> None:
    red = len(shown.one("ul", "labelled").all("li", "correct"))

    def get(kind: str) -> Any:
        return app.test_client().get(f"/figure-4.{kind}?draw={DRAW}")

    # At the same time, as two readers may.
    with ThreadPoolExecutor(2) as pool:
        png, svg = pool.map(get, ("png", "svg"))
    for answer, kind in ((png, "png"), (svg, "svg")):
        assert answer.headers["Content-Disposition"] == (
            f"attachment; filename=figure-4-{photographs.name}-{DRAW}.{kind}"
        )
        again = app.test_client().get(
            f"/figure-4.{kind}?draw={DRAW}", headers={"If-None-Match": answer.headers["ETag"]}
        )
        assert again.status_code == 304
    check_png(png.data)
    check_svg(svg.data, shown, red)


def check_png(data: bytes) -> None:
    """It is as wide as two columns of print at 300 dots an inch, on white, with red in it."""
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "PNG"
        dots = picture.info["dpi"][0]
        assert dots == pytest.approx(300, abs=0.01)
        assert picture.width / dots == pytest.approx(7.22, abs=0.01)
        pixels = np.array(picture.convert("RGB"))
        assert "fc7" in picture.info["Description"]
    for edge in (pixels[:4], pixels[-4:], pixels[:, :4], pixels[:, -4:]):
        assert (edge == 255).all()
    assert (pixels == [0xB3, 0x26, 0x1E]).all(2).any()


def check_svg(data: bytes, shown: Any, red: int) -> None:
    """It holds every picture and every label, as text, and one red bar for each red one shown."""
    root = ElementTree.fromstring(data)
    words = [text.text or "" for text in root.iter(f"{SVG}text")]
    cells = shown.one("ul", "labelled").children
    said = [cell.one("p", "truth").text for cell in cells]
    said += [label.text for cell in cells for label in cell.all("span", "label")]
    whole = {word: next(s for s in said if s.startswith(word.rstrip("…"))) for word in words}
    assert Counter(whole[word] for word in words) == Counter(said)
    assert all(len(word) > 16 for word in words if word.endswith("…"))
    places = [picture.get(f"{XLINK}href", "") for picture in root.iter(f"{SVG}image")]
    assert len(places) == 8 + 5 * 7
    assert all(place.startswith("data:image/jpeg;base64,") for place in places)
    filled = [path.get("style", "") for path in root.iter(f"{SVG}path")]
    assert sum(f"fill: {RED}" in style for style in filled) == red
    described = root.find(f"{SVG}desc")
    assert described is not None
    assert "fc7" in (described.text or "")
    assert not re.search(rb"(?:href|src)=\"https?:|url\(['\"]?https?:", data)


def test_fonts_are_chosen_to_cover_every_script() -> None:
    assert choose_fonts(["<b>coffee & cream</b>", "трава"]) == ["serif", "DejaVu Sans"]
    chosen = choose_fonts(["草"])
    have = [font for font in fontManager.ttflist if ord("草") in read_font_characters(font)]
    assert len(chosen) == (3 if have else 2)
    assert not have or chosen[-1] in {font.name for font in have}


def test_changed_files_are_skipped_few_make_a_small_figure_and_none_a_notice(
    shop: Any, open_app: Callable[..., Flask], page: Page
) -> None:
    changed, moved = (shop.photographs / f"val/coffee/0{n}.jpg" for n in (0, 1))
    Image.new("RGB", (40, 40)).save(changed)
    moved.unlink()
    client = open_app(shop.settings).test_client()
    answer = page(client.get("/figure-4"))
    figure = answer.one("figure", "plate")
    assert len(left_of(figure)) == len(set(left_of(figure))) == 4
    assert len(right_of(figure)) == 4
    assert "four validation images" in answer.one("div", "lead").text
    boxes = page(client.get("/figure-4/choose")).all("input")
    numbers = {int(b.attributes["value"]) for b in boxes if b.attributes["name"] == "image"}
    refused = client.get("/figure-4", query_string={"image": sorted(numbers)})
    assert len(numbers) == 5
    assert refused.status_code == 400
    assert re.search(r"image \d+", page(refused).one("div", "message").text)
    files = sorted((shop.photographs / "val").rglob("*.jpg"))
    files.remove(changed)
    for file in [changed, *files[1:-1]]:
        file.unlink()
    answer = page(client.get("/figure-4?wait=1"))
    figure = answer.one("figure", "plate")
    assert len(left_of(figure)) == len(right_of(figure)) == 2
    assert "two validation images" in figure.one("figcaption").text
    with Image.open(io.BytesIO(client.get("/figure-4.png").data)) as picture:
        assert picture.width == 2166
    for file in (files[0], files[-1]):
        file.unlink()
    notice = client.get("/figure-4")
    assert notice.status_code == 200
    assert page(notice).one("code").text == "flask index build"
    assert client.get("/figure-4.png").status_code == 404
    assert page(client.get("/figure-4/choose")).all("form") == []


def test_without_weights_or_index_the_page_says_so(empty: FlaskClient, page: Page) -> None:
    assert "training/run.py" in page(empty.get("/figure-4")).one("code").text


def test_an_uploaded_validation_image_is_recognised(
    client: FlaskClient, page: Page, send: Any, known: list[CatalogueImage]
) -> None:
    rocket = [one for one in known if one.label == "rocket"][-1]
    answer = page(client.get(send(rocket.file.read_bytes(), "sent.jpg").location))
    assert "rocket" in answer.text


def test_a_selection_has_as_many_images_as_there_are(known: list[CatalogueImage]) -> None:
    some = known[:3]
    choice = pick_selection(some, [str(one.id) for one in some], [], lambda one: True)
    assert choice.ids == (tuple(one.id for one in some),) * 2
    with pytest.raises(SelectionError, match=r"three images.*two images"):
        pick_selection(some, [str(one.id) for one in some[:2]], [], lambda one: True)
    assert draw_selection([], 1, lambda one: True).left == ()


def test_the_correct_class_is_found_by_folder_not_by_label(
    state: Ready, known: list[CatalogueImage]
) -> None:
    brick = next(one for one in known if one.path.split("/")[1] == "brick")
    shares = np.array([0.1, 0.4, 0.2, 0.15, 0.05, 0.1], np.float32)
    renamed = replace(brick, label="masonry")
    assert [bar.correct for bar in list_top_bars(state.predictor, shares, renamed)] == [
        *(True, False, False, False, False)
    ]
    other = replace(brick, label="brick", path="val/elsewhere/1.jpg")
    assert not any(bar.correct for bar in list_top_bars(state.predictor, shares, other))
