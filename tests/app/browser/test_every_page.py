"""What holds for every page: on a phone, in the dark, and with assistive technology."""

from collections.abc import Callable
from typing import Any

import pytest

Open = Callable[..., Any]
GROUNDS = {"light": "rgb(251, 250, 246)", "dark": "rgb(22, 21, 19)"}
PAGES = (
    "/",
    "/results/TOKEN",
    "/images/ID",
    "/explore",
    "/map",
    "/review?show=all",
    "/review/corrections",
    "/filters?of=TOKEN",
    "/layers?of=TOKEN",
    "/layers/switches?of=TOKEN&lrn=off",
    "/layers/conv4/unit/2?of=TOKEN",
    "/why?of=image-ID",
    "/figure-4",
    "/training",
    "/models",
    "/new",
    "/paper",
    "/nothing",
)


@pytest.fixture(scope="session")
def addresses(chromium: Any, site: str, classified: Callable[[Any], str]) -> dict[str, str]:
    """The pages' addresses, with the token of a result and the number of a neighbour of it."""
    context = chromium.new_context(base_url=site)
    page = context.new_page()
    token = classified(page).rsplit("/", 1)[1]
    neighbour = page.locator(".neighbours a").first.get_attribute("href").rsplit("/", 1)[1]
    context.close()
    return {name: name.replace("TOKEN", token).replace("ID", neighbour) for name in PAGES}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_stands_still_fits_the_window_and_is_accessible(
    tab: Open,
    addresses: dict[str, str],
    accessible: Callable[[Any], None],
    steady: Callable[[Any, str], None],
    name: str,
) -> None:
    for scheme, width in (("light", 1280), ("dark", 360)):
        page = tab(viewport={"width": width, "height": 740}, color_scheme=scheme)
        steady(page, addresses[name])
        ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert ground == GROUNDS[scheme]
        for summary in page.locator("summary").all():
            if summary.is_visible():
                summary.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, (name, width)
        accessible(page)


def test_on_a_phone_the_header_is_one_row_and_shows_the_current_page(tab: Open, site: str) -> None:
    page = tab(viewport={"width": 360, "height": 740})
    for address in ("/", "/models"):
        page.goto(address)
        links = page.locator(".top li a")
        assert len({box["y"] for box in (a.bounding_box() for a in links.all())}) == 1
        current = page.locator(".top [aria-current]").bounding_box()
        assert 0 <= current["x"] <= current["x"] + current["width"] <= 360
