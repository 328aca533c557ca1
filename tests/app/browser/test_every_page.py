"""What holds for every page: on a telephone, in the dark, for whoever sees or hears little."""

from collections.abc import Callable
from typing import Any

import pytest

Open = Callable[..., Any]
PAGES = (
    "/",
    "result",
    "image",
    "/explore",
    "/map",
    "/filters",
    "/layers",
    "/figure-4",
    "/training",
    "/models",
    "/nothing",
)


@pytest.fixture
def go(classified: Callable[[Any], str]) -> Callable[[Any, str], None]:
    """Opens a page by its name."""

    def open_page(page: Any, name: str) -> None:
        if name in ("result", "image", "/layers", "/filters"):
            classified(page)
        if name == "image":
            page.goto(page.locator(".neighbours a").first.get_attribute("href"))
        elif name != "result":
            page.goto(name)

    return open_page


@pytest.mark.parametrize(
    ("scheme", "ground"), [("light", "rgb(251, 250, 246)"), ("dark", "rgb(22, 21, 19)")]
)
def test_the_ground_is_light_or_dark_as_the_system_is(tab: Open, scheme: str, ground: str) -> None:
    page = tab(color_scheme=scheme)
    page.goto("/")
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == ground


@pytest.mark.parametrize("name", PAGES)
def test_a_page_serves_everyone(
    tab: Open, go: Callable[[Any, str], None], accessible: Callable[[Any], None], name: str
) -> None:
    for scheme, width in (("light", 1280), ("dark", 360)):
        page = tab(viewport={"width": width, "height": 740}, color_scheme=scheme)
        go(page, name)
        for summary in page.locator("summary").all():
            summary.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, (name, width)
        accessible(page)


@pytest.mark.parametrize("name", PAGES)
def test_nothing_moves_while_a_page_loads(
    tab: Open,
    go: Callable[[Any, str], None],
    steady: Callable[[Any, str], None],
    name: str,
) -> None:
    page = tab()
    go(page, name)
    steady(page, page.url)
