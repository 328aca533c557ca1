"""The page that classifies, in a real browser."""

import base64
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

Open = Callable[..., Any]
RESULT = re.compile(r"/results/[\w-]{22}$")
pytestmark = pytest.mark.timeout(120)


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


def test_the_command_is_copied(
    chromium: Any, serve: Callable[[dict[str, str]], AbstractContextManager[str]], tmp_path: Path
) -> None:
    with serve({"ALEXNET_HOME": str(tmp_path)}) as site:
        context = chromium.new_context(permissions=["clipboard-read", "clipboard-write"])
        page = context.new_page()
        page.goto(site)
        page.click("text=Copy")
        page.wait_for_selector("text=Copied")
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == page.inner_text("code")
        assert copied.startswith("python training/run.py")
        context.close()
