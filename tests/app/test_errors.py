"""Errors are pages like the others, and never a traceback."""

import dataclasses

import pytest


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 408, 410, 413, 415, 429, 500, 503])
def test_every_status_has_a_page_in_the_same_look(failing, page, status):
    answer = failing.get(f"/fail/{status}")
    assert answer.status_code == status
    shown = page(answer)
    assert shown.one("header", "top")
    assert shown.one("h1").text
    assert shown.one("div", "message").all("p")[0].text
    assert "!" not in shown.text


@pytest.mark.parametrize(("kind", "status"), [("bug", 500), ("database", 503), ("file", 500)])
def test_what_fails_inside_stays_inside(failing, page, caplog, kind, status):
    answer = failing.get(f"/fail/{kind}")
    assert answer.status_code == status
    text = answer.get_data(as_text=True)
    assert "secret" not in text
    assert "Traceback" not in text
    assert "secret" in caplog.text  # the log has it


def test_a_full_disk_of_the_database_server_is_told(failing, page):
    answer = failing.get("/fail/full")
    assert answer.status_code == 507


@pytest.mark.parametrize(
    "address",
    [
        "/nothing",
        "/results/not-a-token",
        "/results/not-a-token/picture.jpg",
        "/images/0",
        "/images/999999",
        "/images/99999999999999999999",
        "/images/-1",
        "/images/x",
        "/images/999999/thumbnail.jpg",
        "/explore/999999",
        "/explore/99999999999999999999",
        "/filters/gpu-0.png",
        "/filters/gpu-3.png",
    ],
)
def test_what_is_not_there_is_not_found(client, page, address):
    answer = client.get(address)
    assert answer.status_code == 404
    assert page(answer).one("h1").text


def test_a_wrong_method_says_which_are_right(client, page):
    answer = client.post("/explore")
    assert answer.status_code in (400, 405)
    answer = client.get("/examples/1")
    assert answer.status_code == 405
    assert "POST" in answer.headers["Allow"]


def test_a_database_that_is_not_there_is_no_traceback(tmp_path, settings, page, open_app):
    other = dataclasses.replace(settings, database_url=f"sqlite:///{tmp_path}/no/such/file")
    client = open_app(other).test_client()
    assert client.get("/healthz").status_code == 503
    assert client.get("/").status_code in (200, 503)
    assert client.get(f"/results/{'x' * 22}").status_code == 503
