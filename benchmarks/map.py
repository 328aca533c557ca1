"""`python benchmarks/map.py`: how long a frame of the map takes with 10,000 points.

A headless Chromium opens the map of a running server and drags it, turns the wheel over it and
moves the pointer across it, with a mouse's own events. Fewer points than asked for are made up to
that by others near them. Printed are the milliseconds from frame to frame, which the screen's 60 a
second bound from below, and those of them that the page's own script took.
"""

import json
import random
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

if not __package__:
    # Run as a script, Python puts this file's folder on the path, not the project's root.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tyro
from playwright.sync_api import Browser, Page, Route, sync_playwright
from rich.console import Console
from rich.table import Table

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu"]
SETTLED = 400
"""Milliseconds after its points have come until the page rests."""
WATCH = """(() => {
    window.times = { script: [], frame: [] };
    const request = window.requestAnimationFrame.bind(window);
    window.requestAnimationFrame = (draw) => request((now) => {
        const start = performance.now();
        draw(now);
        window.times.script.push(performance.now() - start);
    });
    let last = 0;
    const tick = (now) => {
        if (last) window.times.frame.push(now - last);
        last = now;
        request(tick);
    };
    request(tick);
})()"""
JITTER = 200
"""Of the map's units: how far from another point one that is made up lies, at most."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure how smooth the map is."""

    address: str = "http://127.0.0.1:8000"
    """Of the running server."""
    points: int = 10_000
    """Points on the map."""
    moves: int = 200
    """Of the mouse, in each way of moving it."""
    chromium: str = shutil.which("chromium") or "/usr/bin/chromium"
    """The browser."""


def main() -> None:
    """Measure and print."""
    options = tyro.cli(Options)
    table = Table("pixels a point", "mouse", "script, median", "95 %", "frame, median", "95 %")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=options.chromium, args=FLAGS)
        for ratio in (1, 2):
            for name, times in measure(browser, options, ratio).items():
                shares = [f"{share(times[of], p):.1f} ms" for of in times for p in (0.5, 0.95)]
                table.add_row(str(ratio), name, *shares)
        browser.close()
    Console(width=110).print(table)


def measure(browser: Browser, options: Options, ratio: int) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of script and of frames, by way of moving the mouse."""
    page = browser.new_page(
        viewport={"width": 1280, "height": 900}, device_scale_factor=ratio, base_url=options.address
    )
    page.add_init_script(WATCH)
    page.route("**/points.json*", lambda route: fill_up(route, options.points))
    page.goto("/map")
    page.locator("[data-mode=select]:enabled").wait_for()
    page.wait_for_timeout(SETTLED)
    found = {}
    for name, move in MOVES.items():
        page.evaluate("window.times.script = []; window.times.frame = []")
        move(page, options.moves)
        found[name] = page.evaluate("window.times")
    page.close()
    return found


def fill_up(route: Route, count: int) -> None:
    """Answer with as many points as asked for."""
    answer, drawn = route.fetch(), random.Random(0)
    sent: dict[str, Any] = answer.json()
    while len(sent["ids"]) < count:
        near = drawn.randrange(len(sent["ids"]))
        for name in ("ids", "numbers"):
            sent[name].append(sent[name][near])
        for name in ("x", "y"):
            moved = sent[name][near] + drawn.randint(-JITTER, JITTER)
            sent[name].append(min(max(moved, 0), sent["scale"]))
    route.fulfill(response=answer, body=json.dumps(sent))


def drag(page: Page, moves: int) -> None:
    """Move the map with the button held."""
    across, down = middle(page)
    page.mouse.move(across, down)
    page.mouse.down()
    for n in range(moves):
        page.mouse.move(across + 2 * (n % 100), down + 2 * (n % 50))
    page.mouse.up()


def zoom(page: Page, moves: int) -> None:
    """Turn the wheel inwards and out again."""
    page.mouse.move(*middle(page))
    for n in range(moves):
        page.mouse.wheel(0, -12 if n < moves / 2 else 12)


def point(page: Page, moves: int) -> None:
    """Move the pointer over the points."""
    across, down = middle(page)
    for n in range(moves):
        page.mouse.move(across - 200 + 2 * (n % 200), down - 60 + n % 120)


MOVES: dict[str, Callable[[Page, int], None]] = {"drags": drag, "turns": zoom, "points": point}


def middle(page: Page) -> tuple[float, float]:
    """The middle of the canvas, in pixels of the window."""
    box = page.locator("canvas").bounding_box()
    if box is None:
        raise SystemExit("There is no map at this address")
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def share(values: list[float], part: float) -> float:
    """The median, or the value that a share of them stays below."""
    return median(values) if part == 0.5 else sorted(values)[int(part * len(values))]


if __name__ == "__main__":
    main()
