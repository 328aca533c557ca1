"""Screenshots of every page, of the demo photographs only: `make screenshots`.

They show the home that `make demo` made, which is only read, and are written to docs/screenshots;
docs/gallery.md shows them all. `python -m docs.screenshots figure-4 map` photographs only the pages
with these names.
"""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import click
import tyro
from PIL import Image
from playwright.sync_api import Browser, FloatRect, Page, sync_playwright

from docs.demo_home import ScreenshotError, find_demo_photographs, temporary_copy
from docs.pages import SCREENSHOTS, Screenshot, View
from storage.home import home_from_environment

ROOT = Path(__file__).resolve().parent.parent
GALLERY, FOLDER = ROOT / "docs/gallery.md", ROOT / "docs/screenshots"
CHROMIUM_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
WEBP_QUALITY = 68
IMAGES_LOADED = (
    "document.readyState === 'complete' && "
    "![...document.images].some(image => image.loading !== 'lazy' && !image.complete)"
)
IMAGES_TIMEOUT = 30.0
"""Seconds to wait for a page's images."""
DRAWING_TIME = 700.0
"""Milliseconds after which scripts have finished drawing."""
INTRODUCTION = """# Gallery

Every page, with the demo photographs that `make demo` trains on. `make screenshots` takes these
pictures and writes this page.
"""


@dataclass(frozen=True)
class Options:
    """Take screenshots of the pages and write the gallery."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Pages to photograph, by the stems of their file names; all of them by default."""


def main() -> None:
    """Take the screenshots and write the gallery; exit with 2 if that is impossible."""
    options = tyro.cli(Options)
    home = home_from_environment()
    selected = [page for page in SCREENSHOTS if not options.names or page.name in options.names]
    try:
        if not selected:
            raise ScreenshotError(f"No page is called {' or '.join(options.names)}")
        demo = find_demo_photographs(home)
        with temporary_copy(home) as copy, serve(copy.root) as url, launch_chromium() as chromium:
            take_screenshots(chromium, url, demo, selected)
    except ScreenshotError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    GALLERY.write_text(gallery_page(), encoding="utf-8")
    size = sum(file.stat().st_size for file in FOLDER.iterdir())
    click.echo(f"{FOLDER.relative_to(ROOT)}: {size / 1e6:.2f} MB in total")


def take_screenshots(
    chromium: Browser, url: str, demo: Path, screenshots: Sequence[Screenshot]
) -> None:
    """Photograph pages in all their views, and remove pictures that the gallery no longer has."""
    FOLDER.mkdir(exist_ok=True)
    known = {shot.file_name(view) for shot in SCREENSHOTS for view in shot.views}
    for file in FOLDER.iterdir():
        if file.name not in known:
            file.unlink()
    for shot in screenshots:
        for view in shot.views:
            picture = take_screenshot(chromium, url, demo, shot, view)
            (FOLDER / shot.file_name(view)).write_bytes(picture)
            click.echo(f"{shot.file_name(view)} {len(picture) / 1000:.0f} kB")


def take_screenshot(chromium: Browser, url: str, demo: Path, shot: Screenshot, view: View) -> bytes:
    """Go to a page as a new visitor would, and return its picture as WebP."""
    context = chromium.new_context(
        base_url=url,
        viewport={"width": view.width, "height": view.height},
        color_scheme=view.scheme,
        reduced_motion="reduce",
    )
    try:
        page = context.new_page()
        shot.steps(page, demo)
        page.wait_for_selector(shot.wait_for, state="attached")
        wait_until_drawn(page)
        return capture_webp(page, view, shot.max_height)
    finally:
        context.close()


def wait_until_drawn(page: Page) -> None:
    """Wait until a page's images have loaded and its scripts have finished drawing."""
    deadline = time.monotonic() + IMAGES_TIMEOUT
    # Not wait_for_function, which evaluates strings: the Content-Security-Policy forbids that.
    while not page.evaluate(IMAGES_LOADED) and time.monotonic() < deadline:
        page.wait_for_timeout(100)
    page.wait_for_timeout(DRAWING_TIME)


def capture_webp(page: Page, view: View, max_height: int) -> bytes:
    """Capture the upper part of a page; a narrow page may be longer in proportion."""
    full_height = int(page.evaluate("document.documentElement.scrollHeight"))
    height = min(full_height, max_height * max(1, 1280 // (2 * view.width)))
    clip: FloatRect = {"x": 0.0, "y": 0.0, "width": float(view.width), "height": float(height)}
    out = io.BytesIO()
    with Image.open(io.BytesIO(page.screenshot(full_page=True, clip=clip))) as picture:
        picture.convert("RGB").save(out, "WEBP", quality=WEBP_QUALITY, method=6)
    return out.getvalue()


@contextmanager
def serve(home: Path) -> Iterator[str]:
    """Serve a home on a free port and yield its URL. Raises ScreenshotError if that fails."""
    command = [sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:0", "app:create_app()"]
    env = {**os.environ, "ALEXNET_HOME": str(home), "DATABASE_URL": ""}
    # As `make demo` serves it.
    env["ALEXNET_SWITCH_WITHOUT_TOKEN"] = "1"
    with subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr
            line = server.stderr.readline()
            url = re.search(r"http://127\.0\.0\.1:\d+", line)
            if url is None:
                raise ScreenshotError(f"The server does not start: {line}{server.stderr.read()}")
            yield url[0]
        finally:
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=60)


@contextmanager
def launch_chromium() -> Iterator[Browser]:
    """Launch the system's Chromium. Raises ScreenshotError if it is not installed."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        raise ScreenshotError(
            "Chromium was not found: install it, as with `apt-get install chromium`"
        )
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=list(CHROMIUM_FLAGS))
        try:
            yield chromium
        finally:
            chromium.close()


def gallery_page() -> str:
    """Write the gallery in Markdown: each section's pages, with their captions and pictures."""
    view_names = {
        "": "",
        "-dark": ", dark",
        "-small": ", narrow",
        "-small-dark": ", narrow and dark",
    }
    parts = [INTRODUCTION]
    for section, screenshots in groupby(SCREENSHOTS, key=lambda shot: shot.section):
        parts.append(f"## {section}\n")
        for shot in screenshots:
            parts.append(f"{shot.caption}\n")
            title = shot.name.replace("-", " ").capitalize()
            parts += [
                f"![{title}{view_names[view.suffix]}](screenshots/{shot.file_name(view)})\n"
                for view in shot.views
            ]
    return "\n".join(parts)


if __name__ == "__main__":
    main()
