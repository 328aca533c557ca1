"""The pages of single units: what excites each most, and the image at hand."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.database.images import find_images
from index.manifest import read_manifest, write_manifest
from index.units import UNITS_FILE, read_units
from model.image.preprocess import read_square
from model.visualization.activations import trace_activations

Page = Callable[..., Any]


@pytest.fixture(scope="module")
def outputs(app: Flask) -> dict[int, list[np.ndarray]]:
    """What each layer computes before its activation, of every indexed image by its id."""
    state = app.extensions["loader"].get_state()
    images = find_images(app.extensions["sessions"], state.sample.ids.tolist())
    return {
        number: state.predictor.runtime.run_layers(read_square(image.file))
        for number, image in images.items()
    }


@pytest.mark.parametrize(("name", "place", "number"), [("conv4", 3, 200), ("fc6", 5, 37)])
def test_the_nine_are_those_with_the_largest_output(
    client, page, outputs, name: str, place: int, number: int
) -> None:
    peaks = {image: layers[place][number - 1].max() for image, layers in outputs.items()}
    best = sorted(peaks, key=lambda image: (-peaks[image], image))[:9]
    listed = page(client.get(f"/layers/{name}/unit/{number}")).one("ol", "exciting").all("li")
    links = [one.one("a").attributes["href"] for one in listed]
    assert links == [f"/images/{image}" for image in best]
    told = [
        float(one.all("span", "number")[0].text.split()[-1].replace("−", "-")) for one in listed
    ]
    assert told == pytest.approx([peaks[image] for image in best], abs=0.06)


def test_the_receptive_field_is_drawn_and_cut_out(client, page, outputs) -> None:
    (first, *_) = page(client.get("/layers/conv2/unit/7")).one("ol", "exciting").all("li")
    image = int(first.one("a").attributes["href"].rsplit("/", 1)[1])
    values = outputs[image][1][6]
    row, column = np.unravel_index(values.argmax(), values.shape)
    # conv2 sees 51 pixels, 8 from one place to the next; its padding of 2 places lies outside.
    margin = (256 - 67) // 2
    left, top = (margin + 8 * at - 2 * 8 for at in (column, row))
    cut, whole = first.all("svg")
    spot = whole.all("rect")[-1].attributes
    assert [float(spot[name]) for name in ("x", "y", "width", "height")] == pytest.approx(
        [left, top, 51, 51]
    )
    assert [float(part) for part in cut.attributes["viewbox"].split()] == pytest.approx(
        [left, top, 51, 51]
    )


def test_a_label_is_a_unit_of_the_last_layer(client, page) -> None:
    shown = page(client.get("/layers/fc8/unit/4"))
    assert "coffee" in shown.one("h1").text
    assert len(shown.one("ol", "exciting").all("li")) == 9


def test_the_response_of_the_image_at_hand_is_drawn(app, uploader, client, page) -> None:
    shown = page(client.get(f"/layers/conv5/unit/1?of={uploader.token}"))
    assert shown.one("div", "aligned-map").all("image")
    links = [a.attributes["href"] for a in shown.all("a") if "/unit/2" in a.attributes["href"]]
    assert links == [f"/layers/conv5/unit/2?of={uploader.token}"]
    state = app.extensions["loader"].get_state()
    assert trace_activations(state.predictor, np.zeros((256, 256, 3), np.uint8))


@pytest.mark.parametrize(
    "address", ["conv9/unit/1", "conv4/unit/385", "fc8/unit/7", "conv4/unit/0"]
)
def test_there_are_no_other_units(client: FlaskClient, address: str) -> None:
    assert client.get(f"/layers/{address}").status_code == 404


def test_layers_lead_to_their_units(client, page, uploader) -> None:
    for name in ("conv3", "fc7"):
        shown = page(client.get(f"/layers/{name}?of={uploader.token}"))
        assert any(f"/layers/{name}/unit/" in a.attributes["href"] for a in shown.all("a"))


def test_an_older_index_gets_its_units_by_a_command(shop, open_app, page) -> None:
    manifest = read_manifest(shop.version)
    built = read_units(shop.version, manifest)
    assert built is not None
    (shop.version / UNITS_FILE).unlink()
    without = {name: sealed for name, sealed in manifest.files.items() if name != UNITS_FILE}
    write_manifest(replace(manifest, files=without), shop.version)
    client = open_app(shop.settings).test_client()
    assert page(client.get("/layers/conv3/unit/1")).one("code").text == "flask index look"
    assert shop.run("look").exit_code == 0
    found = read_units(shop.version, read_manifest(shop.version))
    assert found is not None
    assert np.array_equal(found.ids, built.ids)
    assert np.array_equal(found.places, built.places)
    assert shop.run("verify").exit_code == 0
    assert shop.run("look").output.strip() == "Nothing to add."
