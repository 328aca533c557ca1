"""The page of conv1's kernels, and what it shows of each."""

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
from torch.nn import functional

from app.config import Settings
from app.database.images import find_images
from app.uploads.results import delete_result
from model.image.preprocess import decode_square, read_square
from model.visualization.feature_maps import MIN_INK

Page = Callable[..., Any]
Open = Callable[[Settings], Flask]


def picture_at(client: FlaskClient, address: str) -> np.ndarray:
    """The pixels of a PNG."""
    answer = client.get(address)
    assert answer.mimetype == "image/png"
    with Image.open(io.BytesIO(answer.data)) as picture:
        return np.asarray(picture.convert("RGBA"))


def conv1(app: Flask, square: np.ndarray) -> np.ndarray:
    """conv1's response to the centre crop, by torch's function: float32 [96, 55, 55]."""
    weights = app.extensions["loader"].get_state().predictor.loaded.weights
    crop = torch.from_numpy(square[16:240, 16:240].transpose(2, 0, 1).copy()) - 120.0
    padded = functional.pad(crop / 60, (0, 3, 0, 3))
    state = weights.state
    found = functional.conv2d(padded[None], state["conv1.weight"], state["conv1.bias"], stride=4)
    return found[0].numpy()


@pytest.fixture
def closer(client: FlaskClient, page: Page) -> Callable[[str], Any]:
    """Opens a kernel's page and gives the part about it."""
    return lambda address: page(client.get(address)).one("div", "closer")


@pytest.fixture
def token(uploader: Any) -> str:
    """The token of an image that was classified."""
    return str(uploader.token)


def test_the_filters_stand_apart_by_gpu(client, page):
    shown = page(client.get("/filters"))
    for number, tower in enumerate(shown.all("section", "tower"), 1):
        assert tower.one("h2").text.strip() == f"GPU {number}"
        assert tower.one("rect", "one" if number == 1 else "two")
        assert 0 < float(tower.one("span", "number").text) < 1
        assert picture_at(client, tower.one("img").attributes["src"]).shape[:2] == (284, 380)
    assert len(shown.all("section", "tower")) == 2


def test_the_filters_are_those_of_the_weights(app, client):
    kernel = app.extensions["loader"].get_state().predictor.conv1[48]
    drawn = picture_at(client, "/filters/gpu-2.png")[2:44:4, 2:44:4, :3].astype(float) - 128
    expected = kernel.transpose(1, 2, 0) / np.abs(kernel).max() * 127
    assert np.abs(drawn - expected).max() <= 1


def test_every_kernel_is_a_link_with_a_name_where_it_is_drawn(client, page):
    for number, tower in enumerate(page(client.get("/filters")).all("section", "tower"), 1):
        links = tower.one("div", "kernels").all("a")
        assert len(links) == 48
        for n, link in enumerate(links):
            kernel = 48 * (number - 1) + n + 1
            name = rf"\D+{kernel}\D+{number}\D+0\.\d\d"
            assert re.fullmatch(name, link.attributes["aria-label"])
            assert link.attributes["href"] == f"/filters/{kernel}#kernel"
            place = link.one("rect").attributes
            assert (int(place["y"]), int(place["x"])) == (48 * (n // 8), 48 * (n % 8))
            assert (place["width"], place["height"]) == ("44", "44")


def test_the_difference_between_the_gpus_is_drawn_and_stated(app, client, page):
    shown = page(client.get("/filters"))
    strips = shown.all("div", "strips")[0].all("svg")
    weights = app.extensions["loader"].get_state().predictor.conv1.astype(float)
    grey = (weights.sum(1) ** 2 / 3).sum((1, 2))
    expected = 1 - grey / (weights**2).sum((1, 2, 3))
    dots = [float(c.attributes["cx"][:-1]) for strip in strips for c in strip.all("circle")]
    np.testing.assert_allclose(dots, 100 * expected, atol=0.01)
    halves = expected[:48].mean(), expected[48:].mean()
    assert [float(s.one("line", "mean").attributes["x1"][:-1]) for s in strips] == pytest.approx(
        [100 * half for half in halves], abs=0.01
    )
    told = re.findall(r"0\.\d{3}", shown.all("p", "finding")[0].text)
    assert [float(number) for number in told] == pytest.approx(
        [*halves, abs(halves[1] - halves[0])], abs=0.0006
    )


def test_how_far_conv1_is_from_noise_is_drawn_and_stated(app, client, page):
    shown = page(client.get("/filters"))
    kernels = app.extensions["loader"].get_state().predictor.conv1
    weights = torch.from_numpy(kernels).double()
    energy = torch.fft.fft2(weights).abs() ** 2
    along = torch.fft.fftfreq(11)
    low = (along[:, None] ** 2 + along[None, :] ** 2).sqrt() < 0.25
    shares = [float(part[..., low].sum() / part.sum()) for part in (energy, *energy.split(48))]
    stated = shown.one("p", "structure").all("span", "number")
    assert [float(s.text) for s in stated] == pytest.approx([*shares, 21 / 121], abs=0.0006)
    bars = [svg for svg in shown.all("svg", "strip") if svg.all("rect")]
    widths = [float(svg.all("rect")[1].attributes["width"][:-1]) for svg in bars]
    assert widths == pytest.approx([100 * share for share in shares[1:]], abs=0.01)
    told = client.get("/api/filters").json
    assert [gpu["low_frequency"] for gpu in told["gpus"]] == pytest.approx(shares[1:], abs=1e-5)
    assert told["noise"] == 21 / 121


def test_a_chosen_kernel_is_outlined_and_described(client, page):
    shown = page(client.get("/filters/65"))
    current = [a for a in shown.all("a") if a.attributes.get("aria-current") == "true"]
    assert [a.attributes.get("data-kernel") for a in current] == [None, "65"]  # and the menu
    marked = [
        c.attributes["data-dot"] for c in shown.all("circle") if "data-current" in c.attributes
    ]
    assert marked == ["65"]
    part = shown.one("div", "part").one("section")
    assert re.findall(r"\d+", part.one("h2").text) == ["65", "2"]
    steps = [a.attributes["href"] for a in part.one("p", "steps").all("a")]
    assert steps == ["/filters/64#kernel", "/filters/66#kernel"]


@pytest.mark.parametrize("number", ["0", "97", "-1", "x", "10000"])
def test_there_are_no_other_kernels(client, token, number):
    for address in ("", "/patches.png", f"/response.png?of={token}"):
        assert client.get(f"/filters/{number}{address}").status_code == 404


def test_the_patches_are_those_of_the_images_with_the_strongest_response(app, client, closer):
    state = app.extensions["loader"].get_state()
    ids = state.sample.ids.tolist()
    images = find_images(app.extensions["sessions"], ids)
    squares = {image: read_square(found.file) for image, found in images.items()}
    peaks = {image: conv1(app, square)[16].max() for image, square in squares.items()}
    best = sorted(peaks, key=lambda image: -peaks[image])[:9]

    shown = closer("/filters/17").one("ol", "nine")
    links = [a.attributes["href"] for a in shown.all("a")]
    assert links == [f"/images/{image}" for image in best]
    told = [float(span.text.split()[-1]) for span in shown.all("span", "number")]
    assert told == pytest.approx([peaks[image] for image in best], abs=0.006)
    for image, svg in zip(best, shown.all("svg"), strict=True):
        assert images[image].label in svg.attributes["aria-label"]
    assert re.search(r"\b54\b", closer("/filters/17").text)

    sprite = picture_at(client, shown.all("image")[0].attributes["href"])[..., :3]
    assert sprite.shape == (88, 9 * 88, 3)
    assert np.array_equal(sprite, sprite[::8, ::8].repeat(8, 0).repeat(8, 1))
    for n, image in enumerate(best):
        row, column = np.unravel_index(conv1(app, squares[image])[16].argmax(), (55, 55))
        top, left = 16 + 4 * row, 16 + 4 * column
        inside = np.s_[: min(11, 240 - top), : min(11, 240 - left)]
        patch = squares[image][top : top + 11, left : left + 11]
        assert np.array_equal(sprite[::8, 88 * n : 88 * n + 88 : 8][inside], patch[inside])


def test_the_response_to_the_current_image_is_conv1s(app, client, closer, token):
    square = decode_square(client.get(f"/results/{token}/picture.jpg").data)
    kernel = int(np.argmax(conv1(app, square).reshape(96, -1).max(1)))
    expected = conv1(app, square)[kernel]
    shown = closer(f"/filters/{kernel + 1}?of={token}")
    row, column = np.unravel_index(expected.argmax(), expected.shape)
    spot = shown.one("svg", "subject").all("rect", "spot")[-1].attributes
    assert float(spot["x"]) == pytest.approx(16 + 4 * column, abs=0.01)
    assert float(spot["y"]) == pytest.approx(16 + 4 * row, abs=0.01)
    assert f"row {row + 1}, column {column + 1} of 55 × 55" in shown.text
    (drawn,) = shown.one("div", "aligned-map").one("svg", "ink").all("image")
    assert float(drawn.attributes["x"]) == pytest.approx(16 + 5.5 - 2)  # its places' middles
    assert float(drawn.attributes["width"]) == 4 * 55
    ink = picture_at(client, drawn.attributes["href"])[2::4, 2::4, 3].astype(float)
    share = np.sqrt(expected.clip(0) / expected.max())
    assert np.abs(ink - (MIN_INK + (255 - MIN_INK) * share)).max() <= 1


def test_the_responses_to_an_image_lie_over_the_kernels(app, client, page, token):
    assert not page(client.get("/filters")).all("img", "responses")
    square = decode_square(client.get(f"/results/{token}/picture.jpg").data)
    expected = conv1(app, square).clip(0)
    share = np.sqrt(expected / expected.max())
    drawn = page(client.get(f"/filters?of={token}")).all("img", "responses")
    assert len(drawn) == 2
    for gpu, picture in enumerate(drawn):
        ink = picture_at(client, picture.attributes["src"])[..., 3].astype(float)
        assert ink.shape == (284, 380)
        for kernel in range(48):
            top, left = (48 * at for at in divmod(kernel, 8))
            over = ink[top : top + 44, left : left + 44]
            # A pixel is the mean of 5 / 4 places in both directions.
            assert over.mean() == pytest.approx(255 * share[48 * gpu + kernel].mean(), abs=1.5)


def test_the_filters_need_no_index(weights_alone: FlaskClient, client: FlaskClient, page):
    assert page(weights_alone.get("/map")).one("code").text == "flask index build"
    shown = page(weights_alone.get("/filters/7"))
    drawn = weights_alone.get(shown.all("img")[1].attributes["src"])
    assert "immutable" in drawn.headers["Cache-Control"]
    assert drawn.data == client.get("/filters/gpu-2.png").data
    assert shown.one("div", "closer").one("code").text == "flask index build"
    assert [a.attributes["href"] for a in shown.one("div", "chooser").all("a")] == ["/"]


def test_the_current_image_is_the_one_this_browser_classified_last(app, page, uploader, token):
    shown = page(uploader.client.get("/filters/3")).one("div", "closer")
    assert "cat.jpg" in shown.text
    assert f"/results/{token}" in [a.attributes["href"] for a in shown.all("a")]
    another = app.test_client().get("/filters/3").get_data(as_text=True)
    assert token not in another


def test_an_upload_is_not_named_in_links_to_other_kernels(uploader, page, token):
    client = uploader.client
    shown = page(client.get("/filters/3"))
    assert all(token not in a.attributes["href"] for a in shown.all("a") if kernel_link(a))
    named = page(client.get(f"/filters/3?of={token}"))
    assert all(f"of={token}" in a.attributes["href"] for a in named.all("a") if kernel_link(a))
    assert 'name="robots" content="noindex"' in client.get("/filters/3").get_data(as_text=True)


def kernel_link(link: Any) -> bool:
    """Whether a link leads to a kernel."""
    return "data-kernel" in link.attributes


def test_without_a_current_image_there_are_examples(client, page, closer):
    links = [a.attributes["href"] for a in closer("/filters/5").one("ul", "three").all("a")]
    assert len(links) == 3
    for link in links:
        assert re.fullmatch(r"/filters/5\?of=image-\d+#kernel", link)
    shown = closer(links[0])
    assert shown.one("div", "aligned-map")
    drawn = shown.one("div", "aligned-map").all("image")[0].attributes["href"]
    assert "immutable" in client.get(drawn).headers["Cache-Control"]


def test_pictures_of_an_upload_are_private_and_deleted_with_it(
    app, client, closer, send, jpeg, settings
):
    token = send(jpeg).location.rsplit("/", 1)[1]
    drawn = (
        closer(f"/filters/2?of={token}")
        .one("div", "aligned-map")
        .all("image")[0]
        .attributes["href"]
    )
    first = client.get(drawn)
    assert set(first.headers["Cache-Control"].split(", ")) == {"private", "no-cache"}
    again = client.get(drawn, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    other = client.get(drawn.replace("filters/2", "filters/3"))
    assert other.headers["ETag"] != first.headers["ETag"]
    delete_result(token, settings, app.extensions["sessions"])
    assert client.get(drawn).status_code == 404
    assert client.get(f"/filters/2?of={token}").status_code == 404
    assert client.get("/filters/2").status_code == 200


@pytest.mark.parametrize("of", ["", "image-0", "image-99999999999", "x" * 22, "nothing"])
def test_pictures_and_pages_of_unknown_images_are_not_found(client, of):
    assert client.get(f"/filters/2/response.png?of={of}").status_code == 404
    assert client.get(f"/filters/2?of={of}").status_code == (404 if of else 200)
