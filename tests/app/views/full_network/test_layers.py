"""The pages of what each layer computes of an image."""

import io
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image

from app.uploads.results import delete_result
from model.image.preprocess import CENTRE_CROP, decode_square
from model.network.alexnet import AlexNet
from model.network.architectures import VARIANTS
from model.visualization.feature_maps import MIN_INK
from model.weights.checkpoint import load_weights

Page = Callable[..., Any]
Maps = dict[str, np.ndarray]
NAMES = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"]


@pytest.fixture
def token(uploader: Any) -> str:
    """The token of an image that was classified."""
    return str(uploader.token)


@pytest.fixture(scope="module")
def square(uploader: Any) -> np.ndarray:
    """The image as the network sees it."""
    return decode_square(uploader.client.get(f"/results/{uploader.token}/picture.jpg").data)


@pytest.fixture(scope="module")
def truth(app: Flask, square: np.ndarray) -> Maps:
    """Every layer's maps by hooks on the network's modules, after the ReLU."""
    predictor, seen = app.extensions["loader"].get_state().predictor, {}
    hooks = [
        module.register_forward_hook(
            lambda _, __, out, name=name: seen.update({name: out[0].clamp(min=0).numpy()})
        )
        for name, module in predictor.network.named_children()
        if name in NAMES
    ]
    with torch.inference_mode():
        predictor.network(predictor.prepare_input(square[None])[:, :, 16:240, 16:240])
    for hook in hooks:
        hook.remove()
    return seen


def ink_at(client: FlaskClient, address: str) -> np.ndarray:
    """The ink of a picture of maps."""
    answer = client.get(address)
    assert answer.mimetype == "image/png"
    with Image.open(io.BytesIO(answer.data)) as picture:
        return np.asarray(picture.convert("LA"))[..., 1].astype(float)


def inked(values: np.ndarray, largest: float) -> np.ndarray:
    """The ink that values have."""
    return MIN_INK + (255 - MIN_INK) * np.sqrt(values / largest)


def cells(ink: np.ndarray, side: int, scale: int, gap: int, columns: int) -> np.ndarray:
    """The maps of a picture, a value for each square of it: [N, side, side]."""
    cell = side * scale + gap
    rows = ink.reshape(len(ink) // cell, cell, columns, cell).swapaxes(1, 2)
    return rows.reshape(-1, cell, cell)[:, scale // 2 : side * scale : scale, scale // 2 :][
        :, :, : side * scale : scale
    ][:, :side, :side]


def test_the_layers_follow_each_other_with_their_shapes(client, page, token):
    shown = page(client.get(f"/layers?of={token}"))
    layers = shown.all("section", "layer")
    assert [layer.one("h2").text for layer in layers] == NAMES
    shapes = [
        [f.all("span", "number")[0].text for f in layer.all("figcaption")] for layer in layers
    ]
    assert shapes == [
        ["55 × 55 × 48"] * 2,
        ["27 × 27 × 128"] * 2,
        ["13 × 13 × 192"] * 2,
        ["13 × 13 × 192"] * 2,
        ["13 × 13 × 128"] * 2,
        ["2,048"] * 2,
        ["2,048"] * 2,
    ]
    about = {layer.one("h2").text: layer.one("div", "about") for layer in layers}
    numbers = {name: [n.text for n in part.all("span", "number")] for name, part in about.items()}
    assert numbers["conv1"] == ["11 × 11 × 3", "11 × 11", "27 × 27 × 48"]
    assert numbers["conv5"] == ["3 × 3 × 192", "163 × 163", "6 × 6 × 128"]
    assert numbers["fc6"] == ["9,216"]
    both = [name for name, part in about.items() if "both GPUs" in part.text]
    assert both == ["conv3", "fc6", "fc7"]


def test_lines_cross_only_where_the_towers_meet(client, page, token):
    shown = page(client.get(f"/layers?of={token}")).one("div", "lanes")
    order = [e for e in shown.all() if e.tag in ("h2", "svg")]
    crossed = []
    for before, after in pairwise(order):
        if before.tag == "svg":
            sides = [(x["x1"], x["x2"]) for x in (a.attributes for a in before.all("line"))]
            crossing = [start != end for start, end in sides]
            assert crossing in ([False, False], [False, False, True, True])
            crossed += [after.text] * any(crossing)
    assert crossed == ["conv3", "fc6", "fc7"]
    assert len(shown.all("p", "exchange")) == 3


def test_the_maps_are_those_of_each_tower_against_the_layers_largest(client, page, token, truth):
    shown = page(client.get(f"/layers?of={token}"))
    laid = {"conv1": (55, 2, 2, 8), "conv2": (27, 2, 2, 16), "conv3": (13, 4, 2, 16)} | {
        **dict.fromkeys(("conv4", "conv5"), (13, 4, 2, 16)),
        **dict.fromkeys(("fc6", "fc7"), (1, 14, 0, 64)),
    }
    for layer in shown.all("section", "layer"):
        name = layer.one("h2").text
        values = truth[name].reshape(len(truth[name]), laid[name][0], laid[name][0])
        for half, figure in zip(np.split(values, 2), layer.all("figure"), strict=True):
            image = figure.one("img").attributes
            ink = ink_at(client, image["src"])
            assert ink.shape == (int(image["height"]), int(image["width"]))
            found = cells(ink, *laid[name])
            assert np.abs(found - inked(half, values.max())).max() <= 2.5, name
            told = float(figure.one("figcaption").all("span", "number")[1].text.split()[-1])
            assert told == pytest.approx(half.max(), rel=0.006)


def test_the_labels_are_those_of_the_centre_crop_alone(app, client, page, token, square):
    shown = page(client.get(f"/layers?of={token}")).one("section", "labels")
    predictor = app.extensions["loader"].get_state().predictor
    expected = predictor.top5(predictor.predict(square).crop_probabilities[CENTRE_CROP])
    labels = [li.one("span", "label").text for li in shown.one("ol", "bars").all("li")]
    shares = [float(li.one("span", "number").text.strip("<\u2009% ")) for li in shown.all("li")]
    assert labels == [guess.label for guess in expected]
    assert shares == pytest.approx([100 * guess.probability for guess in expected], abs=0.06)


def test_a_stored_image_has_its_own_label_in_red(client, page):
    example = page(client.get("/layers")).one("ul", "three").all("a")[1]
    label = example.one("span", "caption").text.split(": ")[1]
    shown = page(client.get(example.attributes["href"]))
    red = [li.one("span", "label").text for li in shown.all("li", "correct")]
    assert len(red) <= 1
    assert all(text.startswith(label) for text in red)


def test_every_map_of_a_layer_is_a_link_with_its_maximum(client, page, token, truth):
    shown = page(client.get(f"/layers/conv3?of={token}"))
    peaks = truth["conv3"].reshape(384, -1).max(1)
    links = [a for block in shown.all("div", "maps") for a in block.all("a")]
    assert [a.attributes["href"] for a in links] == [
        f"/layers/conv3?map={n}&of={token}" for n in range(1, 385)
    ]
    for number, (link, peak) in enumerate(zip(links, peaks, strict=True), 1):
        told = re.fullmatch(r"\D+(\d+)\D+(\d+\.\d+)", link.text)
        assert int(told[1]) == number
        assert float(told[2]) == pytest.approx(peak, abs=0.006)
    (current,) = [a for a in links if "aria-current" in a.attributes]
    assert current is links[int(peaks.argmax())]
    large = shown.all("div", "maps")[1].one("img").attributes["src"]
    found = cells(ink_at(client, large), 13, 10, 2, 8)
    assert np.abs(found - inked(truth["conv3"][192:], peaks.max())).max() <= 2.5


def test_a_map_is_aligned_with_the_image_by_receptive_field(client, page, token, truth):
    number = int(truth["conv5"].reshape(256, -1).max(1).argsort()[-2]) + 1
    values = truth["conv5"][number - 1]
    shown = page(client.get(f"/layers/conv5?map={number}&of={token}")).one("section", "single-map")
    row, column = np.unravel_index(values.argmax(), values.shape)
    assert f"row {row + 1}, column {column + 1} of 13 × 13" in shown.text
    place = shown.one("svg", "ink").one("image").attributes
    # A place of conv5 sees 163 pixels about its middle, and lies 16 from the next.
    assert float(place["x"]) + 8 == pytest.approx(16 + 17.5)
    assert float(place["width"]) == 13 * 16
    spot = shown.one("svg", "subject").all("rect", "spot")[-1].attributes
    left = max(16 + 17.5 + 16 * column - 81.5, 1)
    assert float(spot["x"]) == left
    assert float(spot["width"]) == min(16 + 17.5 + 16 * column + 81.5, 255) - left
    ink = cells(ink_at(client, place["href"]), 13, 34, 0, 1)[0]
    assert np.abs(ink - inked(values, values.max())).max() <= 2.5


def test_the_strongest_neurons_are_listed(client, page, token, truth):
    shown = page(client.get(f"/layers/fc7?of={token}"))
    for tower, block in enumerate(shown.one("div", "enlarged").all("section", "lane")):
        half = truth["fc7"][2048 * tower : 2048 * (tower + 1)]
        rows = block.one("ol", "bars").all("li")
        numbers = [int(r.one("a", "label").one("span").text.replace(",", "")) for r in rows]
        values = [float(row.all("span", "number")[-1].text) for row in rows]
        assert numbers == [2048 * tower + int(i) + 1 for i in np.argsort(-half)[:10]]
        assert values == pytest.approx(np.sort(half)[::-1][:10].tolist(), abs=0.006)


@pytest.mark.parametrize(
    "address",
    ["fc8", "relu1", "nothing", "conv3?map=0", "conv3?map=385", "conv3?map=x", "conv3?map=²"],
)
def test_there_are_no_other_layers_or_maps(uploader, address):
    assert uploader.client.get(f"/layers/{address}").status_code == 404


@pytest.mark.parametrize("name", ["tower-3", "large-0", "large-9", "map-385", "map-x", "tower-"])
def test_there_are_no_other_pictures(client, token, name):
    assert client.get(f"/layers/conv3/tower-2.png?of={token}").status_code == 200
    assert client.get(f"/layers/conv3/{name}.png?of={token}").status_code == 404
    assert client.get(f"/layers/fc6/map-1.png?of={token}").status_code == 404
    assert client.get("/layers/conv3/tower-2.png").status_code == 404
    # Also where no image has been chosen, and nothing is computed.
    assert client.get("/layers/conv9").status_code == 404
    assert client.get("/layers/fc8").status_code == 404


def test_without_an_image_there_are_examples(client, page):
    for address in ("/layers", "/layers/conv2"):
        links = page(client.get(address)).one("ul", "three").all("a")
        assert len(links) == 3
    shown = page(client.get(links[2].attributes["href"]))
    assert len(shown.all("section", "layer")) == 7
    picture = shown.all("figure")[0].one("img").attributes["src"]
    assert "immutable" in client.get(picture).headers["Cache-Control"]


def test_the_current_image_stays_current_without_being_named(uploader, page, token):
    client = uploader.client
    shown = page(client.get("/layers"))
    assert "cat.jpg" in shown.text
    onward = [h.one("a").attributes["href"] for h in shown.one("div", "lanes").all("h2")]
    assert onward == [f"/layers/{name}" for name in NAMES]
    named = page(client.get(f"/layers?of={token}"))
    assert named.one("div", "lanes").all("h2")[2].one("a").attributes["href"] == (
        f"/layers/conv3?of={token}"
    )


def test_pictures_of_an_upload_are_private_and_deleted_with_it(
    app, client, page, send, jpeg, settings
):
    token = send(jpeg).location.rsplit("/", 1)[1]
    shown = page(client.get(f"/layers?of={token}"))
    addresses = [figure.one("img").attributes["src"] for figure in shown.all("figure")]
    first = [client.get(address) for address in addresses]
    assert len({answer.headers["ETag"] for answer in first}) == 14
    for address, answer in zip(addresses, first, strict=True):
        assert set(answer.headers["Cache-Control"].split(", ")) == {"private", "no-cache"}
        again = client.get(address, headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.data) == (304, b"")
    delete_result(token, settings, app.extensions["sessions"])
    assert {client.get(address).status_code for address in addresses} == {404}
    assert client.get(f"/layers?of={token}").status_code == 404


def test_a_page_and_its_pictures_share_one_forward_pass(app, client, page, send, jpeg):
    token = send(jpeg).location.rsplit("/", 1)[1]
    computed = []
    network = app.extensions["loader"].get_state().predictor.network
    hook = network.conv1.register_forward_hook(lambda *_: computed.append(1))
    shown = page(client.get(f"/layers?of={token}"))
    for figure in shown.all("figure"):
        client.get(figure.one("img").attributes["src"])
    client.get(f"/layers/conv4?of={token}")
    client.get(f"/filters/3?of={token}")
    hook.remove()
    assert len(computed) == 1


@pytest.fixture(scope="module")
def one_tower(settings: Any, with_weights: Callable[..., Flask]) -> FlaskClient:
    """The application with a network of one tower, whose kernel 5 never responds."""
    old = load_weights(settings.home.weights)
    config = replace(VARIANTS["one-gpu"].config, classes=len(old.classes), init="he")
    state = AlexNet(config).state_dict()
    state["conv1.bias"][4] = -1000
    return with_weights(replace(old, config=config, state=state)).test_client()


def test_a_network_of_one_tower_is_one_column(client, page, one_tower):
    example = page(client.get("/layers")).one("ul", "three").all("a")[0].attributes["href"]
    shown = page(one_tower.get(example))
    layers = shown.all("section", "layer")
    assert [len(layer.all("figure")) for layer in layers] == [1] * 7
    assert [f.one("figcaption").all("span", "number")[0].text for f in layers][:5] == [
        *("55 × 55 × 48", "27 × 27 × 128", "13 × 13 × 192", "13 × 13 × 192", "13 × 13 × 256")
    ]
    assert shown.all("p", "exchange") == []
    assert "both" not in shown.one("div", "lanes").text
    filters = page(one_tower.get("/filters"))
    assert len(filters.all("p", "finding")[0].all("span", "number")) == 1
    assert len(filters.all("section", "tower")) == 1


def test_a_kernel_without_a_positive_response_has_no_outline(client, page, one_tower):
    example = page(client.get("/layers")).one("ul", "three").all("a")[0].attributes["href"]
    shown = page(one_tower.get(example.replace("/layers", "/filters/5"))).one("div", "closer")
    assert re.search(r"−\d+\.\d", shown.text)
    assert shown.all("rect", "spot") == []
    drawn = shown.one("div", "aligned-map").all("image")[0].attributes["href"]
    assert np.unique(ink_at(one_tower, drawn)).tolist() == [MIN_INK]
    # No index fits these weights, so there are no patches either.
    assert shown.all("ol", "nine") == []
    assert shown.one("code").text == "flask index build"


def test_with_weights_alone_the_page_asks_for_an_image(weights_alone: FlaskClient, page):
    for address in ("/layers", "/layers/conv1"):
        shown = page(weights_alone.get(address)).one("main")
        assert "/" in [a.attributes["href"] for a in shown.all("a")]
        assert not shown.all("img")
