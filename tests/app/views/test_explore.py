"""The training images: by class, page by page, and one by one."""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select
from werkzeug.test import TestResponse

from app.database.session import read_session
from app.database.tables import Class, Image

Page = Callable[[TestResponse], Any]
COFFEE = "<b>coffee & cream</b>"
NAMES = [COFFEE, "astronaut", "brick", "grass", "rocket", "tabby cat"]


@pytest.fixture(scope="module")
def cats(app: Flask) -> list[int]:
    """The training images of the tabby cat, by path."""
    query = select(Image.id).join(Class).where(Class.label == "tabby cat", Image.split == "train")
    with read_session(app.extensions["sessions"]) as session:
        return list(session.scalars(query.order_by(Image.path)))


@pytest.fixture(scope="module")
def cat_class(app: Flask) -> str:
    """The address of the tabby cats."""
    with read_session(app.extensions["sessions"]) as session:
        return f"/explore/{session.scalar(select(Class.id).where(Class.label == 'tabby cat'))}"


def listed(shown: Any) -> list[str]:
    """The classes that the list of a page shows."""
    entries = shown.one("nav", "classes").all("li")[1:]
    return [li.all("span")[0].text for li in entries if "hidden" not in li.attributes]


def shelves(shown: Any) -> list[str]:
    """The classes whose images a page shows a row of."""
    return [shelf.one("h2").text.strip() for shelf in shown.all("section", "class-row")]


def tiles(shown: Any) -> list[str]:
    """The addresses of the images on a page."""
    return [a.attributes["href"] for a in shown.all("a", "tile")]


def leading(shown: Any, relation: str) -> str:
    """The address of the page before or after, or nothing."""
    links = (a.attributes for a in shown.all("a"))
    return next((link["href"] for link in links if link.get("rel") == relation), "")


def test_explore_shows_each_class_with_its_count(client: FlaskClient, page: Page) -> None:
    shown = page(client.get("/explore"))
    links = shown.one("nav", "classes").all("a")
    words = {a.all("span")[0].text: a.one("span", "number").text for a in links}
    assert words == {"All classes": "54"} | dict.fromkeys(NAMES, "9")
    assert listed(shown) == shelves(shown) == NAMES
    assert [len(s.all("a", "tile")) for s in shown.all("section", "class-row")] == [6] * 6


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("TÁBBY", ["tabby cat"]),
        (" cat  tabby ", ["tabby cat"]),
        ("c", [COFFEE, "brick", "rocket", "tabby cat"]),
        ("", NAMES),
    ],
)
def test_classes_are_found_by_their_names(
    client: FlaskClient, page: Page, query: str, names: list[str]
) -> None:
    shown = page(client.get("/explore", query_string={"q": query}))
    assert listed(shown) == shelves(shown) == names
    field = shown.one("form", "class-search").all("input")[-1]
    assert field.attributes["value"] == " ".join(query.split())


def test_a_name_that_no_class_has_is_said(client: FlaskClient, page: Page) -> None:
    shown = page(client.get("/explore", query_string={"q": "<zebra>"}))
    assert listed(shown) == shelves(shown) == []
    assert "<zebra>" in shown.one("form", "selection").text


def test_what_was_asked_for_is_kept_from_page_to_page(
    client: FlaskClient, page: Page, cat_class: str
) -> None:
    shown = page(client.get(f"{cat_class}?q=c&classes=images&images=newest"))
    links = [a.attributes["href"] for a in shown.one("nav", "classes").all("a")[1:]]
    for address in [*links, leading(shown, "next")]:
        for told in ("q=c", "classes=images", "images=newest"):
            assert told in address
    fields = {
        i.attributes["name"]: i.attributes for i in shown.one("form", "class-search").all("input")
    }
    assert fields["images"]["value"] == "newest"
    assert listed(page(client.get(links[0]))) == listed(shown)
    usual = page(client.get(f"{cat_class}?images=oddest&classes=&q="))
    assert all("?" not in tile for tile in tiles(usual))
    assert leading(usual, "next") == f"{cat_class}?page=2"


@pytest.mark.parametrize("order", ["name", "newest", "largest", "smallest"])
def test_a_class_is_shown_page_by_page(
    client: FlaskClient, page: Page, cats: list[int], cat_class: str, order: str
) -> None:
    seen, address = [], f"{cat_class}?images={order}"
    while address:
        shown = page(client.get(address))
        seen.append([tile.split("?")[0] for tile in tiles(shown)])
        address = leading(shown, "next")
    assert [len(some) for some in seen] == [4, 4, 1]
    expected = sorted(cats, reverse=order in {"newest", "largest"})
    assert [tile for some in seen for tile in some] == [f"/images/{i}" for i in expected]


def test_a_script_is_given_the_images_alone(client: FlaskClient, page: Page, cat_class) -> None:
    whole = client.get(f"{cat_class}?page=2")
    part = client.get(f"{cat_class}?page=2", headers={"X-Part": "images"})
    assert tiles(page(part)) == tiles(page(whole))
    assert leading(page(part), "next") == leading(page(whole), "next")
    assert listed(page(part)) == []
    assert "X-Part" in whole.headers["Vary"]
    assert "X-Part" in part.headers["Vary"]


@pytest.mark.parametrize("number", ["0", "-1", "4", "1.5", "x", "", "²", "99999999999999999999"])
def test_a_page_that_is_not_there_is_not_found(client, cat_class: str, number: str) -> None:
    for address in (cat_class, "/explore"):
        assert client.get(address, query_string={"page": number}).status_code == 404


def test_an_image_page_names_its_own_label_in_red_and_leads_on(client, page, cats) -> None:
    shown = page(client.get(f"/images/{cats[0]}"))
    assert shown.one("h1", "correct").text == "tabby cat"
    assert "tabby cat" in shown.one("ol", "bars").one("li", "correct").text
    near = [a.attributes["href"] for a in shown.one("ol", "neighbours").all("a", "tile")]
    assert len(near) == 6
    assert f"/images/{cats[0]}" not in {address.split("?")[0] for address in near}
    assert page(client.get(near[0])).one("ol", "neighbours")
    links = {a.attributes["href"] for a in shown.all("a")}
    assert {f"/layers?of=image-{cats[0]}", f"/filters?of=image-{cats[0]}"} <= links


def test_a_label_with_markup_in_it_is_shown_as_it_is(client, page) -> None:
    shelf = page(client.get("/explore?q=coffee")).one("section", "class-row")
    answer = client.get(tiles(shelf)[0])
    assert page(answer).one("h1").text == COFFEE
    assert b"<b>" not in answer.data


def test_an_image_page_describes_the_file(client, page, cats, photographs: Path) -> None:
    facts = page(client.get(f"/images/{cats[1]}")).one("dl", "facts")
    file = photographs / "train/chelsea/01.jpg"
    size = f"{round(file.stat().st_size / 1000)}\u2009kB"
    assert [value.text for value in facts.all("dd")] == ["01.jpg", "120 × 120", size]


@pytest.mark.parametrize("order", ["", "?images=newest"])
def test_one_steps_through_a_class_in_its_order(client, page, cats, order: str) -> None:
    expected = sorted(cats, reverse=True) if order else cats
    shown = page(client.get(f"/images/{expected[3]}{order}"))
    assert leading(shown, "prev") == f"/images/{expected[2]}{order}"
    assert leading(shown, "next") == f"/images/{expected[4]}{order}"
    assert "4 of 9" in shown.text
    back = shown.one("div", "crumb").all("a")[1].attributes["href"]
    assert back.endswith(f"page=1#image-{expected[3]}")
    last = page(client.get(f"/images/{expected[-1]}{order}"))
    assert (leading(last, "next"), leading(last, "prev")) == ("", f"/images/{expected[-2]}{order}")
    assert "page=3#" in last.one("div", "crumb").all("a")[1].attributes["href"]


def test_the_way_from_one_to_the_next_like_it_is_kept(client, page, cats) -> None:
    way, address = [], f"/images/{cats[0]}"
    for _ in range(3):
        way.append(address)
        shown = page(client.get(address))
        address = shown.one("ol", "neighbours").all("a", "tile")[0].attributes["href"]
    shown = page(client.get(address))
    steps = shown.one("nav", "breadcrumb").all("a")
    assert [step.attributes["href"] for step in steps] == way
    assert all(step.one("img").attributes["alt"] for step in steps)
    assert "…" not in shown.one("nav", "breadcrumb").text
    ids = [step.split("/")[2].split("?")[0] for step in way]
    assert address.split("?via=")[1].split(",") == ids
    for kind in ("neighbours", "pixels"):
        for tile in tiles(shown.one("ol", kind)):
            assert tile.split("?via=")[1].split(",")[:-1] == ids


def test_a_long_way_loses_its_first_steps(client, page, cats) -> None:
    via = [cats[n % 9] for n in range(1, 20)]
    shown = page(client.get(f"/images/{cats[0]}?via={','.join(map(str, via))}"))
    steps = shown.one("nav", "breadcrumb").all("a")
    assert [step.attributes["href"].split("?")[0] for step in steps] == [
        f"/images/{image}" for image in via[-12:]
    ]
    assert "…" in shown.one("nav", "breadcrumb").text
    onward = shown.one("ol", "neighbours").all("a", "tile")[0].attributes["href"]
    assert onward.split("?via=")[1] == ",".join(map(str, [*via[-12:], cats[0]]))


@pytest.mark.parametrize("via", ["", ",", "x,-1,0,²,1.5", "4242", "9" * 5000, "99999999999"])
def test_a_way_that_is_none_is_ignored(client, page, cats, via: str) -> None:
    shown = page(client.get(f"/images/{cats[0]}", query_string={"via": via}))
    assert shown.all("nav", "breadcrumb") == []


def test_steps_that_are_none_are_left_out(client, page, cats) -> None:
    shown = page(client.get(f"/images/{cats[0]}?via=x,{cats[1]},4242,{cats[2]},"))
    steps = shown.one("nav", "breadcrumb").all("a")
    assert [step.attributes["href"] for step in steps] == [
        f"/images/{cats[1]}",
        f"/images/{cats[2]}?via={cats[1]}",
    ]


@pytest.mark.parametrize("part", ["", "/thumbnail.jpg", "/picture.jpg"])
def test_an_image_is_decoded_when_it_is_its_turn(app: Flask, cats: list[int], part: str) -> None:
    queue, answers = app.extensions["compute_queue"], []
    asking = threading.Thread(
        target=lambda: answers.append(app.test_client().get(f"/images/{cats[0]}{part}"))
    )
    with ExitStack() as held:
        for _ in range(queue.slots):
            held.enter_context(queue.enter())
        asking.start()
        asking.join(0.3)
        assert asking.is_alive()
    asking.join(60)
    assert answers[0].status_code == 200


def test_all_images_keep_their_place_while_they_load(client, page, cat_class: str) -> None:
    for image in page(client.get(cat_class)).one("ul", "six").all("img"):
        told = image.attributes
        assert (told["loading"], told["width"], told["height"]) == ("lazy", "256", "256")
