"""The pages in a real browser, served by the real server in a process of its own."""

import base64
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
RESULT = re.compile(r"/results/[\w-]{22}$")
pytestmark = [
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason=f"there is no browser at {CHROMIUM}"),
    pytest.mark.timeout(120),
]


@contextmanager
def serving(environment: dict[str, str]) -> Iterator[str]:
    """Run gunicorn as the README says, on a free port; end it as Ctrl-C does."""
    command = [sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:0", "app:create_app()"]
    env = {**os.environ, **environment, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr
            line = server.stderr.readline()
            found = re.fullmatch(r"Serving at (http://127\.0\.0\.1:\d+) .*\n", line)
            assert found, line + server.stderr.read()
            yield found[1]
        finally:
            server.send_signal(signal.SIGINT)
            _, rest = server.communicate(timeout=30)
    assert server.returncode == 0
    assert "Traceback" not in rest


@pytest.fixture(scope="module")
def site(environment: dict[str, str]) -> Iterator[str]:
    """The address of a server with everything there, the network already read."""
    with serving(environment) as address:
        with urllib.request.urlopen(f"{address}/healthz") as answer:
            assert answer.status == 200
        yield address


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


Open = Callable[..., Any]


@pytest.fixture
def tab(chromium: Any, site: str) -> Iterator[Open]:
    """Opens a tab; at the end nothing may have been complained of or asked of another host."""
    contexts, complaints = [], []

    def open_tab(**options: Any) -> Any:
        contexts.append(chromium.new_context(base_url=site, **options))
        page = contexts[-1].new_page()
        page.on("console", lambda said: complaints.append(said.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request", lambda request: complaints.append(request.url) if foreign(request) else 0
        )
        return page

    def foreign(request: Any) -> bool:
        return not request.url.startswith((site, "blob:"))

    yield open_tab
    for context in contexts:
        context.close()
    # That a page came with a 4xx status is what some tests are about.
    assert [
        said for said in complaints if "the server responded with a status of 4" not in said
    ] == []


@pytest.fixture(scope="module")
def photograph(tmp_path_factory: pytest.TempPathFactory, jpeg: bytes) -> Path:
    """A photograph on the disk."""
    file = tmp_path_factory.mktemp("pictures") / "my cat.jpg"
    file.write_bytes(jpeg)
    return file


def check_answer(page: Any) -> None:
    """The page that answers has five bars, six neighbours, and every picture came."""
    page.wait_for_url(RESULT)
    assert page.locator(".bars li").count() == 5
    assert page.locator(".neighbours a").count() == 6
    widths = page.locator(".bars .fill").evaluate_all(
        "bars => bars.map(bar => bar.getBoundingClientRect().width)"
    )
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] > 0
    page.wait_for_load_state("load")
    sizes = page.locator("img").evaluate_all("all => all.map(one => one.naturalWidth)")
    assert len(sizes) == 7
    assert all(sizes)


def transfer(page: Any, data: bytes, name: str = "dropped.jpg", kind: str = "image/jpeg") -> Any:
    """A DataTransfer holding one file, as a drop or a paste brings it."""
    return page.evaluate_handle(
        """([text, name, kind]) => {
            const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, {type: kind}));
            return transfer;
        }""",
        [base64.b64encode(data).decode(), name, kind],
    )


def test_a_chosen_photograph_is_answered(tab: Open, photograph: Path) -> None:
    page = tab()
    page.goto("/")
    with page.expect_file_chooser() as chooser:
        page.click("text=Choose an image")
    chooser.value.set_files(photograph)
    check_answer(page)
    assert page.locator("text=my cat.jpg").count() == 1


def test_a_dropped_photograph_is_answered(tab: Open, jpeg: bytes) -> None:
    page = tab()
    page.goto("/")
    page.dispatch_event(".drop", "drop", {"dataTransfer": transfer(page, jpeg)})
    check_answer(page)
    assert page.locator("text=dropped.jpg").count() == 1


def test_a_drop_beside_the_area_counts_too(tab: Open, jpeg: bytes) -> None:
    page = tab()
    page.goto("/")
    page.dispatch_event("h1", "drop", {"dataTransfer": transfer(page, jpeg)})
    check_answer(page)


def test_a_pasted_photograph_is_answered(tab: Open, jpeg: bytes) -> None:
    page = tab()
    page.goto("/")
    pasted = transfer(page, jpeg, "image.png", "image/png")
    page.evaluate(
        """data => document.dispatchEvent(
            new ClipboardEvent("paste", {clipboardData: data, bubbles: true}))""",
        pasted,
    )
    check_answer(page)


def test_it_works_without_javascript(tab: Open, photograph: Path) -> None:
    page = tab(java_script_enabled=False)
    page.goto("/")
    page.set_input_files("#image", photograph)
    page.click("button.send")
    page.wait_for_url(RESULT)
    assert page.locator(".bars li").count() == 5
    assert page.locator(".neighbours a").count() == 6


def test_an_example_is_answered_at_a_click(tab: Open) -> None:
    page = tab()
    page.goto("/")
    page.click(".example >> nth=1")
    check_answer(page)
    assert "In red: the correct label" in page.inner_text("main")


def test_one_goes_on_from_neighbour_to_neighbour(tab: Open) -> None:
    page = tab()
    page.goto("/explore")
    page.click(".classes a >> nth=2")
    page.click(".tile >> nth=0")
    for _ in range(3):
        page.wait_for_url(re.compile(r"/images/\d+$"))
        assert page.locator(".neighbours a").count() == 6
        page.click(".neighbours a >> nth=0")


@pytest.mark.parametrize("script", [True, False])
def test_a_file_over_the_limit_is_told_so(tab: Open, tmp_path: Path, script: bool) -> None:
    large = tmp_path / "large.jpg"
    large.write_bytes(b"\xff\xd8" + bytes(9_000_000))
    page = tab(java_script_enabled=script)
    page.goto("/")
    page.set_input_files("#image", large)
    if not script:  # sent, refused, and read past: the page arrives, not a broken connection
        page.click("button.send")
    page.wait_for_selector("text=/too large/")
    assert "1 MB" in page.inner_text("main")


def test_a_refused_file_leads_to_another_try(tab: Open, tmp_path: Path, photograph: Path) -> None:
    wrong = tmp_path / "notes.txt"
    wrong.write_text("not an image")
    page = tab()
    page.goto("/")
    page.set_input_files("#image", wrong)
    page.wait_for_selector("h1:has-text('That is not an image')")
    page.set_input_files("#image", photograph)
    check_answer(page)


def addresses(page: Any, photograph: Path) -> list[str]:
    """One address of each kind of page."""
    page.goto("/")
    page.set_input_files("#image", photograph)
    page.wait_for_url(RESULT)
    image = page.locator(".neighbours a").first.get_attribute("href")
    return ["/", page.url, image, "/explore", "/filters", "/nothing"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_telephone_scrolls_in_one_direction_only(
    tab: Open, photograph: Path, scheme: str
) -> None:
    page = tab(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    for address in addresses(page, photograph):
        page.goto(address)
        for summary in page.locator("summary").all():
            summary.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, address


@pytest.mark.parametrize(
    ("scheme", "ground"), [("light", "rgb(251, 250, 246)"), ("dark", "rgb(22, 21, 19)")]
)
def test_the_ground_is_light_or_dark_as_the_system_is(tab: Open, scheme: str, ground: str) -> None:
    page = tab(color_scheme=scheme)
    page.goto("/")
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == ground


def test_nothing_moves_while_a_page_loads(tab: Open, photograph: Path) -> None:
    page = tab()
    page.add_init_script(
        """window.moved = 0;
        new PerformanceObserver(list => list.getEntries().forEach(e => window.moved += e.value))
            .observe({type: "layout-shift", buffered: true});"""
    )
    for address in addresses(page, photograph):
        page.goto(address, wait_until="networkidle")
        assert page.evaluate("window.moved") < 0.01, address


def test_the_keyboard_reaches_everything(tab: Open) -> None:
    page = tab()
    # From the start: the browser is told that choosers are wanted, which a key could overtake.
    opened: list[Any] = []
    page.on("filechooser", lambda chooser: opened.append(chooser))
    page.goto("/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator(".skip").bounding_box()["y"] >= 0
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "image"
    outline = page.locator(".pick").evaluate("label => getComputedStyle(label).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    deadline = time.monotonic() + 30
    while not opened and time.monotonic() < deadline:
        page.wait_for_timeout(50)
    assert opened
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "example"
    page.keyboard.press("Enter")
    page.wait_for_url(RESULT)
    page.locator("summary").focus()
    page.keyboard.press("Enter")
    assert page.locator(".crops li").count() == 10
    assert page.locator(".crops li").first.is_visible()


def test_the_command_is_copied(chromium: Any, tmp_path: Path) -> None:
    with serving({"ALEXNET_HOME": str(tmp_path)}) as site:
        context = chromium.new_context(permissions=["clipboard-read", "clipboard-write"])
        page = context.new_page()
        page.goto(site)
        page.click("text=Copy")
        page.wait_for_selector("text=Copied")
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == page.inner_text("code")
        assert copied.startswith("python training/run.py")
        context.close()


def test_wrong_settings_are_refused_by_name_at_the_start(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:0", "app:create_app()"]
    wrong = {"ALEXNET_UPLOAD_DAYS": "soon", "ALEXNET_DEVICE": "abacus"}
    env = {**os.environ, "ALEXNET_HOME": str(tmp_path), **wrong}
    ended = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert "ALEXNET_UPLOAD_DAYS" in ended.stderr
    assert "ALEXNET_DEVICE" in ended.stderr
    assert "Traceback" not in ended.stderr
