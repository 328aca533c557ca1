"""What each page shows."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from app.config import Settings
from index.store import read_current_version

Page = Callable[[TestResponse], Any]
COFFEE = "<b>coffee & cream</b>"


def numbers(element: Any) -> list[float]:
    """The numbers written in an element's tabular figures."""
    return [float(re.sub(r"[^\d.]", "", n.text)) for n in element.all("span", "number")]


def first_image(client: FlaskClient, page: Page, label: str = "tabby cat") -> int:
    """The id of the first training image of a class, found by its link."""
    overview = page(client.get("/explore"))
    (shelf,) = (
        s for s in overview.all("section", "class-row") if s.one("h2").text.strip() == label
    )
    return int(shelf.all("a", "tile")[0].attributes["href"].rsplit("/", 1)[1])


def test_the_first_page_takes_an_image_and_offers_three_examples(client, page):
    shown = page(client.get("/"))
    assert shown.one("form", "upload").attributes["enctype"] == "multipart/form-data"
    accepted = next(p for p in shown.all("p") if p.attributes.get("id") == "accepted").text
    assert {"JPEG", "PNG", "WebP", "1 MB", "2 megapixels"} <= set(
        re.findall(r"JPEG|PNG|WebP|\d+ (?:MB|megapixels)", accepted)
    )
    assert len(shown.all("button", "example")) == 3
    assert all(f.attributes["method"] == "post" for f in shown.all("form"))


def test_an_upload_leads_to_a_page_of_its_own(client, page, send, jpeg):
    sent = send(jpeg)
    assert sent.status_code == 303
    assert re.fullmatch(r"/results/[\w-]{22}", sent.location)
    shown = page(client.get(sent.location))
    bars = shown.one("ol", "bars").all("li")
    shares = numbers(shown.one("ol", "bars"))
    assert len(bars) == 5
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.3)
    first, second = (bar.one("span", "label").text for bar in bars[:2])
    sureness = client.get(sent.location.replace("/results", "/api/results")).get_json()["sureness"]
    # Of an untrained network, the first label is right less than every second time.
    assert sureness["verdict"] == "unsure"
    assert shown.one("h1").text == f"Unsure: {first} or {second}?"
    scaled = shown.one("details", "calibrated").one("tbody").all("tr")
    assert [row.one("th").text for row in scaled] == [b.one("span", "label").text for b in bars]
    assert "cat.jpg" in shown.text
    assert "300 × 200" in shown.text


def test_the_answer_names_six_neighbours_and_links_them(client, page, send, jpeg):
    shown = page(client.get(send(jpeg).location))
    tiles = shown.one("ol", "neighbours").all("a", "tile")
    distances = numbers(shown.one("ol", "neighbours"))
    assert len(tiles) == len(distances) == 6
    assert distances == sorted(distances)
    for tile in tiles:
        assert re.fullmatch(r"/images/\d+", tile.attributes["href"])
        assert client.get(tile.attributes["href"]).status_code == 200
        assert client.get(tile.one("img").attributes["src"]).mimetype == "image/jpeg"


def test_the_answer_unfolds_what_each_of_the_ten_crops_said(client, page, send, jpeg):
    crops = page(client.get(send(jpeg).location)).one("ol", "crops").all("li")
    names = [crop.one("svg").attributes["aria-label"] for crop in crops]
    five = ["top left", "top right", "bottom left", "bottom right", "centre"]
    assert names == five + [f"{name}, mirrored" for name in five]
    edges = [crop.one("rect", "edge").attributes for crop in crops[:5]]
    corners = [(int(edge["y"]) - 1, int(edge["x"]) - 1) for edge in edges]
    # Of 256 pixels this network sees 67.
    assert corners == [(0, 0), (0, 189), (189, 0), (189, 189), (94, 94)]
    assert all("scale(-1 1)" in crop.one("g").attributes["transform"] for crop in crops[5:])


def test_every_visitor_sees_how_long_it_took(client, app, page, send, jpeg):
    location = send(jpeg).location
    for answer in (client.get(location), app.test_client().get(location)):
        times = page(answer).one("p", "times").text.split()
        steps = [word for word in times if word in ("decode", "network", "search", "pixels")]
        assert steps == ["decode", "network", "search", "pixels"]
        assert times.count("ms") == 4
        assert "Set-Cookie" not in answer.headers


def test_the_kept_picture_is_a_jpeg_made_here(client, page, send):
    original = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "a secret description"
    Image.effect_noise((1200, 300), 40).convert("RGB").save(original, "PNG", exif=exif)
    shown = page(client.get(send(original.getvalue(), "noise.png").location))
    kept = client.get(shown.one("div", "input-image").one("img").attributes["src"])
    assert kept.mimetype == "image/jpeg"
    with Image.open(io.BytesIO(kept.data)) as picture:
        assert picture.format == "JPEG"
        assert picture.size == (1024, 256)
        assert not picture.getexif()
    assert b"secret" not in kept.data


def test_an_example_shows_its_correct_label_in_red(client, page):
    form = page(client.get("/")).one("ul", "examples").all("form")[0]
    hidden = form.one("input").attributes
    sent = client.post(form.attributes["action"], data={hidden["name"]: hidden["value"]})
    assert sent.status_code == 303
    shown = page(client.get(sent.location))
    label = form.one("button").one("span", "caption").text.split(": ")[1].strip()
    red = shown.one("ol", "bars").one("li", "correct")
    assert red.one("span", "label").text.startswith(label)


def test_a_training_image_cannot_be_sent_as_an_example(client, page, token):
    image = first_image(client, page)
    answer = client.post(f"/examples/{image}", data={"csrf_token": token})
    assert answer.status_code == 404


@pytest.mark.parametrize("kind", ["thumbnail", "picture"])
def test_pictures_are_asked_about_again_without_being_sent_again(client, page, kind):
    address = f"/images/{first_image(client, page)}/{kind}.jpg"
    first = client.get(address)
    assert first.mimetype == "image/jpeg"
    again = client.get(address, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert client.get(address, headers={"If-None-Match": '"another"'}).status_code == 200
    head = client.head(address)
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["ETag"] == first.headers["ETag"]
    assert head.headers["Content-Length"] == first.headers["Content-Length"]


def test_only_an_address_that_names_its_version_is_kept_for_long(client, page):
    shown = page(client.get("/explore"))
    image = shown.all("a", "tile")[0].one("img").attributes
    assert "immutable" in client.get(image["src"]).headers["Cache-Control"]
    bare = urlsplit(image["src"]).path
    for other in (bare, f"{bare}?v=0"):
        kept = client.get(other).headers["Cache-Control"]
        assert set(kept.split(", ")) == {"private", "no-cache"}


def test_a_thumbnail_is_what_the_network_sees(client, page):
    answer = client.get(f"/images/{first_image(client, page)}/thumbnail.jpg")
    with Image.open(io.BytesIO(answer.data)) as picture:
        assert picture.size == (256, 256)


@pytest.mark.parametrize("damage", ["gone", "changed", "broken"])
def test_a_training_file_that_no_longer_serves_is_not_found(
    client, page, photographs: Path, damage
):
    image = first_image(client, page, "astronaut")
    file = photographs / "train" / "astronaut" / "00.jpg"
    before = file.read_bytes()
    other = (photographs / "train" / "coffee" / "00.jpg").read_bytes()
    try:
        file.unlink()
        if damage != "gone":
            file.write_bytes(other if damage == "changed" else before[:100])
        assert client.get(f"/images/{image}/thumbnail.jpg").status_code == 404
        assert client.get(f"/images/{image}/picture.jpg").mimetype == "image/svg+xml"
        shown = client.get(f"/images/{image}")
        assert shown.status_code == 404
        assert str(photographs) not in shown.get_data(as_text=True)
        assert client.get("/explore").status_code == 200
    finally:
        file.write_bytes(before)


def test_every_image_on_a_page_has_its_size_and_a_text(client, page, send, jpeg):
    image = first_image(client, page)
    answered = send(jpeg).location
    for address in ("/", "/explore", f"/images/{image}", answered, "/filters"):
        for picture in page(client.get(address)).all("img"):
            assert {"alt", "width", "height"} <= set(picture.attributes)


def test_new_indexes_are_served_without_a_restart_or_an_empty_page(
    settings: Settings, open_app: Callable[[Settings], Flask], page: Page
):
    app = open_app(settings)
    before = app.extensions["loader"].get_state()
    for _ in range(2):  # the second build deletes the version that is still in use here
        assert app.test_cli_runner().invoke(args=["index", "build"]).exit_code == 0
    assert app.extensions["loader"].current is before
    client = app.test_client()
    assert len(page(client.get("/explore")).all("section", "class-row")) == 6
    health = client.get("/healthz").get_json()
    assert health["status"] == "ready"
    assert health["index"] == read_current_version(settings.home.index) != before.version.name


@pytest.mark.parametrize("address", ["/", "/explore", "/filters", "/images/1"])
def test_with_nothing_there_a_page_says_what_to_run(empty: FlaskClient, page, address):
    answer = empty.get(address)
    assert answer.status_code == 200
    shown = page(answer)
    assert shown.one("code").text.startswith("python training/run.py")
    assert "data-copy" in shown.one("div", "command").one("button").attributes


def test_with_nothing_there_an_upload_is_refused_in_words(empty: FlaskClient, page, jpeg):
    answer = empty.post("/api/classify", data={"image": (io.BytesIO(jpeg), "cat.jpg")})
    assert answer.status_code == 503
    assert "python training/run.py" in answer.get_json()["detail"]
    assert empty.get("/results/x").status_code == 404
    assert empty.get("/nothing").status_code == 404


def luminance(colour: str) -> float:
    """The relative luminance of #rrggbb, as WCAG 2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


@pytest.mark.parametrize("scheme", [0, 1])
def test_every_colour_of_text_can_be_read_on_both_grounds(client, scheme):
    sheet = client.get("/static/shared/style.css").get_data(as_text=True)
    tokens = dict(re.findall(r"--([\w-]+): (#\w{6});", sheet.split(":root {")[1 + scheme]))
    for ground in ("ground", "card"):
        for ink in ("ink", "muted", "link", "correct"):
            pair = sorted((luminance(tokens[ground]), luminance(tokens[ink])))
            assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, (ground, ink)
