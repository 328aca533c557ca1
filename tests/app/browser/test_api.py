"""The page of the API, in a real browser.

axe is not asked about it: most of it is Swagger UI's, whose page it is. It has a title and
headings, and works with nothing from another host, which `tab` sees to.
"""

from collections.abc import Callable
from typing import Any

import pytest

Open = Callable[..., Any]


def test_every_operation_is_listed_and_one_is_tried(tab: Open) -> None:
    page = tab()
    page.goto("/")
    page.click("footer a")
    page.wait_for_selector(".opblock")
    assert page.title() == "API · AlexNet"
    told = page.evaluate("fetch('/api/openapi.json').then(answer => answer.json())")
    assert page.locator(".opblock").count() == sum(
        method in ("get", "post") for path in told["paths"].values() for method in path
    )
    health = page.locator("#operations-health-health")
    health.locator(".opblock-summary-control").click()
    health.locator(".try-out__btn").click()
    health.locator(".execute").click()
    answer = health.locator(".live-responses-table .microlight").first
    answer.wait_for()
    assert '"status": "ready"' in answer.inner_text()


@pytest.mark.parametrize(
    ("scheme", "width", "ground"),
    [("light", 1280, "rgb(251, 250, 246)"), ("dark", 360, "rgb(22, 21, 19)")],
)
def test_it_fits_the_other_pages(
    tab: Open, steady: Callable[[Any, str], None], scheme: str, width: int, ground: str
) -> None:
    page = tab(viewport={"width": width, "height": 740}, color_scheme=scheme)
    steady(page, "/api")
    page.wait_for_selector(".opblock")
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == ground
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    dark = page.evaluate("document.documentElement.classList.contains('dark-mode')")
    assert dark == (scheme == "dark")


def test_a_problem_leads_to_what_it_means(tab: Open) -> None:
    page = tab()
    page.goto("/api#no-index")
    page.wait_for_selector(".opblock")
    page.wait_for_function(
        "document.querySelector(':target').getBoundingClientRect().top < window.innerHeight"
    )
    assert page.locator(":target").inner_text().startswith("no-index")


def test_without_scripts_it_leads_to_the_document(tab: Open) -> None:
    page = tab(java_script_enabled=False)
    page.goto("/api")
    page.click(".operations a")
    assert page.url.endswith("/api/openapi.json")
