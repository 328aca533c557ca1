"""Screenshots of every page, of the demo photographs only: `make screenshots`.

They are taken of the home that `make demo` made, which is only read, and written to
docs/screenshots beside docs/README.md, which shows them all. With names of pages, as in `python -m
docs.screenshots figure-4 map`, only those are taken.
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

from docs.demo_home import NotDemoError, beside, demo_folder
from docs.pages import SHOTS, Look, Shot
from storage.home import home_from_environment

ROOT = Path(__file__).resolve().parent.parent
GALLERY, FOLDER = ROOT / "docs/README.md", ROOT / "docs/screenshots"
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
QUALITY = 68
SETTLED = "document.readyState === 'complete' && ![...document.images].some(i => " + (
    "i.loading !== 'lazy' && !i.complete)"
)
STILL, LONGEST = 700, 30
"""Milliseconds in which what is drawn by script comes to rest; seconds to wait for pictures."""
INTRODUCTION = """# What it looks like

Every page, of the demo photographs that `make demo` trains on. `make screenshots` takes these
pictures and writes this page.
"""


@dataclass(frozen=True)
class Options:
    """Which pages."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Names of the pages to take, as their files are called; all of them when none is named."""


def main() -> None:
    """Take the screenshots and write the gallery."""
    options = tyro.cli(Options)
    home = home_from_environment()
    chosen = [shot for shot in SHOTS if not options.names or shot.name in options.names]
    try:
        demo = demo_folder(home)
        if not chosen:
            raise NotDemoError(f"No page is called {' or '.join(options.names)}")
        with beside(home) as shown, serving(shown.root) as site, browser() as chromium:
            take_all(chromium, site, demo, chosen)
    except NotDemoError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    GALLERY.write_text(gallery(), encoding="utf-8")
    size = sum(file.stat().st_size for file in FOLDER.iterdir())
    click.echo(f"{FOLDER.relative_to(ROOT)}: {size / 1e6:.2f} MB in all")


def take_all(chromium: Browser, site: str, demo: Path, shots: Sequence[Shot]) -> None:
    """Take the pages in all their looks; remove files that no page has any more."""
    FOLDER.mkdir(exist_ok=True)
    known = {shot.file(look) for shot in SHOTS for look in shot.looks}
    for file in FOLDER.iterdir():
        if file.name not in known:
            file.unlink()
    for shot in shots:
        for look in shot.looks:
            picture = take(chromium, site, demo, shot, look)
            (FOLDER / shot.file(look)).write_bytes(picture)
            click.echo(f"{shot.file(look)} {len(picture) / 1000:.0f} kB")


def take(chromium: Browser, site: str, demo: Path, shot: Shot, look: Look) -> bytes:
    """Go to a page as a new visitor would, and take its picture as WebP."""
    context = chromium.new_context(
        base_url=site,
        viewport={"width": look.width, "height": look.height},
        color_scheme="dark" if look.scheme == "dark" else "light",
        reduced_motion="reduce",
    )
    try:
        page = context.new_page()
        shot.steps(page, demo)
        page.wait_for_selector(shot.until, state="attached")
        settle(page)
        return encoded(page, look, shot.most)
    finally:
        context.close()


def settle(page: Page) -> None:
    """Wait until the pictures of a page are there and what a script draws has come to rest."""
    deadline = time.monotonic() + LONGEST
    # Not wait_for_function: the pages' policy of content forbids what that does.
    while not page.evaluate(SETTLED) and time.monotonic() < deadline:
        page.wait_for_timeout(100)
    page.wait_for_timeout(STILL)


def encoded(page: Page, look: Look, most: int) -> bytes:
    """The upper part of the page that is open; a narrow one is longer."""
    whole = int(page.evaluate("document.documentElement.scrollHeight"))
    height = min(whole, most * max(1, 1280 // (2 * look.width)))
    clip: FloatRect = {"x": 0.0, "y": 0.0, "width": float(look.width), "height": float(height)}
    out = io.BytesIO()
    with Image.open(io.BytesIO(page.screenshot(full_page=True, clip=clip))) as picture:
        picture.convert("RGB").save(out, "WEBP", quality=QUALITY, method=6)
    return out.getvalue()


@contextmanager
def serving(home: Path) -> Iterator[str]:
    """Serve a home on a free port, and end the server afterwards. Raises NotDemoError."""
    command = [sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:0", "app:create_app()"]
    env = {**os.environ, "ALEXNET_HOME": str(home), "DATABASE_URL": ""}
    with subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr
            line = server.stderr.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            if found is None:
                raise NotDemoError(f"The server does not start: {line}{server.stderr.read()}")
            yield found[0]
        finally:
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=60)


@contextmanager
def browser() -> Iterator[Browser]:
    """The system's Chromium. Raises NotDemoError where there is none."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        raise NotDemoError("No Chromium was found; install it, as with `apt-get install chromium`")
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=found, args=list(FLAGS))
        try:
            yield chromium
        finally:
            chromium.close()


def gallery() -> str:
    """The page that shows them all."""
    parts = [INTRODUCTION]
    for room, shots in groupby(SHOTS, key=lambda shot: shot.room):
        parts.append(f"## {room}\n")
        parts += [described(shot) for shot in shots]
    return "\n".join(parts)


def described(shot: Shot) -> str:
    """A page's caption and its pictures."""
    words = {"-dark": ", in the dark", "-small": ", at 360 pixels"}
    pictures = []
    for look in shot.looks:
        kind = "".join(said for suffix, said in words.items() if suffix in look.suffix)
        name = shot.name.replace("-", " ").capitalize()
        pictures.append(f"![{name}{kind}](screenshots/{shot.file(look)})\n")
    return "\n".join([f"{shot.caption}\n", *pictures])


if __name__ == "__main__":
    main()
