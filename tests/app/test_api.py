"""The API, and what is told to whoever watches the server."""

import io

import pytest
from flask.testing import FlaskClient
from sqlalchemy import func, select

from app.tables import Result


def post(client: FlaskClient, data: bytes, field: str = "image"):
    """Send bytes to the API."""
    return client.post("/api/classify", data={field: (io.BytesIO(data), "cat.jpg")})


def test_it_answers_labels_and_neighbours(client, jpeg):
    answer = post(client, jpeg)
    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    found = answer.get_json()
    assert list(found) == ["top5", "neighbours"]
    assert [list(guess) for guess in found["top5"]] == [["label", "probability"]] * 5
    keys = ["id", "label", "distance", "copies", "near"]
    assert [list(n) for n in found["neighbours"]] == [keys] * 6
    assert {n["copies"] for n in found["neighbours"]} == {1}
    assert sum(guess["probability"] for guess in found["top5"]) == pytest.approx(1)
    distances = [n["distance"] for n in found["neighbours"]]
    assert distances == sorted(distances)


def test_it_says_what_the_page_says(client, page, send, jpeg):
    found = post(client, jpeg).get_json()
    shown = page(client.get(send(jpeg).location))
    labels = [li.one("span", "label").text for li in shown.one("ol", "bars").all("li")]
    assert labels == [guess["label"] for guess in found["top5"]]
    tiles = [a.attributes["href"] for a in shown.one("ol", "neighbours").all("a")]
    assert tiles == [f"/images/{n['id']}" for n in found["neighbours"]]


def test_it_needs_no_token_and_keeps_nothing(app, client, settings, jpeg):
    def kept() -> tuple[int, int]:
        with app.extensions["sessions"]() as session:
            rows = session.scalar(select(func.count()).select_from(Result))
        return rows, len(list(settings.home.uploads.glob("*")))

    before = kept()
    answer = post(client, jpeg)
    assert "Set-Cookie" not in answer.headers
    assert kept() == before


@pytest.mark.parametrize(
    ("data", "field", "status"),
    [
        (b"", "image", 400),
        (b"text", "image", 415),
        (b"\xff\xd8\xff\xe0", "image", 400),
        (bytes(1_000_001), "image", 413),
        (bytes(2_000_000), "image", 413),
        (b"text", "picture", 400),
    ],
)
def test_what_is_wrong_comes_as_json(client, data, field, status):
    answer = post(client, data, field)
    assert (answer.status_code, answer.mimetype) == (status, "application/json")
    assert list(answer.get_json()) == ["error"]
    assert answer.get_json()["error"].endswith(".")


def test_a_body_that_is_no_form_is_told_what_to_send(client, jpeg):
    answer = client.post("/api/classify", data=jpeg, content_type="image/jpeg")
    assert answer.status_code == 400
    assert "multipart form with the field “image”" in answer.get_json()["error"]


def test_other_addresses_and_methods_answer_in_json_too(client):
    assert client.get("/api/nothing").get_json()["error"]
    answer = client.get("/api/classify")
    assert answer.status_code == 405
    assert "POST" in answer.headers["Allow"]
    assert answer.get_json()["error"]


def test_health_names_weights_and_index(app, client):
    answer = client.get("/healthz")
    assert answer.status_code == 200
    found = answer.get_json()
    state = app.extensions["engine"].state()
    assert found == {
        "status": "ready",
        "weights": state.predictor.identity,
        "index": state.version.name,
        "images": 54,
    }


def test_health_says_what_is_missing(empty):
    answer = empty.get("/healthz")
    assert answer.status_code == 503
    found = answer.get_json()
    assert (found["status"], found["reason"]) == ("unavailable", "no-weights")
    assert (found["weights"], found["index"], found["images"]) == (None, None, 0)
    assert found["command"].startswith("python training/run.py")
