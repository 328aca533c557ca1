"""Images sent to be classified: one or several, as a form or as a body."""

import io
from dataclasses import replace

import pytest
from flask.testing import FlaskClient
from PIL import Image
from sqlalchemy import func, select
from werkzeug.test import TestResponse

from app.database.tables import UploadResult


def post(client: FlaskClient, *data: bytes, field: str = "image") -> TestResponse:
    """Send images in a form."""
    files = [(io.BytesIO(one), f"{number}.jpg") for number, one in enumerate(data)]
    return client.post("/api/classify", data={field: files})


def test_the_classification_equals_the_pages(client, page, uploader, jpeg):
    (found,) = post(client, jpeg).get_json()["answers"]
    shown = page(client.get(f"/results/{uploader.token}"))
    labels = [li.one("span", "label").text for li in shown.one("ol", "bars").all("li")]
    assert labels == [guess["label"] for guess in found["top5"]]
    tiles = [a.attributes["href"] for a in shown.one("ol", "neighbours").all("a")]
    assert tiles == [n["page"] for n in found["neighbours"]]
    assert sum(guess["probability"] for guess in found["top5"]) == pytest.approx(1)
    assert (len(found["crops"]), len(found["neighbours"]), len(found["by_pixels"])) == (10, 6, 6)
    assert (found["filename"], found["width"], found["height"]) == ("0.jpg", 300, 200)
    distances = [n["distance"] for n in found["neighbours"]]
    assert distances == sorted(distances)
    assert client.get(found["neighbours"][0]["thumbnail"]).mimetype == "image/jpeg"


def test_classifying_needs_no_token_and_stores_nothing(app, client, settings, jpeg):
    def kept() -> tuple[int, int]:
        with app.extensions["sessions"]() as session:
            rows = session.scalar(select(func.count()).select_from(UploadResult))
        return rows, len(list(settings.home.uploads.glob("*")))

    before = kept()
    answer = post(client, jpeg)
    assert "Set-Cookie" not in answer.headers
    assert "Cookie" not in answer.headers.get("Vary", "")
    assert kept() == before


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream"])
def test_a_body_is_an_image_whatever_it_is_called(client, fits, uploader, jpeg, kind):
    (found,) = fits(client.post("/api/classify", data=jpeg, content_type=kind))["answers"]
    stored = fits(client.get(f"/api/results/{uploader.token}"))
    assert found["top5"] == stored["top5"]


def test_of_several_images_only_the_bad_ones_have_problems(client, fits, jpeg):
    answer = post(client, jpeg, b"text", b"", bytes(1_000_001), jpeg)
    assert answer.status_code == 200
    found = fits(answer)["answers"]
    assert [one["filename"] for one in found] == [f"{n}.jpg" for n in range(5)]
    statuses = [one["problem"]["status"] if "problem" in one else 200 for one in found]
    assert statuses == [200, 415, 400, 413, 200]
    assert found[0]["top5"] == found[4]["top5"]
    assert found[1]["problem"]["type"] == "/api#image-unknown"
    assert found[1]["problem"]["accepted"]["bytes"] == 1_000_000


@pytest.mark.parametrize(
    ("data", "field", "status"),
    [
        (b"", "image", 400),
        (b"text", "image", 415),
        (b"\xff\xd8\xff\xe0", "image", 400),
        (bytes(1_000_001), "image", 413),
        (bytes(13_000_000), "image", 413),
        (b"text", "picture", 400),
    ],
)
def test_a_single_bad_image_is_a_problem(client, fits, data, field, status):
    answer = post(client, data, field=field)
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")
    found = fits(answer)
    assert found["status"] == status
    assert found["accepted"]["types"] == ["image/jpeg", "image/png", "image/webp"]


@pytest.mark.parametrize(
    ("data", "kind", "status"),
    [
        (b"", "image/jpeg", 400),
        (b"text", "image/tiff", 415),
        (b"text", "text/plain", 415),
        (b"{}", "application/json", 415),
        (b"", None, 400),
        (bytes(1_000_001), "image/jpeg", 413),
        (bytes(13_000_000), "application/octet-stream", 413),
    ],
)
def test_a_bad_body_is_a_problem(client, fits, data, kind, status):
    answer = client.post("/api/classify", data=data, content_type=kind)
    assert answer.status_code == status
    assert fits(answer)["status"] == status


def test_too_many_at_once_are_refused(client, fits, settings):
    answer = post(client, *[b"text"] * (settings.upload_files + 1))
    assert answer.status_code == 413
    assert str(settings.upload_files) in fits(answer)["detail"]


def test_a_stored_image_is_not_its_own_neighbour(client):
    found = client.get("/api/images/1/answer").get_json()
    assert 1 not in [n["id"] for n in found["neighbours"]]
    assert found["filename"] == "00.jpg"


def test_an_image_too_costly_to_decode_is_refused_and_the_next_one_classified(
    settings, open_app, jpeg
):
    out = io.BytesIO()
    Image.new("RGB", (1500, 1300)).save(out, "PNG")
    client = open_app(replace(settings, decode_megabytes=16)).test_client()
    costly, ordinary = post(client, out.getvalue(), jpeg).get_json()["answers"]
    assert costly["problem"]["status"] == 413
    assert costly["problem"]["type"].endswith("#image-too-large")
    assert (ordinary["width"], ordinary["height"]) == (300, 200)


def test_an_image_with_a_side_too_long_is_refused(settings, open_app, jpeg):
    answer = post(open_app(replace(settings, upload_side=299)).test_client(), jpeg)
    assert answer.status_code == 413
    assert answer.get_json()["accepted"]["side"] == 299
