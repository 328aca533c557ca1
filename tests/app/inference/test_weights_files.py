"""The weights found on disk, and switching them while the application serves."""

import json
import re
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.inference.state import LabelsOnly, Ready
from index import store
from model.weights.checkpoint import load_weights
from storage.files import switch_link
from storage.runs import RunFolder

TOKEN = "an administrator's token"
Post = Callable[..., Any]


@pytest.fixture
def weights(narrow_settings) -> Path:
    """Weights of the session, not to be changed."""
    return narrow_settings.home.weights.resolve()


@pytest.fixture(scope="module")
def changed(narrow_settings, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes copies of the session's weights with one value changed."""
    folder = tmp_path_factory.mktemp("changed")

    def change(value: float) -> Path:
        file = folder / f"{value}.safetensors"
        if not file.exists():
            shutil.copyfile(narrow_settings.home.weights, file)
            put(file, "conv1.bias", value)
            rename(
                file,
                load_weights(narrow_settings.home.weights).identity,
                load_weights(file).identity,
            )
        return file

    return change


def put(file: Path, tensor: str, value: float) -> None:
    """Set a tensor's first value, in place."""
    with file.open("r+b") as data:
        size = int.from_bytes(data.read(8), "little")
        begin = json.loads(data.read(size))[tensor]["data_offsets"][0]
        data.seek(8 + size + begin)
        data.write(np.float32(value).tobytes())


def rename(file: Path, old: str, new: str) -> None:
    """Have a file's header name it as it is now."""
    with file.open("r+b") as data:
        place = data.read(100_000).index(old.encode())
        data.seek(place)
        data.write(new.encode())


@pytest.fixture
def app(shop, open_app) -> Flask:
    """The application over a shop's home, with a token; its weights lie outside the runs."""
    return open_app(replace(shop.settings, admin_token=TOKEN))


def add(shop, name: str, file: Path, kind: str = "weights") -> Path:
    """Give a file a place among the runs."""
    place = shop.settings.home.runs / name / f"{kind}.safetensors"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.hardlink_to(file)
    return place


@pytest.fixture
def post(client: FlaskClient) -> Post:
    """Sends the form of the page."""

    def send(file: str, token: str = TOKEN, client: FlaskClient = client, **more: str) -> Any:
        page = client.get("/models").get_data(as_text=True)
        csrf = re.search(r'name="csrf_token" value="([^"]+)"', page)
        form = {"csrf_token": csrf[1] if csrf else "", "file": file, "token": token, **more}
        return client.post("/models", data=form)

    return send


def names(page: Any) -> list[tuple[str, bool]]:
    """Every file on the page, and whether it is the chosen one."""
    return [
        (radio.attributes["value"], "checked" in radio.attributes)
        for radio in page.all("input")
        if radio.attributes.get("type") == "radio"
    ]


def test_what_is_found_is_listed_once_and_exactly_one_is_in_use(
    shop, weights, changed, client, page
) -> None:
    add(shop, "20260101-000000-small-a", changed(0.5))
    add(shop, "20260101-000000-small-a", changed(0.5), "best")
    add(shop, "20240101-000000-small-b", weights)
    cut = shop.settings.home.runs / "20250101-000000-small-cut/weights.safetensors"
    cut.parent.mkdir()
    cut.write_bytes(weights.read_bytes()[:100_000])
    (shop.settings.home.runs / "none").mkdir()
    shown = page(client.get("/models"))
    assert names(shown) == [
        ("weights.safetensors", True),
        ("runs/20260101-000000-small-a/weights.safetensors", False),
        ("runs/20250101-000000-small-cut/weights.safetensors", False),
    ]
    rows = {row.one("label").text: row for row in shown.all("li", "model")}
    whole = rows["20260101-000000-small-a result"]
    assert load_weights(changed(0.5)).identity[:8] in whole.text
    assert "also best epoch" in [span.text for span in whole.all("span")]
    served = rows["weights.safetensors elsewhere"]
    assert served.one("strong").text == "in service"
    assert "also 20240101-000000-small-b, result" in [span.text for span in served.all("span")]
    assert "indexed" in [span.text for span in served.all("span")]
    figures = {row.one("dt").text: row.one("dd").text for row in whole.one("dl").children}
    assert (figures["epochs"], figures["classes"], figures["top-1 error"]) == ("2", "6", "–")
    damaged = rows["20250101-000000-small-cut result"]
    assert "cannot be read as a safetensors file" in damaged.one("p", "damage").text
    assert "disabled" in damaged.one("input").attributes
    assert str(shop.settings.home.root) not in shown.text


def test_without_a_token_set_nothing_can_be_switched(shop, weights, open_app, page, post) -> None:
    add(shop, "a", weights)
    client = open_app(shop.settings).test_client()
    shown = page(client.get("/models"))
    assert not shown.all("form")
    assert "ALEXNET_ADMIN_TOKEN" in shown.text
    client.get("/")
    before = shop.settings.home.weights.readlink()
    for token in ("", TOKEN):
        csrf = re.search(r'csrf_token" value="([^"]+)"', client.get("/").get_data(as_text=True))
        form = {"csrf_token": csrf[1], "file": "runs/a/weights.safetensors", "token": token}
        answer = client.post("/models", data=form)
        assert answer.status_code == 403
        assert "ALEXNET_ADMIN_TOKEN" in page(answer).text
    assert shop.settings.home.weights.readlink() == before


def test_where_no_token_is_needed_one_click_switches(shop, changed, open_app, page, post) -> None:
    add(shop, "a", changed(1.0))
    RunFolder(shop.settings.home.runs / "a").update_description(pretrained=True, finished=True)
    app = open_app(replace(shop.settings, switch_without_token=True))
    client = app.test_client()
    shown = page(client.get("/models"))
    assert not [field for field in shown.all("input") if field.attributes.get("type") != "hidden"]
    # The weights in service have no button.
    (button,) = shown.one("form").all("button")
    assert button.attributes["value"] == "runs/a/weights.safetensors"
    listed = client.get("/api/models").json["models"]
    marks = {model["key"]: model["pretrained"] for model in listed}
    assert marks == {"weights.safetensors": False, "runs/a/weights.safetensors": True}
    # A form of another site lacks the token that every form here has.
    form = {"file": button.attributes["value"], "consent": "yes"}
    assert client.post("/models", data=form).status_code == 400
    # Weights without an index are asked about first.
    assert post(button.attributes["value"], client=client).status_code == 409
    shop.right("build", "--weights", str(shop.settings.home.runs / "a/weights.safetensors"))
    assert post(button.attributes["value"], client=client).status_code == 303
    assert shop.state().manifest.weights == load_weights(changed(1.0)).identity
    # Not from elsewhere: neither through a proxy nor by a name that leads to this machine.
    for host in ("pictures.example", "192.0.2.1:8000", "127.0.0.1.example"):
        there, elsewhere = {"base_url": f"http://{host}"}, app.test_client()
        assert not page(elsewhere.get("/models", **there)).all("form")
        start = elsewhere.get("/", **there).get_data(as_text=True)
        csrf = re.search(r'csrf_token" value="([^"]+)"', start)
        answer = elsewhere.post("/models", data=form | {"csrf_token": csrf[1]}, **there)
        assert answer.status_code == 403


def test_a_wrong_token_is_refused_and_many_of_them_stop_whoever_sent_them(
    shop, weights, post, client, caplog
) -> None:
    add(shop, "a", weights)
    before = shop.settings.home.weights.readlink()
    assert client.post("/models", data={"file": "runs/a/weights.safetensors"}).status_code == 400
    for token in ("", "wrong", TOKEN + " ", TOKEN.upper(), "ü" * 20):
        answer = post("runs/a/weights.safetensors", token)
        assert answer.status_code == 403
    assert caplog.text.count("wrong administrator token from 127.0.0.1") == 5
    answer = post("runs/a/weights.safetensors")
    assert answer.status_code == 429
    assert 0 < int(answer.headers["Retry-After"]) <= 60
    assert shop.settings.home.weights.readlink() == before
    client.environ_base["REMOTE_ADDR"] = "192.0.2.7"
    assert post("runs/a/weights.safetensors", consent="yes").status_code == 303


def test_the_token_is_asked_for_once_a_session_and_a_wrong_one_leads_back(
    shop, weights, changed, post, client, page, app, open_app, monkeypatch
) -> None:
    add(shop, "a", changed(0.5))
    add(shop, "b", weights)
    refused = post("runs/a/weights.safetensors", "wrong")
    assert refused.status_code == 403
    shown = page(refused)
    assert "Wrong token" in shown.one("p", "damage").text
    assert ("weights.safetensors", True) in names(shown)  # the one in service
    assert post("runs/a/weights.safetensors", consent="yes").status_code == 303
    shown = page(client.get("/models"))
    assert "token" not in [field.attributes.get("name") for field in shown.all("input")]
    assert TOKEN not in str(client.get_cookie("alexnet").decoded_value)
    assert post("runs/b/weights.safetensors", "", consent="yes").status_code == 303
    # Another browser has not sent it, and this one's right ends with the day and with the token.
    assert post("runs/b/weights.safetensors", "", client=app.test_client()).status_code == 403
    later = time.time() + 13 * 3600
    with monkeypatch.context() as patched:
        patched.setattr("app.views.administrator.time.time", lambda: later)
        assert post("runs/b/weights.safetensors", "").status_code == 403
    other = open_app(replace(shop.settings, admin_token=TOKEN + " of another year")).test_client()
    other.set_cookie("alexnet", client.get_cookie("alexnet").value)
    assert post("runs/b/weights.safetensors", "", client=other).status_code == 403


def test_weights_and_the_index_made_by_them_are_switched_together(
    shop, weights, changed, app, post, client, page
) -> None:
    other, first = add(shop, "other", changed(0.5)), shop.name
    add(shop, "same", weights)
    switch_link(shop.settings.home.weights, other)
    shop.right("build")
    second = shop.name
    assert second != first
    for name, version in (("same", first), ("other", second)):
        answer = post(f"runs/{name}/weights.safetensors")
        assert (answer.status_code, answer.location) == (303, "/models")
        assert shop.name == version
        state = app.extensions["loader"].get_state()
        assert isinstance(state, Ready)
        assert state.version.name == version
        assert state.predictor.identity == state.manifest.weights
        shown = page(client.get("/models"))
        assert f"Switched to runs/{name}/weights.safetensors" in shown.text
        assert version in shown.text
        assert [n for n, checked in names(shown) if checked] == [f"runs/{name}/weights.safetensors"]
        assert "Switched to" not in page(client.get("/models")).text
    assert shop.settings.home.weights.resolve() == other.resolve()
    # A damaged index is as good as none, and the page says what is wrong with it.
    next((shop.index / first).glob("*.npy")).write_bytes(b"damaged")
    shown = page(post("runs/same/weights.safetensors"))
    assert "is damaged" in shown.text
    assert str(shop.settings.home.root) not in shown.text
    assert shop.name == second


def test_weights_without_an_index_take_consent_and_serve_alone(
    shop, changed, app, post, client, page
) -> None:
    add(shop, "other", changed(0.5))
    key, before = "runs/other/weights.safetensors", shop.settings.home.weights.readlink()
    loader, first = app.extensions["loader"], shop.name
    old, other = loader.get_state().predictor.identity, load_weights(changed(0.5)).identity
    answer = post(key)
    assert answer.status_code == 409
    shown = page(answer)
    assert shop.settings.home.weights.readlink() == before
    hidden = {i.attributes["name"]: i.attributes["value"] for i in shown.all("input")
              if i.attributes.get("type") == "hidden"}  # fmt: skip
    answer = client.post("/models", data={**hidden, "token": TOKEN})
    assert answer.status_code == 303
    assert str(shop.settings.home.weights.readlink()) == key
    state = loader.get_state()
    assert isinstance(state, LabelsOnly)
    assert state.predictor.identity == other
    assert shop.loader().require_serving().predictor.identity == other
    shown = page(client.get("/models"))
    assert "flask index build" in [code.text for code in shown.all("code")]
    assert names(shown) == [(key, True)]
    # A run does not take over from weights that somebody has chosen.
    shop.finish_run("new", 1.0)
    assert shop.loader().require_serving().predictor.identity == other
    assert loader.get_state() is state
    # The old pair is still there.
    shop.right("rollback")
    assert (shop.name, shop.state().predictor.identity) == (first, old)
    assert loader.get_latest_state().predictor.identity == old


def test_newer_weights_that_wait_for_an_index_are_told_from_those_in_service(
    shop, weights, app, client, page
) -> None:
    switch_link(shop.settings.home.weights, add(shop, "first", weights))
    served = load_weights(weights).identity
    newer = shop.finish_run("new", 1.0)
    shown = page(client.get("/models"))
    assert newer[:8] in shown.one("p", "status-line").text
    assert [code.text for code in shown.all("code")] == ["flask index build"]
    rows = {row.one("label").text: row for row in shown.all("li", "model")}
    marks = {name: [mark.text for mark in row.all("strong")] for name, row in rows.items()}
    assert marks["first result"] != marks["new result"]
    assert all(marks.values())
    assert dict(names(shown)) == {
        "runs/first/weights.safetensors": True,
        "runs/new/weights.safetensors": False,
    }
    listed = client.get("/api/models").json["models"]
    found = {model["facts"]["identity"]: (model["active"], model["selected"]) for model in listed}
    assert found == {served: (True, False), newer: (False, True)}


@pytest.mark.parametrize(
    ("value", "said"),
    [(float("nan"), "conv1.bias"), (None, "cannot be read")],
)
def test_weights_that_would_answer_nothing_are_not_switched_to(
    shop, weights, changed, post, page, value: float | None, said: str
) -> None:
    key, before = "runs/bad/weights.safetensors", shop.settings.home.weights.readlink()
    if value is None:
        place = shop.settings.home.root / key
        place.parent.mkdir(parents=True)
        place.write_bytes(weights.read_bytes()[:-1])
    else:
        add(shop, "bad", changed(value))
    answer = post(key, consent="yes")
    assert answer.status_code == 409
    assert re.search(said, page(answer).text, re.IGNORECASE)
    assert str(shop.settings.home.root) not in page(answer).text
    assert shop.settings.home.weights.readlink() == before


@pytest.mark.parametrize(
    "key", ["", "runs/gone/weights.safetensors", "../../etc/passwd", "/etc/passwd", "runs/a/../a"]
)
def test_only_files_that_are_listed_can_be_chosen(shop, weights, post, page, key: str) -> None:
    add(shop, "a", weights)
    before = shop.settings.home.weights.readlink()
    answer = post(key, consent="yes")
    assert answer.status_code == 409
    assert shop.settings.home.weights.readlink() == before


def test_a_file_in_the_links_place_is_not_lost(shop, weights, post, page) -> None:
    add(shop, "a", weights)
    shop.settings.home.weights.unlink()
    shop.settings.home.weights.hardlink_to(weights)
    answer = post("runs/a/weights.safetensors")
    assert answer.status_code == 409
    assert not shop.settings.home.weights.is_symlink()


def test_several_switches_at_once_and_a_build_do_not_meet(
    shop, weights, changed, app, post, page
) -> None:
    add(shop, "a", weights)
    add(shop, "b", changed(0.5))
    with store.acquire_build_lock(shop.index):
        answer = post("runs/a/weights.safetensors")
        assert answer.status_code == 409
    answers = []

    def switch(name: str) -> None:
        client = app.test_client()
        answer = post(f"runs/{name}/weights.safetensors", client=client, consent="yes")
        answers.append((name, answer.status_code))

    threads = [threading.Thread(target=switch, args=(name,)) for name in "abab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {status for _, status in answers} <= {303, 409}
    done = [name for name, status in answers if status == 303]
    assert done
    last = str(shop.settings.home.weights.readlink()).split("/")[1]
    assert last in done
    assert not list(shop.settings.home.root.glob(".weights*"))
    # Only one of the two has an index.
    state = app.extensions["loader"].get_latest_state()
    assert isinstance(state, Ready if last == "a" else LabelsOnly)


def test_pages_say_so_when_the_only_weights_are_not_finite(shop, changed, open_app, page) -> None:
    shutil.rmtree(shop.index)
    switch_link(shop.settings.home.weights, changed(float("nan")))
    client = open_app(shop.settings).test_client()
    for address in ("/", "/filters", "/explore"):
        answer = client.get(address)
        assert answer.status_code == 200
        assert page(answer).one("code").text == "python training/run.py"
    assert client.get("/healthz").status_code == 503
    shown = page(client.get("/models"))
    assert "python training/run.py" in shown.text


def test_there_is_a_page_before_there_is_anything(empty, page) -> None:
    shown = page(empty.get("/models"))
    assert shown.all("code")[0].text == "python training/run.py"
    (empty.application.extensions["settings"].home.root / "weights.safetensors").symlink_to("gone")
    assert empty.get("/models").status_code == 200
