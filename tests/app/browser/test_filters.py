"""The page of conv1's kernels, in a real browser."""

import re
from collections.abc import Callable
from typing import Any

Open = Callable[..., Any]
OPENED = "#kernel-title:has-text('Kernel {} ')"


def chosen(page: Any) -> list[str]:
    """The kernels that are outlined."""
    outlined = page.locator(".kernels a[aria-current]")
    return outlined.evaluate_all("links => links.map(link => link.dataset.kernel)")


def test_a_kernel_opens_in_its_place(tab: Open) -> None:
    page = tab()
    page.goto("/filters")
    page.evaluate("window.here = true")
    page.click(".kernels a >> nth=16")
    page.wait_for_selector(OPENED.format(17))
    page.click(".kernels a >> nth=64")
    page.wait_for_selector(OPENED.format(65))
    assert page.url.endswith("/filters/65#kernel")
    assert chosen(page) == ["65"]
    assert page.locator("[data-dot][data-current]").get_attribute("data-dot") == "65"
    assert "65" in page.inner_text("#status")
    assert "65" in page.title()
    page.go_back()
    page.wait_for_selector(OPENED.format(17))
    page.go_back()
    page.wait_for_selector("#kernel-title", state="detached")
    assert chosen(page) == []
    assert page.evaluate("window.here") is True  # it was the same page all along


def test_the_keyboard_walks_from_kernel_to_kernel(tab: Open) -> None:
    page = tab()
    page.goto("/filters")
    page.locator(".kernels a").nth(46).focus()
    page.keyboard.press("Tab")
    focus = "document.activeElement"
    assert page.evaluate(f"{focus}.getAttribute('aria-label')").startswith("Kernel 48 ")
    edge = page.evaluate(f"getComputedStyle({focus}.querySelector('rect')).stroke")
    assert edge == "rgb(31, 95, 191)"
    page.keyboard.press("Enter")
    page.wait_for_selector(OPENED.format(48))
    for number in (49, 50):
        page.locator("[data-step='1']").focus()
        page.keyboard.press("Enter")
        page.wait_for_selector(OPENED.format(number))
        page.wait_for_function("document.activeElement.dataset.step === '1'")


def test_one_stop_leads_past_all_kernels(tab: Open) -> None:
    page = tab()
    page.goto("/filters/3")
    page.locator(".skip-kernels a").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    # The first link in the kernel's details, not the next of 96 kernels.
    assert page.evaluate("document.activeElement.closest('#kernel') !== null")


def test_at_the_width_of_a_tablet_both_towers_are_side_by_side(tab: Open) -> None:
    page = tab(viewport={"width": 768, "height": 900})
    page.goto("/filters")
    one, two = (page.locator(".tower").nth(n).bounding_box() for n in (0, 1))
    assert one["y"] == two["y"]
    assert two["x"] + two["width"] > 768 - 60


def test_a_kernel_that_cannot_be_fetched_is_navigated_to(tab: Open) -> None:
    page = tab()
    page.goto("/filters")
    page.evaluate("window.here = true")
    page.evaluate("document.querySelector('.kernels a').setAttribute('href', '/filters/97')")
    page.click(".kernels a >> nth=0")
    page.wait_for_url(re.compile(r"/filters/97$"))
    assert page.locator(".kernels").count() == 0


def test_a_kernel_is_a_page_without_javascript(tab: Open, classified: Callable[..., str]) -> None:
    page = tab(java_script_enabled=False)
    classified(page, script=False)
    page.goto("/filters")
    page.click(".kernels a >> nth=70")
    page.wait_for_url(re.compile(r"/filters/71#kernel$"))
    assert page.locator(".nine a").count() == 9
    assert page.locator(".aligned-map").count() == 1
    page.click(".nine a >> nth=0")
    page.wait_for_url(re.compile(r"/images/\d+$"))


def test_kernels_and_patches_are_large_enough_to_tap(tab: Open) -> None:
    page = tab(viewport={"width": 360, "height": 740})
    page.goto("/filters/17")
    for links in (".kernels a", ".nine a"):
        sizes = page.locator(links).evaluate_all(
            "all => all.map(one => one.getBoundingClientRect()).map(r => [r.width, r.height])"
        )
        assert min(min(size) for size in sizes) >= 24, links
    page.click(".kernels a >> nth=2")
    page.wait_for_selector(OPENED.format(3))
    page.wait_for_function(
        "document.getElementById('kernel').getBoundingClientRect().top < window.innerHeight - 160"
    )


def test_a_kernel_is_accessible_and_steady(
    tab: Open, accessible: Callable[[Any], None], steady: Callable[[Any, str], None]
) -> None:
    for scheme, width in (("light", 1280), ("dark", 360)):
        page = tab(viewport={"width": width, "height": 740}, color_scheme=scheme)
        if scheme == "dark":
            page.goto("/filters/17")  # without a current image
            accessible(page)
        steady(page, "/filters/17?of=image-1")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        accessible(page)
        loaded = page.locator("svg image").evaluate_all("all => all.map(one => one.href.baseVal)")
        assert any("response.png" in address for address in loaded)
