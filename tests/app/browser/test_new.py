"""The classroom in a browser: pictures by webcam, a classifier of them, and the camera classified.

The browser's camera is a drawing that moves.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from app.classroom.datasets import read_dataset
from app.config import Settings
from storage.files import switch_link
from storage.home import Home

TOKEN = "an administrator's token"
SEVERAL = re.compile(r"^([3-9]|\d\d+) photographs")
CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


@pytest.fixture(scope="module")
def classroom(
    serve: Callable[[dict[str, str]], AbstractContextManager[str]],
    environment: dict[str, str],
    settings: Settings,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, Home]]:
    """A server whose administrator has a token, and its home."""
    home = Home(root=tmp_path_factory.mktemp("classroom"))
    switch_link(home.weights, settings.home.weights.resolve())
    changes = {"ALEXNET_HOME": str(home.root), "ALEXNET_ADMIN_TOKEN": TOKEN}
    with serve(environment | changes) as address:
        yield address, home


@pytest.fixture
def page(chromium: Any, browser_flags: list[str], classroom: tuple[str, Home]) -> Iterator[Any]:
    """A tab of a browser with a camera, on the classroom's page; it may complain of nothing."""
    browser = chromium.browser_type.launch(
        executable_path=browser_flags[0], args=[*browser_flags[1:], *CAMERA]
    )
    context = browser.new_context(base_url=classroom[0], viewport={"width": 1280, "height": 800})
    page, said = context.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto("/new")
    page.fill("#token", TOKEN)
    page.click("button[type=submit]")
    page.wait_for_selector("form.collector")
    page.wait_for_load_state()  # its scripts have run then
    yield page
    browser.close()
    assert said == []


def test_classes_are_taken_by_webcam_and_recognised(
    page: Any, classroom: tuple[str, Home], accessible: Callable[[Any], None], photograph: Path
) -> None:
    accessible(page)
    page.fill("#pictures-name", "two-things")
    page.click("[data-camera]")
    first, second, *_ = page.locator("[data-row]").all()
    first.locator("input").first.fill("by mouse")
    take = first.locator("[data-take]")
    page.wait_for_selector("[data-take]:enabled")
    take.hover()
    page.mouse.down()
    first.locator("[data-count]", has_text=SEVERAL).wait_for()
    page.mouse.up()
    second.locator("input").first.fill("by key")
    second.locator("[data-take]").focus()
    page.keyboard.down("Enter")
    second.locator("[data-count]", has_text=SEVERAL).wait_for()
    page.keyboard.up("Enter")
    page.click("[data-add]")
    fourth = page.locator("[data-row]").nth(3)
    fourth.locator("input").first.fill("by file")
    fourth.locator("[type=file]").set_input_files([photograph, photograph])
    assert fourth.locator("[data-count]").inner_text() == "2 photographs"
    taken = [int(row.locator("[data-count]").inner_text().split()[0]) for row in (first, second)]
    page.click("form.collector [type=submit]")
    page.wait_for_url("**/new/two-things")
    dataset = read_dataset(classroom[1], "two-things")
    assert dataset is not None
    assert dict(zip(dataset.classes, dataset.counts, strict=True)) == {
        "by mouse": taken[0],
        "by key": taken[1],
        "by file": 2,
    }
    accessible(page)

    page.click("form[action$='/head'] button")
    page.wait_for_selector(".try-form")
    page.set_input_files("#image", photograph)
    page.wait_for_selector(".taught-answer .bars")
    assert page.locator(".bars li").count() == 3
    page.click("[data-camera]")
    # One answer after another, as long as the camera runs.
    for _ in range(2):
        page.evaluate("document.querySelector('[data-answer]').dataset.seen = 1")
        page.wait_for_selector("[data-answer]:not([data-seen]) .bars")
    page.click("[data-camera]")
    accessible(page)
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_without_a_camera_the_page_says_so_and_takes_files(page: Any) -> None:
    page.evaluate("delete Navigator.prototype.mediaDevices")
    page.click("[data-camera]")
    page.wait_for_selector("[data-camera-text]:not(:empty)")
    take = page.locator("[data-take]").first
    assert take.is_disabled()
    take.dispatch_event("pointerdown", {"button": 0})
    assert page.locator("[data-clear]").first.is_disabled()
