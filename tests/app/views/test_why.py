"""The page and the API of why an image has a label."""

import io
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image

from app.database.images import find_images
from model.image.preprocess import decode_square, read_square

Page = Callable[..., Any]
CLASSES = ("astronaut", "brick", "chelsea", "coffee", "grass", "rocket")


@pytest.fixture(scope="module")
def of(app: Flask) -> str:
    """The name, in addresses, of an indexed photograph."""
    return f"image-{int(app.extensions['loader'].get_state().sample.ids[0])}"


@pytest.fixture(scope="module")
def crop(app: Flask, of: str) -> torch.Tensor:
    """What the network sees of it."""
    image_id = int(of.removeprefix("image-"))
    image = find_images(app.extensions["sessions"], [image_id])[image_id]
    return prepare(app, read_square(image.file))


def prepare(app: Flask, square: np.ndarray) -> torch.Tensor:
    """The centre crop of a square as the network's input."""
    predictor = app.extensions["loader"].get_state().predictor
    first = (256 - predictor.config.crop) // 2
    inside = slice(first, first + predictor.config.crop)
    return predictor.prepare_input(square[None])[:, :, inside, inside]


@torch.inference_mode()
def answer_alone(app: Flask, x: torch.Tensor, silenced: int | None) -> torch.Tensor:
    """The softmax with one half of each layer's output set to zero."""
    network = app.extensions["loader"].get_state().predictor.network
    for name, module in network.named_children():
        x = module(x)
        if silenced is not None and re.fullmatch(r"conv\d|fc[67]", name):
            x = x.clone()
            x.chunk(2, dim=1)[silenced].zero_()
    return x.softmax(1)[0]


def test_the_towers_are_those_of_a_network_whose_other_half_is_silent(app, client, page, of, crop):
    told = client.get(f"/api/why?of={of}&label=coffee").json
    truth = [answer_alone(app, crop, silenced)[3].item() for silenced in (None, 1, 0)]
    assert [one["tower"] for one in told["answers"]] == [0, 1, 2]
    assert [one["probability"] for one in told["answers"]] == pytest.approx(truth, abs=1e-5)
    shown = page(client.get(f"/why?of={of}&label=coffee&tower=2"))
    rows = shown.one("ol", "answers").all("li")
    percents = [float(row.one("span", "number").text.split()[-2]) for row in rows]
    assert percents == pytest.approx([100 * one for one in truth], abs=0.06)
    current = [row.one("a").attributes.get("aria-current") for row in rows]
    assert current == [None, None, "true"]
    for picture in shown.all("image"):
        assert client.get(picture.attributes["href"]).status_code == 200


def test_without_a_label_it_is_the_most_probable_one(app, client, page, of, crop):
    best = CLASSES[int(answer_alone(app, crop, None).argmax())]
    assert client.get(f"/api/why?of={of}").json["folder"] == best
    chosen = [
        o for o in page(client.get(f"/why?of={of}")).all("option") if "selected" in o.attributes
    ]
    assert [one.attributes["value"] for one in chosen] == [best]


def test_occlusion_is_what_the_network_says_of_a_covered_image(app, client, of, crop):
    told = client.get(f"/api/why/occlusion?of={of}&label=coffee&part=0").json
    assert (told["side"], told["parts"], len(told["cells"])) == (27, 10, 81)
    assert told["uncovered"] == pytest.approx(answer_alone(app, crop, None)[3].item(), abs=1e-5)
    (cell,) = [one for one in told["cells"] if (one["row"], one["column"]) == (13, 4)]
    side, place = crop.shape[-1], [round((at + 0.5) * crop.shape[-1] / 27) for at in (13, 4)]
    covered, half = crop.clone(), round(side / 4) / 2
    top, left = (round((at + 0.5) * side / 27 - half) for at in (13, 4))
    assert top + half == pytest.approx(place[0], abs=1)
    size = round(side / 4)
    covered[:, :, max(0, top) : top + size, max(0, left) : left + size] = 0
    truth = answer_alone(app, covered, None)[3].item()
    assert cell["probability"] == pytest.approx(truth, abs=1e-5)
    picture = client.get(f"/why/occlusion.png?of={of}&label=coffee")
    with Image.open(io.BytesIO(picture.data)) as opened:
        shade = np.asarray(opened.convert("RGBA"))[8::16, 8::16, 3].astype(float)
    drop = told["uncovered"] - np.array([c["probability"] for c in told["cells"]]).reshape(9, 9)
    assert shade.shape == (9, 9)
    assert shade.argmin() == drop.argmax()


def test_a_strip_refines_three_rows(client, of):
    told = client.get(f"/api/why/occlusion?of={of}&label=coffee&part=9").json
    places = [(cell["row"], cell["column"]) for cell in told["cells"]]
    assert places == [(row, column) for row in (24, 25, 26) for column in range(27)]


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/why?of={of}&label=nothing", 404),
        ("/why?of={of}&tower=3", 404),
        ("/why?of={of}&tower=x", 404),
        ("/why?of=image-0", 404),
        ("/why/grad-cam.png", 404),
        ("/why/guided.png?of={of}&label=nothing", 404),
        ("/api/why", 422),
        ("/api/why?of=nothing", 404),
        ("/api/why/occlusion?of={of}&part=10", 422),
        ("/api/why/occlusion?of={of}&tower=-1", 404),
    ],
)
def test_what_does_not_exist_is_not_explained(client: FlaskClient, of: str, address, status):
    assert client.get(address.format(of=of)).status_code == status


def test_results_and_images_lead_there(client, page, uploader, of):
    token = uploader.token
    for address in (f"/results/{token}", f"/images/{of.removeprefix('image-')}"):
        shown = page(uploader.client.get(address))
        (link,) = [a for a in shown.all("a") if a.attributes["href"].startswith("/why?")]
        explained = page(client.get(link.attributes["href"]))
        # The most probable label, also where the answer is not sure of it.
        label = link.attributes["href"].rpartition("label=")[2]
        assert f"Why “{label}”?" in explained.one("h1").text
        if address.startswith("/results"):
            assert label in shown.one("h1").text
    private = client.get(f"/why/grad-cam.png?of={token}").headers["Cache-Control"]
    assert "no-cache" in private
    square = decode_square(client.get(f"/results/{token}/picture.jpg").data)
    assert square.shape == (256, 256, 3)


def test_without_an_image_there_are_examples(client, page):
    links = [a.attributes["href"] for a in page(client.get("/why")).one("ul", "three").all("a")]
    assert len(links) == 3
    assert page(client.get(links[0])).one("section", "section")


def test_a_picture_the_browser_has_is_not_sent_again(client, of):
    first = client.get(f"/why/guided.png?of={of}&label=coffee")
    again = client.get(
        f"/why/guided.png?of={of}&label=coffee", headers={"If-None-Match": first.headers["ETag"]}
    )
    assert (again.status_code, again.data) == (304, b"")
    other = client.get(f"/why/guided.png?of={of}&label=brick")
    assert other.headers["ETag"] != first.headers["ETag"]
