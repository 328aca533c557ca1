"""Results stay with the network that made them, also when another one is in service."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from index import store
from model.weights.checkpoint import load_weights

Page = Callable[[TestResponse], Any]


def csrf(client: FlaskClient, page: Page) -> dict[str, str]:
    """The form's token of a client."""
    fields = page(client.get("/")).all("input")
    token = next(f for f in fields if f.attributes.get("name") == "csrf_token")
    return {"csrf_token": token.attributes["value"]}


def send(client: FlaskClient, page: Page, data: bytes) -> str:
    """Send an image by the form; give the address of its result."""
    form = {**csrf(client, page), "image": (io.BytesIO(data), "cat.jpg")}
    sent = client.post("/", data=form)
    assert sent.status_code == 303, sent.get_data(as_text=True)
    return str(sent.location)


def links(page: Any) -> set[str]:
    """Where the page's links lead."""
    return {link.attributes["href"] for link in page.all("a")}


def forms(page: Any) -> list[str]:
    """Where the page's forms lead."""
    return [form.attributes["action"] for form in page.all("form")]


def test_before_any_index_uploads_get_labels_layers_and_filters(
    weights_alone: FlaskClient, page: Page, jpeg: bytes
) -> None:
    client = weights_alone
    start = page(client.get("/"))
    assert start.one("code").text == "flask index build"
    assert not start.all("ul", "examples")
    location = send(client, page, jpeg)
    token = location.rsplit("/", 1)[1]
    shown = page(client.get(location))
    assert len(shown.one("ol", "bars").all("li")) == 5
    assert not shown.all("ol", "nearest")
    assert "flask index build" in [code.text for code in shown.all("code")]
    assert not [form for form in forms(shown) if form.endswith("/again")]
    assert {f"/layers?of={token}", f"/filters?of={token}"} <= links(shown)
    for address in (f"/layers?of={token}", f"/layers/conv1?of={token}", f"/filters/3?of={token}"):
        pictures = [img.attributes["src"] for img in page(client.get(address)).all("img", "ink")]
        assert all(client.get(src).mimetype == "image/png" for src in pictures)
        assert pictures or "filters" in address
    stored = client.get(f"/api/results/{token}").json
    assert (stored["index"], stored["neighbours"], stored["by_pixels"]) == (None, [], [])
    for address in ("/explore", "/map", "/figure-4"):
        assert page(client.get(address)).one("code").text == "flask index build"
    sent = client.post("/api/classify", data=jpeg, content_type="image/jpeg")
    (answer,) = sent.json["answers"]
    assert (answer["index"], answer["neighbours"]) == (None, [])
    assert answer["top5"] == stored["top5"]
    refused = client.post("/api/neighbours", data=jpeg, content_type="image/jpeg")
    assert (refused.status_code, refused.json["command"]) == (503, "flask index build")


def test_several_images_get_labels_without_an_index(
    weights_alone: FlaskClient, page: Page, jpeg: bytes
) -> None:
    files = [(io.BytesIO(jpeg), name) for name in ("one.jpg", "two.jpg")]
    form = {**csrf(weights_alone, page), "image": files}
    location = weights_alone.post("/", data=form).location
    assert len(page(weights_alone.get(location)).one("ol", "batch").all("a")) == 2


def test_a_database_that_is_lost_gets_no_empty_one_in_its_place(
    shop, open_app: Callable[[Any], Flask]
) -> None:
    home = shop.settings.home
    store.publish_weights(shop.index, home.weights.resolve())
    for file in home.root.glob("app.sqlite3*"):
        file.unlink()
    client = open_app(shop.settings).test_client()
    assert client.get("/").status_code == 503
    assert client.get("/readyz").json["reason"] == "database"
    assert not home.database.exists()


@pytest.fixture
def replaced(shop, open_app: Callable[[Any], Flask], page: Page, jpeg: bytes) -> tuple[Any, str]:
    """A client whose upload was classified by a network that another one then replaced."""
    client = open_app(shop.settings).test_client()
    location = send(client, page, jpeg)
    shop.finish_run("new", 40.0)
    shop.right("build")
    client.application.extensions["loader"].get_latest_state()
    return client, location


def test_a_result_of_another_network_is_classified_again(
    shop, replaced: tuple[FlaskClient, str], page: Page
) -> None:
    client, location = replaced
    token = location.rsplit("/", 1)[1]
    old = client.get(f"/api/results/{token}").json
    shown = page(client.get(location))
    assert f"weights {old['weights'][:8]}" in shown.one("p", "times").text
    assert len(shown.one("ol", "neighbours").all("li")) == 6
    assert not [link for link in links(shown) if link.startswith(("/layers?", "/filters?"))]
    again = f"{location}/again"
    assert again in forms(shown)
    # Only the browser that sent it, and only from the page.
    other = client.application.test_client()
    assert again not in forms(page(other.get(location)))
    assert other.post(again, data=csrf(other, page)).status_code == 403
    assert client.post(again).status_code == 400
    done = client.post(again, data=csrf(client, page))
    assert done.status_code == 303
    assert done.location != location
    fresh = client.get(f"/api/results/{done.location.rsplit('/', 1)[1]}").json
    assert fresh["weights"] == load_weights(shop.settings.home.weights).identity != old["weights"]
    assert fresh["index"] == shop.name != old["index"]
    assert fresh["filename"] == old["filename"]
    assert client.get(fresh["picture"]).data == client.get(old["picture"]).data
    shown = page(client.get(done.location))
    assert f"/layers?of={fresh['token']}" in links(shown)
    assert not [form for form in forms(shown) if form.endswith("/again")]
    # What is of the current network is not classified twice; the old result is as it was.
    assert client.post(f"{done.location}/again", data=csrf(client, page)).location == done.location
    assert client.get(f"/api/results/{token}").json == old
    assert len(page(client.get("/")).one("ul", "result-list").all("a", "tile")) == 2


def test_no_activations_of_the_wrong_network_are_shown(
    shop, replaced: tuple[FlaskClient, str], page: Page
) -> None:
    client, location = replaced
    token = location.rsplit("/", 1)[1]
    for address in (
        f"/layers?of={token}",
        "/layers",
        f"/layers/conv1?of={token}",
        f"/filters/3?of={token}",
    ):
        shown = page(client.get(address))
        assert not shown.all("img", "ink")
        assert forms(shown) == [f"{location}/again"]
        assert location in links(shown)
    for address in (
        f"/layers/conv1/tower-1.png?of={token}",
        f"/filters/3/response.png?of={token}",
        f"/api/layers?of={token}",
    ):
        assert client.get(address).status_code == 409
    # An indexed image belongs to no result.
    image = int(shop.state().index.id_map.ids[0])
    assert page(client.get(f"/layers?of=image-{image}")).all("img", "ink")
    shop.right("rollback")
    client.application.extensions["loader"].get_latest_state()
    assert page(client.get(f"/layers?of={token}")).all("img", "ink")


def test_the_correct_label_of_an_example_is_kept(
    shop, open_app: Callable[[Any], Flask], page: Page
) -> None:
    client = open_app(shop.settings).test_client()
    example = page(client.get("/")).one("ul", "examples").all("form")[0].attributes["action"]
    location = client.post(example, data=csrf(client, page)).location
    shop.finish_run("new", 40.0)
    shop.right("build")
    client.application.extensions["loader"].get_latest_state()
    done = client.post(f"{location}/again", data=csrf(client, page))
    labels = [client.get(f"/api{one}").json["correct"] for one in (location, done.location)]
    assert labels[0] == labels[1] is not None


def test_a_result_without_neighbours_gets_them_when_there_is_an_index(
    shop, open_app: Callable[[Any], Flask], page: Page, jpeg: bytes
) -> None:
    first = shop.name
    store.publish_weights(shop.index, shop.settings.home.weights.resolve())
    client = open_app(shop.settings).test_client()
    location = send(client, page, jpeg)
    assert not page(client.get(location)).all("ol", "nearest")
    shop.right("rollback", first)
    client.application.extensions["loader"].get_latest_state()
    shown = page(client.get(location))
    assert f"/layers?of={location.rsplit('/', 1)[1]}" in links(shown)
    done = client.post(f"{location}/again", data=csrf(client, page))
    assert len(page(client.get(done.location)).one("ol", "neighbours").all("li")) == 6


def test_neighbours_outlive_their_version_but_not_their_files(
    shop, replaced: tuple[FlaskClient, str], page: Page
) -> None:
    client, location = replaced
    shop.right("prune", "--keep", "1")
    old = client.get(f"/api/results/{location.rsplit('/', 1)[1]}").json
    shown = page(client.get(location)).one("ol", "neighbours").all("li")
    assert len(shown) == 6
    for tile in shown:
        source = tile.one("img").attributes["src"]
        assert client.get(source).status_code == 200
    image = client.get(f"/api/images/{old['neighbours'][0]['id']}").json
    (Path(shop.photographs) / image["filename"]).unlink()
    assert len(page(client.get(location)).one("ol", "neighbours").all("li")) == 5
