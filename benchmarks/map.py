"""`python benchmarks/map.py`: how long a frame of the map takes, with many points.

A headless Chromium opens the map of a running server, drags it, turns the wheel over it and moves
the pointer across it, with real mouse events. If the map has fewer points than requested, others
near them are added. The table has the milliseconds from frame to frame, at least those of the
screen's 60 Hz, and the part of them that the page's own script took.
"""

import json
import shutil
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

if not __package__:
    # Run as a script, Python puts this file's folder on the path, not the project's root.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import tyro
from playwright.sync_api import Browser, Page, Route, sync_playwright
from rich.console import Console
from rich.table import Table

CHROMIUM_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu"]
SETTLING_TIME = 400
"""Milliseconds until the page is idle once its points are drawn."""
RECORD_FRAMES = """(() => {
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
MAX_JITTER = 200
"""Maximum distance of an added point from a real one, in the map's units."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure how smooth the map is."""

    address: str = "http://127.0.0.1:8000"
    """URL of the running server."""
    points: int = 10_000
    """Points on the map."""
    moves: int = 200
    """Mouse events of each kind."""
    chromium: str = shutil.which("chromium") or "/usr/bin/chromium"
    """Path of the browser."""


def main() -> None:
    """Measure and print the table."""
    options = tyro.cli(Options)
    table = Table("device pixel ratio", "mouse", "script, median", "95 %", "frame, median", "95 %")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=options.chromium, args=CHROMIUM_FLAGS)
        for ratio in (1, 2):
            for name, times in measure_frames(browser, options, ratio).items():
                shares = [f"{quantile(times[of], p):.1f} ms" for of in times for p in (0.5, 0.95)]
                table.add_row(str(ratio), name, *shares)
        browser.close()
    Console(width=110).print(table)


def measure_frames(
    browser: Browser, options: Options, ratio: int
) -> dict[str, dict[str, list[float]]]:
    """Measure the milliseconds of scripts and frames for each kind of mouse movement."""
    page = browser.new_page(
        viewport={"width": 1280, "height": 900}, device_scale_factor=ratio, base_url=options.address
    )
    page.add_init_script(RECORD_FRAMES)
    page.route("**/points.bin*", lambda route: add_points(route, options.points))
    page.goto("/map")
    page.locator("[data-mode=select]:enabled").wait_for()
    page.wait_for_timeout(SETTLING_TIME)
    frames = {}
    for name, move in MOVES.items():
        page.evaluate("window.times.script = []; window.times.frame = []")
        move(page, options.moves)
        frames[name] = page.evaluate("window.times")
    page.close()
    return frames


def add_points(route: Route, count: int) -> None:
    """Pass on the server's points, with others added up to `count`."""
    response = route.fetch()
    route.fulfill(response=response, body=extend_points(response.body(), count))


def extend_points(body: bytes, count: int) -> bytes:
    """Add points near those of a points file (`app.views.map.points_file`), up to `count`."""
    length = struct.unpack_from("<I", body)[0]
    header = json.loads(body[4 : 4 + length])
    have, rest = header["count"], body[4 + length :]
    near = np.random.default_rng(0).integers(0, have, max(count - have, 0))
    columns: list[np.ndarray] = []
    start = 0
    for name in ("ids", "x", "y", "numbers", "guesses")[: 5 if header["guessed"] else 4]:
        dtype = np.dtype("<u4" if name == "ids" else "<u2")
        column = np.frombuffer(rest, dtype, have, start)
        start += column.nbytes
        added = column[near].astype(np.int64)
        if name in ("x", "y"):
            moved = np.random.default_rng(len(columns)).integers(-MAX_JITTER, MAX_JITTER, len(near))
            added = np.clip(added + moved, 0, header["scale"])
        columns.append(np.concatenate([column, added.astype(dtype)]))
    text = json.dumps(header | {"count": len(columns[0])}).encode()
    text += b" " * (-len(text) % 4)
    return struct.pack("<I", len(text)) + text + b"".join(column.tobytes() for column in columns)


def drag(page: Page, moves: int) -> None:
    """Drag the map."""
    across, down = canvas_centre(page)
    page.mouse.move(across, down)
    page.mouse.down()
    for n in range(moves):
        page.mouse.move(across + 2 * (n % 100), down + 2 * (n % 50))
    page.mouse.up()


def zoom(page: Page, moves: int) -> None:
    """Zoom in and out again with the wheel."""
    page.locator("canvas").focus()
    page.mouse.move(*canvas_centre(page))
    for n in range(moves):
        page.mouse.wheel(0, -12 if n < moves / 2 else 12)


def hover(page: Page, moves: int) -> None:
    """Move the pointer over the points."""
    across, down = canvas_centre(page)
    for n in range(moves):
        page.mouse.move(across - 200 + 2 * (n % 200), down - 60 + n % 120)


MOVES: dict[str, Callable[[Page, int], None]] = {"drag": drag, "zoom": zoom, "hover": hover}


def canvas_centre(page: Page) -> tuple[float, float]:
    """Return the centre of the canvas in CSS pixels. Raises SystemExit if there is none."""
    box = page.locator("canvas").bounding_box()
    if box is None:
        raise SystemExit("This server shows no map: run `flask index build` first")
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def quantile(values: list[float], part: float) -> float:
    """Return the median, or the value below which a part of the values lie."""
    return median(values) if part == 0.5 else sorted(values)[int(part * len(values))]


if __name__ == "__main__":
    main()
