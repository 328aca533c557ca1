"""The review in a browser: images selected together, and those of the map, become corrections."""

import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from app.config import Settings
from docs.demo_home import temporary_copy

TOKEN = "an administrator's token"


@pytest.fixture(scope="module")
def desk(
    serve: Callable[[dict[str, str]], AbstractContextManager[str]],
    environment: dict[str, str],
    settings: Settings,
) -> Iterator[str]:
    """A server that takes corrections, into a database of its own."""
    with temporary_copy(settings.home) as home:
        changes = {"ALEXNET_HOME": str(home.root), "ALEXNET_ADMIN_TOKEN": TOKEN}
        with serve(environment | changes) as address:
            yield address


@pytest.fixture
def page(chromium: Any, desk: str) -> Iterator[Any]:
    """A tab, which may complain of nothing."""
    context = chromium.new_context(base_url=desk, viewport={"width": 1280, "height": 1000})
    page, said = context.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    yield page
    context.close()
    assert said == []


def test_images_are_selected_together(page: Any, accessible: Callable[[Any], None]) -> None:
    page.goto("/review?show=all")
    boxes = page.locator(".select-image input")
    count = boxes.count()
    page.click("[data-select=all]")
    assert page.locator(".select-image input:checked").count() == count == 24
    accessible(page)
    page.click("[data-select=none]")
    assert page.locator(".select-image input:checked").count() == 0
    boxes.nth(2).click()
    boxes.nth(6).click(modifiers=["Shift"])
    ticked = boxes.evaluate_all("all => all.flatMap((box, at) => box.checked ? [at] : [])")
    assert ticked == [2, 3, 4, 5, 6]
    assert page.locator("[data-selected]").inner_text().startswith("5 ")


def test_a_region_of_the_map_becomes_a_list_and_a_zip(
    page: Any, accessible: Callable[[Any], None], tmp_path: Path
) -> None:
    page.goto("/map?guess=other")
    page.wait_for_selector(".selected li")
    said = page.inner_text(".under .status")
    page.click(".correct summary")
    accessible(page)
    page.fill("#token", TOKEN)
    page.fill("[name=note]", "look again")
    page.click(".correct [value=note]")
    page.wait_for_url(re.compile(r"/review/corrections$"))
    listed = page.locator(".corrections li").count()
    assert said.startswith(f"{listed} ")
    accessible(page)
    with page.expect_download() as download:
        page.click("text=Export as zip")
    download.value.save_as(tmp_path / "list.zip")
    with zipfile.ZipFile(tmp_path / "list.zip") as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == listed + 2
