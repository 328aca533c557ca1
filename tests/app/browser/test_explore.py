"""The pages of training images, in a real browser."""

import re
from collections.abc import Callable
from typing import Any

import pytest

Open = Callable[..., Any]
LOW = {"width": 400, "height": 260}


def open_class(page: Any, name: str = "tabby cat", order: str = "") -> None:
    """Open a class's first page."""
    page.goto(f"/explore{order}")
    page.locator("[data-class] a", has_text=name).click()
    page.wait_for_url(re.compile(r"/explore/\d+"))


def images(page: Any) -> list[str]:
    """The addresses of the images on a page."""
    found: list[str] = page.locator(".six .tile").evaluate_all(
        "all => all.map(one => one.getAttribute('href'))"
    )
    return found


def scroll_to_the_end(page: Any, count: int) -> None:
    """Scroll until there are so many images and no more come."""
    while page.locator(".six .tile").count() < count:
        page.mouse.wheel(0, 400)
        page.wait_for_timeout(50)
    page.evaluate("scrollTo(0, document.body.scrollHeight)")


def position_at_rest(page: Any, tile: Any) -> float:
    """A tile's distance from the top of the window, once nothing moves any more."""
    before, top = None, tile.bounding_box()["y"]
    while top != before:
        page.wait_for_timeout(150)
        before, top = top, tile.bounding_box()["y"]
    return float(top)


def pick(page: Any, number: int) -> None:
    """Pick an image of the page."""
    page.locator(".six .select-image input").nth(number).check()


def test_one_goes_on_from_neighbour_to_neighbour_and_back(
    tab: Open, accessible: Callable[[Any], None]
) -> None:
    page = tab(viewport={"width": 360, "height": 740}, color_scheme="dark")
    open_class(page)
    page.click(".six .tile >> nth=0")
    visited = []
    for step in range(4):
        page.wait_for_url(re.compile(r"/images/\d+(\?via=[\d,]+)?$"))
        assert page.locator(".breadcrumb a").count() == step
        assert page.locator(".neighbours a").count() == 6
        visited.append(page.url)
        if step < 3:
            page.click(f".neighbours a >> nth={step}")
            page.wait_for_url(lambda url: url != visited[-1])
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    accessible(page)
    page.click(".breadcrumb a >> nth=1")
    page.wait_for_url(visited[1])
    assert page.locator(".breadcrumb a").count() == 1


def test_every_image_of_a_class_comes_once_while_scrolling(tab: Open) -> None:
    page = tab(viewport=LOW)
    open_class(page, order="?images=newest")
    asked: list[str] = []
    page.on("request", lambda sent: asked.append(sent.url) if "page=" in sent.url else None)
    first = images(page)[:4]
    scroll_to_the_end(page, 9)
    found = images(page)
    assert found[:4] == first
    assert len(set(found)) == len(found) == 9
    numbers = [int(re.split(r"[/?]", address)[2]) for address in found]
    assert numbers == sorted(numbers, reverse=True)
    assert [re.findall(r"page=(\d)", address) for address in asked] == [["2"], ["3"]]
    assert "9 of 9" in page.inner_text(".load-more .status-text")
    assert page.locator(".load-more button").is_hidden()
    assert page.locator(".pages [aria-current]").inner_text().endswith("3")
    assert page.locator(".pages a[rel=next]").count() == 0
    assert page.locator(".tile").last.evaluate("tile => tile.closest('li').dataset.page") == "3"


def test_what_could_not_be_loaded_is_loaded_at_a_click(tab: Open) -> None:
    page = tab(viewport=LOW)
    page.goto("/explore")
    page.route(re.compile("page=2"), lambda route: route.fulfill(status=404))
    page.locator("[data-class] a", has_text="tabby cat").click()
    page.wait_for_url(re.compile(r"/explore/\d+"))
    page.mouse.wheel(0, 100)
    page.get_by_role("button", name="Try again").wait_for()
    assert page.locator(".six .tile").count() == 4
    page.unroute(re.compile("page=2"))
    page.get_by_role("button", name="Try again").click()
    page.wait_for_selector("text=/9 of 9/")
    assert len(set(images(page))) == 9


def test_the_way_back_leads_to_the_same_place(tab: Open) -> None:
    page = tab(viewport=LOW)
    open_class(page)
    scroll_to_the_end(page, 9)
    page.wait_for_url(re.compile(r"\?page=[23]$"))
    tile = page.locator(".six .tile").last
    tile.scroll_into_view_if_needed()
    address, before = tile.get_attribute("href"), position_at_rest(page, tile)
    tile.click()
    page.wait_for_url(f"**{address}")
    page.go_back()
    page.wait_for_url(re.compile(r"\?page=[23]$"))
    again = page.locator(f'.six .tile[href="{address}"]')
    again.wait_for()
    assert position_at_rest(page, again) == pytest.approx(before, abs=2)
    page.locator(".previous-page a").scroll_into_view_if_needed()
    before, count = position_at_rest(page, again), len(images(page))
    page.locator(".previous-page a").click()
    page.locator(".six .tile").nth(count).wait_for()
    assert position_at_rest(page, again) == pytest.approx(before, abs=2)
    assert len(set(images(page))) == len(images(page))


def test_images_of_several_pages_are_searched_by(
    tab: Open, accessible: Callable[[Any], None], steady: Callable[[Any, str], None]
) -> None:
    page = tab()
    open_class(page)
    assert page.locator(".selection-bar").is_hidden()
    pick(page, 0)
    search = page.get_by_role("button", name="Search by their mean")
    assert search.is_disabled()
    page.click(".classes a >> nth=2")
    page.wait_for_url(re.compile(r"/explore/\d+"))
    pick(page, 1)
    assert page.locator(".selected-images img").count() == 2
    assert search.is_enabled()
    accessible(page)
    page.reload()
    assert page.locator(".six .select-image input:checked").count() == 1
    search.click()
    page.wait_for_url(re.compile(r"/explore/mean\?image=\d+&image=\d+$"))
    assert page.locator(".mean-images .tile").count() == 2
    assert page.locator(".neighbours .tile").count() == 24
    accessible(page)
    steady(page, page.url)


def test_a_seventh_is_refused_and_each_can_be_taken_out(tab: Open) -> None:
    page = tab()
    page.goto("/explore")
    for number in range(6):
        pick(page, number)
    seventh = page.locator(".six .select-image input").nth(6)
    seventh.click()
    assert not seventh.is_checked()
    for left in (5, 4):
        page.locator(".selected-images button").first.press("Enter")
        assert page.locator(".selected-images img").count() == left
        assert page.locator(".six .select-image input:checked").count() == left
        assert page.evaluate("document.activeElement.closest('.selected-images') !== null")
    page.get_by_role("button", name="Clear").click()
    assert page.locator(".selection-bar").is_hidden()


def test_an_image_is_picked_on_its_own_page(tab: Open) -> None:
    page = tab()
    page.goto("/explore")
    pick(page, 0)
    page.click(".six .tile >> nth=1")
    page.locator(".input-image .select-image input").check()
    assert page.locator(".selected-images img").count() == 2
    page.go_back()
    page.locator(".select-image input:checked").nth(1).wait_for(state="attached")


def test_it_works_without_javascript(tab: Open, accessible: Callable[[Any], None]) -> None:
    page = tab(java_script_enabled=False)
    page.goto("/explore")
    page.fill("#q", "TÁBBY")
    page.click("text=Find >> nth=-1")
    page.wait_for_url(re.compile("q="))
    assert page.locator(".class-row").count() == 1
    page.click(".class-row h2 a")
    page.click("text=newest")
    page.click(".pages a[rel=next]")
    page.wait_for_url(re.compile("images=newest.*page=2"))
    assert page.locator(".six .tile").count() == 4
    page.locator(".six .select-image input").nth(0).check()
    page.locator(".six .select-image input").nth(3).check()
    page.get_by_role("button", name="Search by their mean").click()
    page.wait_for_url(re.compile(r"/explore/mean\?image=\d+&image=\d+$"))
    assert page.locator(".neighbours .tile").count() == 24


def test_classes_are_found_while_typing(tab: Open, accessible: Callable[[Any], None]) -> None:
    page = tab(viewport={"width": 360, "height": 740})
    page.goto("/explore?q=rocket")
    assert page.locator("[data-class]:visible").count() == 1
    page.fill("#q", "cat tÁb")
    assert page.locator("[data-class]:visible").all_inner_texts() == ["tabby cat\n9"]
    assert page.inner_text(".sidebar .status-text") == "1 of 6 classes"
    page.fill("#q", "zebra")
    assert "zebra" in page.inner_text(".sidebar .status-text")
    page.press("#q", "Enter")
    page.wait_for_url(re.compile("q=zebra"))
    accessible(page)
    page.get_by_role("link", name="Show all classes").click()
    page.wait_for_url(re.compile("/explore$"))


def test_nothing_moves_while_a_class_loads(tab: Open, steady: Callable[[Any, str], None]) -> None:
    page = tab()
    open_class(page)
    pick(page, 0)
    steady(page, page.url)


def test_the_rows_follow_what_is_typed_also_from_other_pages(tab: Open) -> None:
    page = tab()
    page.goto("/explore")
    row = page.locator(".class-row:visible")
    every = row.count()
    # As if this class came on the second page.
    page.evaluate(
        """() => [...document.querySelectorAll('.class-row')].find(
            row => row.querySelector('h2').textContent.includes('tabby')).remove()"""
    )
    page.fill("[name=q]", "TABBY c")
    page.wait_for_function(
        "() => document.querySelectorAll('.class-row:not([hidden])').length === 1"
    )
    assert row.locator("h2").inner_text() == "tabby cat"
    assert row.locator("a.tile").count() > 0
    page.fill("[name=q]", "")
    page.wait_for_function(
        f"() => document.querySelectorAll('.class-row:not([hidden])').length === {every - 1}"
    )


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_frame_of_the_crop_lies_on_the_image(tab: Open, width: int) -> None:
    page = tab(viewport={"width": width, "height": 900})
    page.goto("/explore")
    page.locator(".tile").first.click()
    page.wait_for_selector(".input-image img")
    image, frame = (page.locator(f".input-image {one}").bounding_box() for one in ("img", "svg"))
    assert frame == pytest.approx(image, abs=0.6)
    # The pages' names stand in one row.
    tops = page.locator(".top li").evaluate_all("all => all.map(one => one.offsetTop)")
    assert len(set(tops)) == 1
