"""Runs and models in a real browser: followed while they go on, pointed at, compared, switched."""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.config import Settings
from model.weights.checkpoint import load_weights, save_weights
from storage.evaluations import (
    Evaluation,
    EvaluationData,
    Mistake,
    ModelInfo,
    Result,
    save_evaluation,
)
from storage.files import switch_link
from storage.home import Home
from storage.runs import Epoch, RunFolder
from training.evaluation.confidence import error_rate
from training.recipe.config import PAPER
from training.records.reporting import draw_conv1

Open = Callable[..., Any]
LOADED = "one => one.decode().then(() => one.naturalWidth)"
TOKEN = "an administrator's token"


@pytest.fixture
def home(settings: Settings) -> Iterator[Home]:
    """The home of the site; runs and evaluations that a test adds go with it."""
    home = settings.home
    before = set(home.runs.iterdir())
    yield home
    for folder in set(home.runs.iterdir()) - before:
        shutil.rmtree(folder)
    shutil.rmtree(home.evaluations, ignore_errors=True)


def epoch(number: int) -> Epoch[float]:
    """An epoch."""
    return Epoch(
        epoch=number,
        rate=0.01 if number < 3 else 0.001,
        loss=3.0 / number,
        top1_error=0.8 / number,
        top5_error=0.2 / number,
        images_per_second=20.0,
        data_wait=0.0,
        seconds=30.0,
        memory=3.0,
    )


def record(home: Home, name: str, epochs: int, *, finished: bool = True) -> RunFolder:
    """Write a run by training's own means, conv1 with it."""
    run = RunFolder(home.runs / name)
    (run.path / "conv1").mkdir(parents=True)
    told = asdict(replace(PAPER, epochs=10))
    run.update_description(
        preset="demo", data="/x", recipe=told, finished=finished, weights="a" * 32
    )
    for number in range(1, epochs + 1):
        add(run, number)
    return run


def add(run: RunFolder, number: int) -> None:
    """Write an epoch."""
    kernels = torch.randn(96, 3, 11, 11, generator=torch.manual_seed(number))
    draw_conv1(kernels).save(run.path / f"conv1/epoch-{number:03d}.png")
    run.append_epoch(epoch(number))


def evaluate(home: Home, photographs: Path) -> None:
    """Keep a verdict on the runs' weights, with photographs that are there."""
    paths = [path.relative_to(photographs) for path in sorted(photographs.glob("val/*/*"))]
    mistakes = [
        Mistake(
            path=path.as_posix(),
            true=path.parent.name,
            true_label=path.parent.name,
            true_probability=0.1,
            guess="rocket",
            guess_label="rocket",
            probability=0.8,
            rank=2,
        )
        for path in paths[:7]
    ]
    classes = [f"class {n}" for n in range(14)]
    confusion = {c: {c: 9, classes[n % 3]: 3} for n, c in enumerate(classes)}
    wrong = error_rate(np.arange(12) < 3)
    result = Result(
        name="net",
        crops="ten",
        top1=wrong,
        top5=wrong,
        classes=(),
        confusion=confusion,
        mistakes=tuple(mistakes),
    )
    data = EvaluationData(
        folder="",
        layout="split",
        split="val",
        images=12,
        classes=14,
        unreadable=(),
        unknown={},
    )
    judged = ModelInfo(
        name="net", identity="a" * 32, classes=14, side=256, crop=224, preset="", epochs=3, images=9
    )
    verdict = Evaluation(
        format=1,
        data=data,
        precision="f32",
        models=(judged,),
        labels={c: c for c in classes},
        results=(result,),
        differences=(),
    )
    save_evaluation(verdict, home, photographs)


def test_a_run_is_followed_while_it_goes_on(tab: Open, home: Home) -> None:
    run = record(home, "live", 2, finished=False)
    page = tab()
    page.goto("/training/live")
    page.evaluate("window.same = true")
    page.click("#numbers summary")
    assert page.locator("#epochs tbody tr").count() == 2
    assert page.locator(".plot.error .rate-drop").count() == 0
    add(run, 3)
    page.wait_for_selector("#epochs tbody tr:nth-child(3)", timeout=20_000)
    assert page.locator(".plot.error .rate-drop").count() == 1
    assert page.locator(".kernels li").count() == 3
    assert page.locator("#numbers[open]").count() == 1  # what was opened stays open
    assert "26.7" in page.text_content("[data-announcement]")
    page.click("text=Pause")
    page.click("text=Resume")
    run.update_description(finished=True)
    page.wait_for_selector("[data-part=status] .status.finished", timeout=20_000)
    page.wait_for_selector("[data-live-updates]", state="hidden")
    assert page.evaluate("window.same")  # it was never loaded anew


def test_a_run_that_is_deleted_meanwhile_is_said_to_be(tab: Open, home: Home) -> None:
    run = record(home, "live", 2, finished=False)
    page = tab()
    page.goto("/training/live")
    page.locator(".plot").nth(2).wait_for()
    shutil.rmtree(run.path)
    page.wait_for_selector("[data-pause]", state="hidden", timeout=20_000)
    assert page.locator(".plot").count() == 3


def test_curves_are_read_by_pointing_and_conv1_by_sliding(tab: Open, home: Home) -> None:
    record(home, "done", 5)
    page = tab()
    page.goto("/training/done")
    box = page.locator(".plot.error").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + 50)  # the fourth of five epochs
    said = page.text_content("[data-values]")
    assert said.startswith("epoch 4 · ")
    assert "top-1 error 20.0" in said
    page.click("#conv1-epochs summary")
    page.focus("[data-slider] input")
    page.keyboard.press("Home")
    for number in (1, 2, 3):
        picture = page.locator("[data-slider] img")
        assert picture.get_attribute("alt") == f"conv1 after epoch {number}"
        assert picture.evaluate(LOADED) == 776
        page.keyboard.press("ArrowRight")


@pytest.mark.parametrize("script", [True, False])
def test_runs_are_ticked_and_compared(tab: Open, home: Home, script: bool) -> None:
    record(home, "early", 4)
    record(home, "late", 5)
    page = tab(java_script_enabled=script)
    page.goto("/training")
    if script:
        page.click("button:text('Compare')")
        assert page.url.endswith("/training")
    for name in ("early", "late"):
        page.check(f"input[value={name}]")
    page.click("button:text('Compare')")
    page.wait_for_url(re.compile(r"/training/compare\?run=\w+&run=\w+$"))
    assert page.locator(".plot.error path").count() == 2
    assert page.locator(".plot.error .letter").all_text_contents() == ["A", "B"]
    page.click(".compared-runs a >> nth=0")
    page.click("#conv1-epochs summary")
    assert (
        page.locator(".conv1-epochs a >> nth=1").get_attribute("href").endswith("/late/conv1/2.png")
    )


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_full_pages_serve_everyone(
    tab: Open,
    home: Home,
    photographs: Path,
    accessible: Callable[[Any], None],
    steady: Callable[[Any, str], None],
    scheme: str,
    width: int,
) -> None:
    record(home, "20260101-000000-demo-first", 5)
    record(home, "20260101-000000-demo-second", 2, finished=False)
    evaluate(home, photographs)
    page = tab(viewport={"width": width, "height": 740}, color_scheme=scheme)
    runs = [f"20260101-000000-demo-{name}" for name in ("first", "second")]
    compared = "/training/compare?" + "&".join(f"run={name}" for name in runs)
    for address in ("/training", f"/training/{runs[0]}", compared):
        steady(page, address)
        for summary in page.locator("summary").all():
            summary.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, address
        accessible(page)
        small = page.evaluate(
            """[...document.querySelectorAll("main a, main button, main input, main summary")]
            .filter(one => one.offsetParent && !one.closest("p") && one.type !== "checkbox")
            .filter(one => Math.min(one.offsetWidth, one.offsetHeight) < 24)
            .map(one => one.outerHTML)"""
        )
        assert small == [], address
    page.goto(f"/training/{runs[0]}")
    for picture in page.locator(".mistakes img").all():
        picture.scroll_into_view_if_needed()
        assert picture.evaluate(LOADED) == 256


def test_weights_are_switched_by_whoever_knows_the_token(
    chromium: Any,
    serve: Callable[[dict[str, str]], AbstractContextManager[str]],
    settings: Settings,
    tmp_path: Path,
    accessible: Callable[[Any], None],
) -> None:
    home = Home(root=tmp_path / "home")
    weights = load_weights(settings.home.weights)
    for name, shift in (("a", 0), ("b", 1)):
        shifted = replace(weights, mean=weights.mean + shift)
        save_weights(shifted, home.runs / name / "weights.safetensors")
    switch_link(home.weights, home.runs / "a/weights.safetensors")
    variables = {"ALEXNET_HOME": str(home.root), "ALEXNET_ADMIN_TOKEN": TOKEN}
    with serve(variables) as address:
        page = chromium.new_page(viewport={"width": 360, "height": 740}, color_scheme="dark")
        page.goto(f"{address}/models")
        accessible(page)
        assert page.is_checked("input[value='runs/a/weights.safetensors']")
        page.click("label:has-text('b result')")
        page.fill("#token", "not the administrator's")
        with page.expect_response(lambda response: response.status == 403):
            page.click("main form button[type=submit]")
        page.get_by_text("Wrong token").wait_for()  # the answer comes before its page is there
        accessible(page)
        assert page.is_checked("input[value='runs/a/weights.safetensors']")  # the one in service
        page.click("label:has-text('b result')")
        page.fill("#token", TOKEN)
        with page.expect_response(lambda response: response.status == 409):
            page.click("main form button[type=submit]")
        page.get_by_text("These weights are not indexed").wait_for()
        accessible(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.locator("#token").count() == 0  # it is asked for once a session
        page.click("main form button[type=submit]")
        page.wait_for_selector("#found")
        assert page.is_checked("input[value='runs/b/weights.safetensors']")
        assert "runs/b" in page.text_content("[role=status]")
        page.close()
    assert str(home.weights.readlink()) == "runs/b/weights.safetensors"
