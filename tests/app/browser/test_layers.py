"""The pages of what each layer computes, in a real browser."""

import re
from collections.abc import Callable
from typing import Any

import pytest

Open = Callable[..., Any]


def test_links_lead_from_an_example_to_a_layer_to_a_map(tab: Open) -> None:
    page = tab(java_script_enabled=False)
    page.goto("/layers")
    page.click(".three a >> nth=1")
    page.wait_for_url(re.compile(r"/layers\?of=image-\d+$"))
    page.wait_for_load_state("load")
    page.click("h2 a:has-text('conv4')")
    page.wait_for_url(re.compile(r"/layers/conv4\?of=image-\d+$"))
    page.click(".maps a >> nth=200")
    page.wait_for_url(re.compile(r"/layers/conv4\?map=201&of=image-\d+$"))
    assert page.inner_text("section.single-map h2").startswith("Map 201")
    page.click(".steps a:has-text('conv1')")
    page.click("section.single-map a[href*='/filters/']")
    page.wait_for_url(re.compile(r"/filters/\d+\?of=image-\d+#kernel$"))


def test_the_pictures_of_every_tower_arrive(tab: Open) -> None:
    page = tab()
    page.goto("/layers?of=image-1", wait_until="networkidle")
    sizes = page.locator(".lane img").evaluate_all("all => all.map(one => one.naturalWidth)")
    assert len(sizes) == 14
    assert all(sizes)
    ones, twos = (
        page.locator(f".lane.{name}").evaluate_all(
            "all => all.map(one => one.getBoundingClientRect().left)"
        )
        for name in ("one", "two")
    )
    assert max(ones) < min(twos)  # two columns


def test_a_hovered_map_shows_its_number_and_maximum(tab: Open) -> None:
    page = tab()
    page.goto("/layers/conv2?of=image-1")
    said = page.locator(".maps a > span")

    def shown(number: int) -> bool:
        return bool(said.nth(number - 1).bounding_box()["height"] > 10)

    assert not shown(20)
    page.hover(".maps a >> nth=19")
    assert shown(20)
    assert re.fullmatch(r"Map 20\b\D+\d+\.\d+", said.nth(19).inner_text())
    page.locator(".maps a").nth(130).focus()
    page.keyboard.press("Tab")
    assert shown(132)


def test_on_a_phone_the_towers_are_stacked(tab: Open) -> None:
    page = tab(viewport={"width": 360, "height": 740})
    page.goto("/layers?of=image-1")
    boxes = [page.locator(".lane").nth(n).bounding_box() for n in range(14)]
    assert all(box["width"] > 300 for box in boxes)
    tops = [box["y"] for box in boxes]
    assert tops == sorted(tops)
    page.goto("/layers/conv3?of=image-1")
    sizes = page.locator(".maps a").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect()).map(r => [r.width, r.height])"
    )
    assert len(sizes) == 384
    assert min(min(size) for size in sizes) >= 24


@pytest.mark.parametrize("address", ["/layers/conv3", "/layers/fc6"])
def test_a_layer_is_accessible_and_steady(
    tab: Open, accessible: Callable[[Any], None], steady: Callable[[Any, str], None], address: str
) -> None:
    for scheme, width in (("light", 1280), ("dark", 360)):
        page = tab(viewport={"width": width, "height": 740}, color_scheme=scheme)
        if scheme == "dark" and address == "/layers/conv3":
            page.goto(address)  # without a current image
            accessible(page)
        steady(page, f"{address}?of=image-1")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        accessible(page)


def test_a_switch_works_at_once(tab: Open, classified: Callable[..., str]) -> None:
    page = tab()
    token = classified(page).rsplit("/", 1)[1]
    page.goto(f"/layers/switches?of={token}")
    page.evaluate("window.same = true")
    assert page.locator(".changed-layer img").count() == 14
    page.check("text=without GPU 1")
    page.wait_for_function("() => document.querySelectorAll('.changed-layer img').length === 28")
    assert page.evaluate("window.same")
    assert "silent=1" in page.url
    page.reload()
    assert page.is_checked("[name=silent][value='1']")


def test_presenting_lasts_from_page_to_page_and_is_left_again(tab: Open) -> None:
    page = tab(viewport={"width": 1920, "height": 1080})
    page.goto("/filters")
    before = page.locator("h1").bounding_box()["height"]
    page.click("[data-present]")
    page.wait_for_function("() => document.querySelector('h1').getBoundingClientRect().height > 40")
    assert page.locator("h1").bounding_box()["height"] > before
    page.goto("/figure-4")
    assert page.locator("html.present").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 1920
    page.click("[data-present]")
    assert page.locator("html.present").count() == 0
