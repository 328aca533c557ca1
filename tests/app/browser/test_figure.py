"""Figure 4 in a real browser: filled while one looks, printed on one page, saved, chosen."""

import re
from collections.abc import Callable
from typing import Any

Open = Callable[..., Any]
WHOLE = ".plate:not([data-from])"


def check_whole(page: Any) -> None:
    """The figure is there, with every picture and every bar."""
    page.wait_for_selector(WHOLE)
    page.wait_for_load_state("networkidle")
    sizes = page.locator(".plate img").evaluate_all("all => all.map(one => one.naturalWidth)")
    assert sizes == [256] * (8 + 5 * 7)
    assert page.locator(".labelled ol li .fill").count() == 40


def test_the_placeholder_is_filled_without_layout_shift(
    tab: Open, steady: Callable[[Any, str], None], accessible: Callable[[Any], None]
) -> None:
    page = tab(viewport={"width": 1280, "height": 800})
    waiting: list[Any] = []
    page.route("**/*wait=1*", lambda route: waiting.append(route))
    page.add_init_script(
        "window.moved = 0; new PerformanceObserver(list => list.getEntries()"
        ".forEach(e => window.moved += e.value)).observe({type: 'layout-shift', buffered: true})"
    )
    page.goto("/figure-4?draw=31")
    page.wait_for_selector(".status:has-text('12')")
    assert page.locator(".blank").count() == 30
    accessible(page)
    before = page.locator(".plate").bounding_box()
    waiting[0].continue_()
    check_whole(page)
    assert page.locator(".plate").bounding_box() == before
    assert page.evaluate("window.moved") < 0.01
    assert page.locator(".plate + .status").inner_text() == ""


def test_it_waits_without_javascript_and_a_failure_can_be_retried(tab: Open) -> None:
    page = tab()
    page.route("**/*wait=1*", lambda route: route.fulfill(status=404, body="no"))
    page.goto("/figure-4?draw=33")
    page.wait_for_selector(".status a")
    page.unroute("**/*wait=1*")
    plain = tab(java_script_enabled=False)
    plain.goto("/figure-4?draw=33")
    check_whole(plain)
    assert not plain.locator("[data-print]").is_visible()
    page.click(".status a")
    check_whole(page)


def test_it_prints_on_one_page_white_and_across(tab: Open) -> None:
    page = tab(color_scheme="dark")
    page.goto("/figure-4?draw=1")
    check_whole(page)
    colours = page.locator(".plate").evaluate(
        "one => [getComputedStyle(one).backgroundColor, getComputedStyle(one).color]"
    )
    assert colours == ["rgb(255, 255, 255)", "rgb(29, 27, 24)"]
    for options in ({}, {"prefer_css_page_size": True}, {"format": "A4"}):
        printed = page.pdf(**options)
        assert len(re.findall(rb"/Type\s*/Page\b", printed)) == 1, options
    page.emulate_media(media="print")
    shown = page.locator("body *:visible").evaluate_all("all => all.map(one => one.tagName)")
    assert not {"HEADER", "FOOTER", "BUTTON", "H1"} & set(shown)
    assert page.locator(".plate figcaption").is_visible()
    (box,) = re.findall(rb"/MediaBox\s*\[\s*0 0 ([\d.]+) ([\d.]+)", page.pdf())
    assert float(box[0]) > float(box[1])


def test_it_is_saved_under_a_good_name(tab: Open) -> None:
    page = tab(accept_downloads=True)
    page.goto("/figure-4")
    check_whole(page)
    for kind in ("PNG", "SVG"):
        with page.expect_download() as saved:
            page.click(f"a[href^='/figure-4.{kind.lower()}']")
        name = saved.value.suggested_filename
        assert re.fullmatch(rf"figure-4-photographs\d*-1\.{kind.lower()}", name)


def test_images_are_chosen_with_the_keyboard(tab: Open, accessible: Callable[[Any], None]) -> None:
    page = tab(viewport={"width": 360, "height": 740}, color_scheme="dark")
    page.goto("/figure-4")
    page.click("a[href^='/figure-4/choose']")
    said = page.locator(".choose-bar [role=status]")
    assert re.findall(r"\d+", said.inner_text()) == ["8", "8", "5", "5"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    accessible(page)
    chosen = page.locator("[name=image]:checked").first
    number = chosen.get_attribute("value")
    chosen.focus()
    page.keyboard.press("Space")
    assert re.findall(r"\d+", said.inner_text()) == ["7", "8", "5", "5"]
    page.keyboard.press("Enter")
    page.wait_for_selector("[role=alert]:has-text('seven images')")
    accessible(page)
    page.locator(f"[name=image]:not(:checked):not([value='{number}'])").first.focus()
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    check_whole(page)
    assert page.locator(f".labelled a[href$='/{number}']").count() == 0
