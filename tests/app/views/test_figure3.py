"""Figure 3 as a file, against the kernels themselves."""

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from app.views.filters.figure3 import GAP, MARGIN, SCALE, render_figure3_png, render_figure3_svg

SVG = "{http://www.w3.org/2000/svg}"
STEP = 11 * SCALE + GAP


@pytest.fixture(scope="module")
def kernels():
    return np.random.default_rng(0).normal(size=(96, 3, 11, 11)).astype(np.float32)


def grey_levels(kernel):
    """What a kernel is drawn as: zero is mid-grey, its largest weight black or white."""
    return np.rint(128 + 127 * kernel / np.abs(kernel).max()).transpose(1, 2, 0)


@pytest.mark.parametrize("number", [0, 7, 15, 16, 47, 48, 95])
def test_each_kernel_lies_in_its_place_in_three_rows_a_gpu(kernels, number: int) -> None:
    with Image.open(io.BytesIO(render_figure3_png(kernels, 2, "a “caption”"))) as picture:
        pixels, facts = np.asarray(picture.convert("RGB")), picture.info
    assert facts["Description"] == "a “caption”"
    assert round(facts["dpi"][0]) == 300
    assert (pixels[0] == 255).all()
    tower, place = divmod(number, 48)
    row, column = divmod(place, 16)
    top = MARGIN + tower * (3 * STEP + GAP) + row * STEP
    left = MARGIN + column * STEP
    drawn = pixels[top : top + 11 * SCALE : SCALE, left : left + 11 * SCALE : SCALE]
    np.testing.assert_array_equal(drawn, grey_levels(kernels[number]))


@pytest.mark.parametrize("towers", [1, 2])
def test_the_svg_is_one_file_with_text(kernels, towers: int) -> None:
    root = ElementTree.fromstring(render_figure3_svg(kernels, towers, "<caption> & more"))
    assert root.find(f"{SVG}desc").text == "<caption> & more"
    assert [text.text for text in root.iter(f"{SVG}text")] == ["GPU 1", "GPU 2"][:towers]
    pictures = list(root.iter(f"{SVG}image"))
    assert len(pictures) == towers
    for picture in pictures:
        data = base64.b64decode(re.sub("^data:image/png;base64,", "", picture.get("href")))
        with Image.open(io.BytesIO(data)) as opened:
            assert opened.size == (int(picture.get("width")), int(picture.get("height")))
            assert opened.size == (16 * STEP - GAP, (96 // towers // 16) * STEP - GAP)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_page_leads_to_the_file(client, page, suffix: str) -> None:
    links = [a.attributes["href"] for a in page(client.get("/filters")).all("a")]
    (address,) = (link for link in links if link.endswith(f"figure-3.{suffix}"))
    saved = client.get(address)
    assert saved.status_code == 200
    assert f"figure-3.{suffix}" in saved.headers["Content-Disposition"]
    again = client.get(address, headers={"If-None-Match": saved.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
