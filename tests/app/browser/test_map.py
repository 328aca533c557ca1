"""The map, in a real browser: what it shows, opens and selects, by pointer, keys and touch."""

import io
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[3]
Open = Callable[..., Any]
Colours = Set[tuple[int, ...]]
MARGIN = 28
TALL = {"width": 1280, "height": 1000}


@dataclass(frozen=True)
class Points:
    """The points as the server gives them; places: int64 [S, 2]."""

    ids: list[int]
    numbers: list[int]
    labels: list[str]
    classes: list[int]
    places: np.ndarray
    scale: int
    guesses: list[int | None]

    def inside(self, left: float, top: float, right: float, bottom: float) -> set[int]:
        """The ids of the images in a region."""
        x, y = self.places.T
        within = (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
        return {self.ids[n] for n in np.flatnonzero(within)}

    def lonely(self) -> list[int]:
        """The points by how far the next one is, the farthest first."""
        far = np.linalg.norm(self.places[:, None] - self.places[None], axis=2)
        return np.argsort(-np.sort(far, axis=1)[:, 1]).tolist()

    def label(self, point: int) -> str:
        """The name of a point's class."""
        return self.labels[self.numbers[point]]

    def described(self, point: int) -> str:
        """The name of a point's class, and the guess if it is another."""
        guess = self.guesses[point]
        wrong = guess is not None and guess != self.numbers[point]
        return self.label(point) + (f", predicted: {self.labels[guess]}" if wrong else "")


@pytest.fixture(scope="module")
def points(site: str) -> Points:
    """The truth about the points."""
    with urllib.request.urlopen(f"{site}/api/map") as answer:
        sent = json.load(answer)
    return Points(
        ids=sent["ids"],
        numbers=sent["numbers"],
        labels=[c["label"] for c in sent["classes"]],
        classes=[c["id"] for c in sent["classes"]],
        places=np.stack([sent["x"], sent["y"]], axis=1),
        scale=sent["scale"],
        guesses=sent["guesses"],
    )


def opened(page: Any, address: str = "/map") -> Any:
    """Open the map and wait for its points."""
    page.goto(address)
    page.wait_for_selector("[data-mode=select]:enabled")
    return page


def on_screen(page: Any, points: Points, place: Any) -> tuple[float, float]:
    """Where a place is in the window: the whole map is as large as fits, in the middle."""
    box = page.locator("canvas").bounding_box()
    unit = (min(box["width"], box["height"]) - 2 * MARGIN) / points.scale
    across, down = (np.asarray(place, float) - points.scale / 2) * unit
    return box["x"] + box["width"] / 2 + across, box["y"] + box["height"] / 2 + down


def drag(page: Any, points: Points, start: Any, end: Any) -> None:
    """Drag from a place of the map to another."""
    page.mouse.move(*on_screen(page, points, start))
    page.mouse.down()
    page.mouse.move(*on_screen(page, points, end), steps=4)
    page.mouse.up()


def listed(page: Any) -> list[int]:
    """The ids of the images listed as selected, all of them."""
    while page.locator(".load-more button").is_visible():
        page.locator(".load-more button").click()
    found = page.locator(".selected .tile").evaluate_all("all => all.map(one => one.href)")
    return [int(address.rsplit("/", 1)[1]) for address in found]


def region_of(page: Any) -> tuple[int, ...]:
    """The region that the address names."""
    page.wait_for_url(re.compile(r"[?&]region="))
    return tuple(int(n) for n in re.search(r"region=([\d,-]+)", page.url)[1].split(","))


def focus_by_key(page: Any) -> None:
    """Bring the focus to the canvas as the keyboard does."""
    page.focus("[data-choice=colouring]")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "CANVAS"


def test_a_preview_follows_the_pointer_and_a_click_opens_the_image(
    tab: Open, points: Points
) -> None:
    page = opened(tab(viewport=TALL))
    card = page.locator(".card")
    for point in points.lonely()[:3]:
        x, y = on_screen(page, points, points.places[point])
        page.mouse.move(x + 2, y + 1)
        page.wait_for_selector(f".card[href$='/images/{points.ids[point]}'] img")
        assert card.inner_text() == points.described(point)
        picture = card.locator("img")
        assert picture.get_attribute("src") == f"/images/{points.ids[point]}/thumbnail.jpg"
        picture.evaluate("one => one.decode()")
        assert picture.evaluate("one => one.naturalWidth") == 256
        before = card.bounding_box()
        page.mouse.move(x - 2, y + 1)
        page.wait_for_function(
            "left => document.querySelector('.card').getBoundingClientRect().left !== left",
            arg=before["x"],
        )
        assert card.bounding_box()["x"] == pytest.approx(before["x"] - 4, abs=1.1)
    page.mouse.click(x, y)
    page.wait_for_url(re.compile(rf"/images/{points.ids[point]}$"))


@pytest.mark.parametrize("by", ["shift", "mode"])
def test_dragging_over_a_region_selects_exactly_the_images_in_it(
    tab: Open, points: Points, by: str
) -> None:
    page = opened(tab(viewport=TALL))
    middle = np.median(points.places, axis=0)
    start, end = np.full(2, -0.02 * points.scale), middle
    if by == "mode":
        page.click("[data-mode=select]")
        drag(page, points, start, end)
    else:
        page.keyboard.down("Shift")
        drag(page, points, start, end)
        page.keyboard.up("Shift")
    region = region_of(page)
    wanted = points.inside(*region)
    unit = 2 * points.scale / (page.locator("canvas").bounding_box()["height"] - 2 * MARGIN)
    assert region[2:] == pytest.approx(tuple(end), abs=unit)
    assert 2 < len(wanted) < len(points.ids)
    found = listed(page)
    assert len(found) == len(wanted)
    assert set(found) == wanted
    said = page.inner_text(".counts")
    assert said.startswith(f"{len(wanted)}: ")
    assert page.inner_text(".under .status").startswith(f"{len(wanted)} ")
    counts = dict.fromkeys(points.labels, 0)
    for image in wanted:
        counts[points.label(points.ids.index(image))] += 1
    named = dict(re.findall(r"(?:: |, )([^,]+?) (\d+)(?=,|$)", said))
    assert all(counts[label] == int(count) for label, count in named.items())
    # The address brings the selection back, and Escape ends it.
    opened(page, page.url)
    assert set(listed(page)) == wanted
    page.locator("canvas").press("Escape")
    page.locator("canvas").press("Escape")
    page.wait_for_function("() => !location.search")
    assert page.locator(".selected li").count() == 0


def test_a_cell_is_selected_by_label_and_prediction(
    tab: Open, points: Points, accessible: Callable[[Any], None]
) -> None:
    number, guess = next(
        (n, g) for n, g in zip(points.numbers, points.guesses, strict=True) if n != g is not None
    )
    of_label = {i for i, n in zip(points.ids, points.numbers, strict=True) if n == number}
    truth = zip(points.ids, points.numbers, points.guesses, strict=True)
    cell = {i for i, n, g in truth if (n, g) == (number, guess)}
    page = opened(tab(viewport=TALL))
    page.select_option("[data-choice=label]", str(points.classes[number]))
    assert set(listed(page)) == of_label
    page.select_option("[data-choice=guess]", str(points.classes[guess]))
    assert set(listed(page)) == cell
    accessible(page)
    address = f"label={points.classes[number]}&guess={points.classes[guess]}"
    page.wait_for_url(re.compile(address))
    opened(page, page.url)
    assert set(listed(page)) == cell
    # A region narrows it, and Escape ends it all.
    opened(page, f"/map?{address}&region=0,0,{points.scale // 2},{points.scale}")
    half = points.inside(0, 0, points.scale // 2, points.scale)
    assert set(listed(page)) == cell & half
    page.locator("canvas").press("Escape")
    page.locator("canvas").press("Escape")
    page.wait_for_function("() => !location.search")
    page.select_option("[data-choice=guess]", "other")
    pairs = zip(points.ids, points.numbers, points.guesses, strict=True)
    assert set(listed(page)) == {i for i, n, g in pairs if n != g}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_show_predictions_and_disagreement(tab: Open, points: Points, scheme: str) -> None:
    page = opened(tab(viewport=TALL, color_scheme=scheme))
    texts = page.locator(".key input").evaluate_all(f"all => all.map(b => b.dataset.{scheme})")
    classes = [tuple(bytes.fromhex(text[1:])) for text in texts]
    guessed = {classes[g] for g in points.guesses if g is not None}
    page.select_option("[data-choice=colouring]", "prediction")
    wait_for_colours(page, guessed, absent={*classes} - guessed)
    page.select_option("[data-choice=colouring]", "disagreement")
    names = page.evaluate(
        "['--ink', '--agreeing'].map(name =>"
        " getComputedStyle(document.documentElement).getPropertyValue(name).trim())"
    )
    ink, agreeing = (tuple(bytes.fromhex(name[1:])) for name in names)
    agree = sum(n == g for n, g in zip(points.numbers, points.guesses, strict=True))
    assert 0 < agree < len(points.ids)
    wait_for_colours(page, {ink, agreeing}, absent={*classes})
    page.wait_for_url(re.compile(r"[?&]colour=disagreement"))
    opened(page, page.url)
    assert page.locator("[data-choice=colouring]").input_value() == "disagreement"


def test_a_selection_is_handed_to_the_review(tab: Open, points: Points) -> None:
    page = opened(tab(viewport=TALL), f"/map?region=0,0,{points.scale},{points.scale}")
    page.click(".correct summary")
    # This server takes no corrections, and says how to turn them on.
    assert page.locator(".correct code").inner_text() == "ALEXNET_ADMIN_TOKEN"
    sent = page.evaluate(
        "[...new FormData(document.querySelector('.correct form')).getAll('images')]"
    )
    assert sorted(int(n) for n in sent[0].split(",")) == sorted(points.ids)


def test_two_to_six_selected_images_lead_to_the_search_by_their_mean(
    tab: Open, points: Points
) -> None:
    rising = np.argsort(points.places[:, 0], kind="stable")
    edge = int(points.places[rising[2], 0])
    three = points.inside(0, 0, edge, points.scale)
    page = opened(tab(viewport=TALL), f"/map?region=0,0,{edge},{points.scale}")
    assert set(listed(page)) == three
    page.click(".mean button")
    page.wait_for_url(re.compile(r"/explore/mean\?"))
    assert sorted(int(n) for n in re.findall(r"image=(\d+)", page.url)) == sorted(three)


def test_images_of_the_selection_are_picked_as_in_explore(tab: Open, points: Points) -> None:
    page = opened(tab(viewport=TALL), f"/map?region=0,0,{points.scale},{points.scale}")
    assert page.locator(".mean").is_hidden()
    for n in (1, 4):
        page.locator(".selected .select-image input").nth(n).check()
    first = [page.locator(".selected .tile").nth(n).get_attribute("href") for n in (1, 4)]
    page.click(".selection-bar [type=submit]")
    page.wait_for_url(re.compile(r"/explore/mean\?"))
    assert re.findall(r"image=(\d+)", page.url) == [href.rsplit("/", 1)[1] for href in first]


def test_hidden_classes_are_neither_hovered_nor_selected(tab: Open, points: Points) -> None:
    page = opened(tab(viewport=TALL), f"/map?region=0,0,{points.scale},{points.scale}")
    point = points.lonely()[0]
    number = points.numbers[point]
    place = on_screen(page, points, points.places[point])
    assert len(listed(page)) == len(points.ids)
    page.locator(".key input").nth(number).focus()
    page.keyboard.press("Space")
    page.wait_for_url(re.compile(rf"[?&]hide={points.classes[number]}(&|$)"))
    others = {i for i, n in zip(points.ids, points.numbers, strict=True) if n != number}
    assert set(listed(page)) == others
    opened(page, page.url)
    assert not page.locator(".key input").nth(number).is_checked()
    assert set(listed(page)) == others
    page.evaluate("scrollTo(0, 0)")
    page.mouse.move(*place)
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.locator(".card").is_hidden()
    page.click("[data-all=show]")
    assert set(listed(page)) == set(points.ids)
    page.evaluate("scrollTo(0, 0)")
    page.mouse.move(place[0] + 1, place[1])
    page.wait_for_selector(f".card[href$='/images/{points.ids[point]}']")


def wait_for_colours(page: Any, present: Colours, absent: Colours = frozenset()) -> None:
    """Wait until the canvas has more than a few pixels of some colours, and not of others."""
    deadline = time.monotonic() + 20
    while True:
        shown = Image.open(io.BytesIO(page.locator("canvas").screenshot())).convert("RGB")
        colours = {colour for count, colour in shown.getcolors(2**20) if count > 80}
        if present <= colours and not absent & colours:
            return
        assert time.monotonic() < deadline, (present - colours, absent & colours)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_class_has_its_colour_and_the_legend_shows_it(tab: Open, scheme: str) -> None:
    page = opened(tab(viewport=TALL, color_scheme=scheme))
    boxes = page.locator(".key input")
    texts = boxes.evaluate_all(f"all => all.map(box => box.dataset.{scheme})")
    wanted = [tuple(bytes.fromhex(text[1:])) for text in texts]
    assert len(set(wanted)) == len(wanted)
    wait_for_colours(page, set(wanted))
    dots = page.locator(f".key .in-{scheme}")
    assert dots.evaluate_all("all => all.map(one => one.getAttribute('fill'))") == texts
    assert dots.first.evaluate("one => getComputedStyle(one).display") == "inline"
    boxes.nth(1).uncheck()
    page.mouse.move(0, 0)
    wait_for_colours(page, {*wanted} - {wanted[1]}, absent={wanted[1]})


def test_the_map_works_by_keyboard(
    tab: Open, points: Points, accessible: Callable[[Any], None]
) -> None:
    page = opened(tab(viewport=TALL))
    focus_by_key(page)
    for key in ("ArrowRight", "ArrowDown", "+", "+"):
        page.keyboard.press(key)
    page.wait_for_url(re.compile(r"[?&]at=\d+,\d+,2\.25$"))
    page.keyboard.press("0")
    page.wait_for_function("() => !location.search")
    # Shift and arrows mark a region, from the middle on.
    page.keyboard.down("Shift")
    for _ in range(18):
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowUp")
    page.keyboard.up("Shift")
    region = region_of(page)
    assert region[2:] == (round(points.scale / 2), round(points.scale / 2))
    assert set(listed(page)) == points.inside(*region)
    accessible(page)
    # So do Select, the space bar and Enter.
    page.focus("[data-mode=select]")
    page.keyboard.press("Enter")
    focus_by_key(page)
    page.keyboard.press("Space")
    for _ in range(15):
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_function(
        "text => !location.search.includes(text)", arg=",".join(map(str, region))
    )
    second = region_of(page)
    assert second != region
    assert set(listed(page)) == points.inside(*second)
    # Enter opens the image nearest to the middle.
    point = points.lonely()[0]
    opened(page, f"/map?at={points.places[point, 0]},{points.places[point, 1]},9")
    focus_by_key(page)
    page.wait_for_selector(f".card[href$='/images/{points.ids[point]}']")
    page.wait_for_function(
        "words => document.querySelector('.under .status').textContent === words",
        arg=f"{points.described(point)}, image {points.ids[point]}",
    )
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(rf"/images/{points.ids[point]}$"))


def test_wheel_zooms_at_the_pointer_and_drag_pans(tab: Open, points: Points) -> None:
    page = opened(tab(viewport=TALL))
    point = points.lonely()[1]
    x, y = on_screen(page, points, points.places[point])
    page.mouse.move(x, y)
    # Before the map is clicked, the wheel is the page's.
    page.mouse.wheel(0, 60)
    page.wait_for_function("() => scrollY > 0")
    assert not re.search(r"[?&]at=", page.url)
    page.evaluate("scrollTo(0, 0)")
    page.locator(".stage canvas").click(position={"x": 3, "y": 3})
    page.mouse.move(x, y)
    page.mouse.wheel(0, -400)
    page.wait_for_url(re.compile(r"[?&]at="))
    assert page.evaluate("scrollY") == 0
    page.mouse.move(x + 1, y)
    page.wait_for_selector(f".card[href$='/images/{points.ids[point]}']")
    page.mouse.down()
    page.mouse.move(x + 60, y + 40, steps=4)
    page.mouse.up()
    page.mouse.move(x + 61, y + 40)
    page.wait_for_selector(f".card:visible[href$='/images/{points.ids[point]}']")
    assert "/map" in page.url
    # At the whole map a turn outwards is the page's own.
    page.click("[data-zoom=whole]")
    page.wait_for_function("() => !location.search")
    page.mouse.move(x, y)
    page.mouse.wheel(0, 300)
    page.wait_for_function("() => scrollY > 0")


def test_near_enough_the_images_themselves_are_drawn(tab: Open, points: Points) -> None:
    page = tab(viewport=TALL)
    asked: list[int] = []
    page.on(
        "request",
        lambda request: asked.extend(
            int(n) for n in re.findall(r"/images/(\d+)/thumbnail", request.url)
        ),
    )
    opened(page)
    assert not asked
    x, y = (int(n) for n in points.places[points.lonely()[0]])
    opened(page, f"/map?at={x},{y},20")
    page.wait_for_load_state("networkidle")
    assert points.ids[points.lonely()[0]] in asked
    # Only those in view: at this zoom a twentieth of the map's width, and somewhat more across.
    reach = points.scale / 20
    near = points.inside(x - reach, y - reach, x + reach, y + reach)
    assert set(asked) <= near


def test_a_finger_taps_a_point_then_its_picture(tab: Open, points: Points) -> None:
    page = opened(
        tab(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True), "/map"
    )
    point = points.lonely()[0]
    page.touchscreen.tap(*on_screen(page, points, points.places[point]))
    card = page.wait_for_selector(f".card[href$='/images/{points.ids[point]}']")
    card.tap()
    page.wait_for_url(re.compile(rf"/images/{points.ids[point]}$"))


def test_without_scripts_there_are_a_picture_and_the_classes(tab: Open) -> None:
    for scheme in ("light", "dark"):
        page = tab(java_script_enabled=False, color_scheme=scheme)
        with page.expect_response(re.compile(r"/map\.png")) as drawing:
            page.goto("/map")
        assert f"scheme={scheme}" in drawing.value.url
        assert page.locator(".drawing").bounding_box()["width"] > 600
        assert page.locator("canvas").is_hidden()
        assert page.locator(".key input").first.is_hidden()
    page.locator(".key a").first.click()
    page.wait_for_url(re.compile(r"/explore/\d+$"))


def test_a_failure_to_load_the_points_is_shown(
    tab: Open, accessible: Callable[[Any], None]
) -> None:
    page = tab()
    page.route("**/points.bin*", lambda route: route.fulfill(status=404, body="{}"))
    page.goto("/map")
    page.wait_for_selector(".failed[role=alert]")
    accessible(page)
    page.unroute("**/points.bin*")
    page.click(".failed button")
    page.wait_for_selector("[data-mode=select]:enabled")


def test_the_frame_benchmark_prints_its_table(site: str, chromium: Any) -> None:
    words = ["benchmarks/map.py", "--address", site, "--points", "100", "--moves", "3"]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Three ways to move the mouse at two pixel ratios, a median and a percentile of two times.
    assert len(re.findall(r"[\d.]+ ms", done.stdout)) == 3 * 2 * 4
