"""The page that classifies, in a real browser."""

import base64
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

Open = Callable[..., Any]
RESULT = re.compile(r"/results/[\w-]{22}$")
TOGETHER = re.compile(r"/results/together/[\w-]{22}$")


def check_answer(page: Any) -> None:
    """The page that answers has five bars, six neighbours twice, and every picture came."""
    page.wait_for_url(RESULT)
    assert page.locator(".bars li").count() == 5
    assert page.locator(".neighbours a").count() == 6
    assert page.locator(".pixels a").count() == 6
    widths = page.locator(".bars .fill").evaluate_all(
        "bars => bars.map(bar => bar.getBoundingClientRect().width)"
    )
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] > 0
    page.wait_for_load_state("load")
    sizes = page.locator("img").evaluate_all("all => all.map(one => one.naturalWidth)")
    assert len(sizes) == 13
    assert all(sizes)


def transfer(page: Any, *files: tuple[bytes, str, str]) -> Any:
    """A DataTransfer holding files, each bytes, name and type, as a drop or a paste brings them."""
    return page.evaluate_handle(
        """files => {
            const transfer = new DataTransfer();
            for (const [text, name, kind] of files) {
                const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
                transfer.items.add(new File([bytes], name, {type: kind}));
            }
            return transfer;
        }""",
        [[base64.b64encode(data).decode(), name, kind] for data, name, kind in files],
    )


@pytest.fixture
def several(photograph: Path, tmp_path: Path) -> list[Path]:
    """Two photographs and a file that is none."""
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "another.jpg").write_bytes(photograph.read_bytes())
    return [photograph, tmp_path / "another.jpg", tmp_path / "notes.txt"]


def test_a_chosen_photograph_is_answered(tab: Open, photograph: Path) -> None:
    page = tab()
    page.goto("/")
    with page.expect_file_chooser() as chooser:
        page.click("label.pick[for=image]")
    chooser.value.set_files(photograph)
    check_answer(page)
    assert page.locator("text=my cat.jpg").count() == 1


def test_a_photograph_dropped_anywhere_in_the_window_is_answered(tab: Open, jpeg: bytes) -> None:
    page = tab()
    page.goto("/")
    page.dispatch_event(
        "h1", "drop", {"dataTransfer": transfer(page, (jpeg, "dropped.jpg", "image/jpeg"))}
    )
    check_answer(page)
    assert page.locator("text=dropped.jpg").count() == 1


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_the_next_photograph_is_taken_on_the_page_of_a_result(
    tab: Open, jpeg: bytes, classified: Callable[..., str], event: str
) -> None:
    page = tab()
    before = classified(page)
    files = transfer(page, (jpeg, "next.jpg", "image/jpeg"))
    page.evaluate(
        """([kind, data]) => document.dispatchEvent(kind === "paste"
            ? new ClipboardEvent("paste", {clipboardData: data, bubbles: true})
            : new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}))""",
        [event, files],
    )
    page.wait_for_url(lambda url: bool(RESULT.search(url)) and not url.endswith(before))
    check_answer(page)
    assert page.locator("text=next.jpg").count() == 1


def test_a_pasted_photograph_is_answered(tab: Open, jpeg: bytes) -> None:
    page = tab()
    page.goto("/")
    pasted = transfer(page, (jpeg, "image.png", "image/png"))
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
    assert page.locator(".bars .correct").count() == 1


@pytest.mark.parametrize("script", [True, False])
def test_after_a_refused_file_another_can_be_sent(
    tab: Open, tmp_path: Path, photograph: Path, script: bool
) -> None:
    large, wrong = tmp_path / "large.jpg", tmp_path / "notes.txt"
    large.write_bytes(b"\xff\xd8" + bytes(9_000_000))
    wrong.write_text("not an image")
    page = tab(java_script_enabled=script)
    page.goto("/")
    for file, words in ((large, "1 MB"), (wrong, "JPEG, PNG")):
        page.set_input_files("#image", file)
        if (
            not script
        ):  # sent, refused, and read to its end: the page arrives, not a broken connection
            page.click("button.send")
        message = page.locator(".status-text.failed" if script else "[role=alert]", has_text=words)
        message.wait_for()
        assert page.locator(".previews li").count() == 0
    page.set_input_files("#image", photograph)
    if script:
        check_answer(page)
    else:
        page.click("button.send")
        page.wait_for_url(RESULT)


@pytest.mark.parametrize("way", ["dropped", "without scripts"])
def test_several_photographs_are_answered_on_a_page(
    tab: Open, several: list[Path], way: str
) -> None:
    page = tab(java_script_enabled=way != "without scripts")
    page.goto("/")
    held = hold(page) if way == "dropped" else []
    if way == "dropped":
        files = [(file.read_bytes(), file.name, "image/jpeg") for file in several]
        page.dispatch_event(".drop", "drop", {"dataTransfer": transfer(page, *files)})
    else:
        page.set_input_files("#image", several)
    if way == "without scripts":
        page.click("button.send")
    else:
        page.wait_for_selector("text=/3 images …/")
        assert page.locator(".previews img").count() in (2, 3)  # what is none goes when it is seen
        while not held:
            page.wait_for_timeout(20)
        held[0].continue_()
    page.wait_for_url(TOGETHER)
    assert page.locator(".batch li").count() == 3
    assert "notes.txt" in page.inner_text(".batch .no-result")
    page.click(".batch a >> nth=1")
    check_answer(page) if way != "without scripts" else page.wait_for_url(RESULT)


def hold(page: Any) -> list[Any]:
    """Keep what is sent from arriving; gives what is kept."""
    held: list[Any] = []
    posts = re.compile(r"/$")
    page.route(posts, lambda r: held.append(r) if r.request.method == "POST" else r.continue_())
    return held


def drop(page: Any, file: Path) -> None:
    """Drop a file: unlike choosing one, it never waits for the upload that is held."""
    data = transfer(page, (file.read_bytes(), file.name, "image/jpeg"))
    page.dispatch_event(".drop", "drop", {"dataTransfer": data})


def test_an_upload_can_be_cancelled_and_another_sent(tab: Open, photograph: Path) -> None:
    page = tab()
    page.goto("/")
    held = hold(page)
    for cancel in (
        lambda: page.keyboard.press("Escape"),
        lambda: page.click("button.stop"),
        lambda: None,  # another file takes its place
    ):
        held.clear()
        drop(page, photograph)
        page.wait_for_selector("text=/my cat.jpg …/")
        assert page.locator(".previews img").count() == 1
        while not held:
            page.wait_for_timeout(20)
        cancel()
        if page.locator(".stop").is_hidden():
            assert page.locator(".previews img").count() == 0
    page.unroute_all()
    drop(page, photograph)
    check_answer(page)


def test_a_broken_connection_is_told(chromium: Any, site: str, photograph: Path) -> None:
    context = chromium.new_context(base_url=site)
    page = context.new_page()
    page.goto("/")
    held = hold(page)
    page.set_input_files("#image", photograph)
    while not held:
        page.wait_for_timeout(20)
    held[0].abort()
    page.wait_for_selector(".status-text.failed")
    context.close()


def test_too_many_at_once_are_told_before_they_are_sent(tab: Open, jpeg: bytes) -> None:
    page = tab()
    page.goto("/")
    files = [(jpeg, f"{number}.jpg", "image/jpeg") for number in range(13)]
    page.dispatch_event(".drop", "drop", {"dataTransfer": transfer(page, *files)})
    status = page.inner_text(".status-text.failed")
    assert "13" in status
    assert "12" in status


def test_a_telephone_takes_a_picture(tab: Open, photograph: Path) -> None:
    page = tab(has_touch=True, is_mobile=True, viewport={"width": 360, "height": 740})
    page.goto("/")
    assert page.get_attribute("#camera", "capture") == "environment"
    with page.expect_file_chooser() as chooser:
        page.tap(".camera .pick")
    chooser.value.set_files(photograph)
    check_answer(page)
    desk = tab()
    desk.goto("/")
    assert desk.locator(".camera").is_hidden()


def test_a_telephone_takes_a_picture_without_javascript(tab: Open, photograph: Path) -> None:
    page = tab(has_touch=True, is_mobile=True, java_script_enabled=False)
    page.goto("/")
    assert page.locator("#camera").is_visible()
    page.set_input_files("#camera", photograph)
    page.click("button.send")
    page.wait_for_url(RESULT)


@pytest.mark.parametrize("script", [True, False])
def test_a_result_is_deleted_where_it_was_made(
    tab: Open, classified: Callable[..., str], script: bool
) -> None:
    page = tab(java_script_enabled=script)
    location = classified(page, script)
    page.click("a.delete")
    page.click(".confirm a")
    page.wait_for_url(RESULT)
    page.goto("/")
    page.click(".result-list .delete")
    page.click(".confirm button")
    page.wait_for_url(re.compile("/results/deleted$"))
    assert page.locator(".result-list li").count() == 0
    assert page.goto(location).status == 404


def test_a_crop_that_is_pointed_at_is_framed_on_the_image(
    tab: Open, classified: Callable[..., str]
) -> None:
    page = tab()
    classified(page)
    page.click("summary")
    crop = page.locator(".crops li").nth(3)
    left, frame = int(crop.get_attribute("data-left")), page.locator(".crop-frame").nth(1)
    centre = float(frame.get_attribute("x"))

    def measure_left() -> float:
        """Where the frame begins, in pixels of the 256 that the square has."""
        seen = page.locator(".input-image img").bounding_box()
        return 256 * (frame.bounding_box()["x"] - seen["x"]) / seen["width"]

    assert measure_left() == pytest.approx(centre, abs=2)
    # Bottom right: the crop ends where the image does.
    crop.hover()
    assert left > centre + 10
    assert measure_left() == pytest.approx(left, abs=2)
    page.mouse.move(0, 0)
    assert measure_left() == pytest.approx(centre, abs=2)


def test_the_link_is_copied(chromium: Any, site: str, classified: Callable[..., str]) -> None:
    context = chromium.new_context(base_url=site, permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    location = classified(page)
    page.click("text=Copy")
    page.wait_for_selector("text=Copied")
    assert page.evaluate("navigator.clipboard.readText()") == site + location
    context.close()


def test_the_pages_around_a_result_serve_everyone_and_stand_still(
    tab: Open,
    several: list[Path],
    accessible: Callable[[Any], None],
    steady: Callable[[Any, str], None],
) -> None:
    for scheme, width in (("light", 1280), ("dark", 360)):
        page = tab(viewport={"width": width, "height": 740}, color_scheme=scheme)
        page.goto("/")
        page.set_input_files("#image", several)
        page.wait_for_url(TOGETHER)
        together = page.url
        for address in (together, f"{together}/delete", "/results/deleted", "/"):
            steady(page, address)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, address
            accessible(page)
        page.set_input_files("#image", several[2])
        page.wait_for_selector(".status-text.failed")
        accessible(page)


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
    # Past the tools: to present the page, and the two sections of the paper.
    for _ in range(4):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "image"
    chooser = page.locator(".pick >> nth=0")
    outline = chooser.evaluate("label => getComputedStyle(label).outlineStyle")
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
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator(".crops li").count() == 10
    assert page.locator(".crops li").first.is_visible()


def test_a_server_with_nothing_there_gives_the_command_and_logs_no_token(
    chromium: Any, serve: Callable[[dict[str, str]], AbstractContextManager[str]], tmp_path: Path
) -> None:
    log, token = tmp_path / "access.log", "abcdefghij_-ABCDEFGHIJ"
    arguments = f"--access-logfile {log}"
    with serve({"ALEXNET_HOME": str(tmp_path), "GUNICORN_CMD_ARGS": arguments}) as site:
        context = chromium.new_context(permissions=["clipboard-read", "clipboard-write"])
        page = context.new_page()
        page.goto(site)
        page.click("[data-copy]")
        page.wait_for_selector("text=Copied")
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == page.inner_text("code")
        assert copied.startswith("python training/run.py")
        context.close()
        asked = Request(f"{site}/filters?of={token}", headers={"Referer": f"/results/{token}"})
        with urlopen(asked) as answer:
            assert answer.status == 200
    lines = log.read_text()
    assert "GET /filters?of=… HTTP" in lines
    assert token not in lines
