"""A real browser, and the real server in a process of its own."""

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from storage.home import Home
from storage.pretrained import keep_uninstalled

ROOT = Path(__file__).resolve().parents[3]
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
SHIFTS = """window.moved = 0; window.movers = [];
new PerformanceObserver(list => list.getEntries().forEach(e => {
    window.moved += e.value;
    for (const {node, previousRect: from, currentRect: to} of e.sources)
        window.movers.push(`${node?.parentNode?.className} ${node?.nodeName} ${node?.className} `
            + `${[from.x, from.y, from.width]} to ${[to.x, to.y, to.width]}`);
})).observe({type: "layout-shift", buffered: true});"""


@contextmanager
def serving(environment: dict[str, str]) -> Iterator[str]:
    """Run gunicorn as the README says, on a free port; end it as Ctrl-C does."""
    command = [sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:0", "app:create_app()"]
    env = {**os.environ, **environment, "OMP_NUM_THREADS": "1"}
    # What tests find in a home is what they put there.
    keep_uninstalled(Home(root=Path(environment["ALEXNET_HOME"])))
    with subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr
            line = server.stderr.readline()
            found = re.fullmatch(r"Serving at (http://127\.0\.0\.1:\d+) .*\n", line)
            assert found, line + server.stderr.read()
            yield found[1]
        finally:
            server.send_signal(signal.SIGINT)
            try:
                _, rest = server.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                server.kill()
                raise
    assert server.returncode == 0
    assert "Traceback" not in rest


@pytest.fixture(scope="session")
def serve() -> Callable[[dict[str, str]], AbstractContextManager[str]]:
    """Runs a server of its own for a test, with these variables."""
    return serving


@pytest.fixture(scope="session")
def site(environment: dict[str, str]) -> Iterator[str]:
    """The address of a server with everything there, the network already read."""
    with serving(environment) as address:
        with urllib.request.urlopen(f"{address}/healthz") as answer:
            assert answer.status == 200
        yield address


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A browser; skips where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if not Path(CHROMIUM).exists():
        pytest.skip(f"there is no browser at {CHROMIUM}")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def browser_flags() -> list[str]:
    """The browser's path and flags, for one that needs more of them."""
    return [CHROMIUM, *FLAGS]


Open = Callable[..., Any]


@pytest.fixture
def tab(chromium: Any, request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens a tab; at the end nothing may have been complained of or asked of another host."""
    site = request.getfixturevalue("site")
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


@pytest.fixture(scope="session")
def photograph(tmp_path_factory: pytest.TempPathFactory, jpeg: bytes) -> Path:
    """A photograph on the disk."""
    file = tmp_path_factory.mktemp("pictures") / "my cat.jpg"
    file.write_bytes(jpeg)
    return file


@pytest.fixture(scope="session")
def result_page() -> re.Pattern[str]:
    """The address of a kept result."""
    return RESULT


@pytest.fixture(scope="session")
def classified(photograph: Path) -> Callable[..., str]:
    """Has a photograph classified in a tab, with or without scripts; gives its result's path."""

    def classify(page: Any, script: bool = True) -> str:
        page.goto("/")
        page.set_input_files("#image", photograph)
        if not script:
            page.click("button.send")
        page.wait_for_url(RESULT)
        return re.sub(r"^https?://[^/]+", "", str(page.url))

    return classify


@pytest.fixture(scope="session")
def accessible() -> Callable[[Any], None]:
    """Has axe look for what breaks WCAG 2.2 AA on the page that is open."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is missing")
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]

    def check(page: Any) -> None:
        found = axe.Axe().run(page, options={"runOnly": {"type": "tag", "values": tags}})
        said = [
            f"{one['id']}: {node['html'][:200]} {node.get('failureSummary', '')}"
            for one in found.response["violations"]
            for node in one["nodes"]
        ]
        assert said == [], f"{page.url}\n" + "\n".join(said)

    return check


@pytest.fixture
def steady() -> Callable[[Any, str], None]:
    """Opens an address and sees that nothing on the page moves while it loads."""

    def check(page: Any, address: str) -> None:
        # A busy machine may lay a page out before its tab has the size that was asked for.
        page.goto("about:blank")
        page.wait_for_function(f"() => innerWidth === {page.viewport_size['width']}")
        page.add_init_script(SHIFTS)
        page.goto(address, wait_until="networkidle")
        # Half of what counts as good: a busy machine may paint a page before all of it is there.
        assert page.evaluate("window.moved") < 0.05, (address, page.evaluate("window.movers"))

    return check
