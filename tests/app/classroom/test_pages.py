"""The classroom's pages: who may enter, and a zip's way to a data set and out of the world."""

import io
import zipfile

import pytest

from app.classroom.datasets import read_dataset
from model.image.decode import decode_image
from storage.home import Home

ADDRESSES = (
    "/new/from/zip",
    "/new/from/pictures",
    "/new/some/delete",
    "/new/some/head",
    "/new/some/classify",
    "/new/some/train",
    "/new/some/train/stop",
    "/new/some/train/resume",
)


@pytest.fixture
def home(school) -> Home:
    return school.extensions["settings"].home


def test_only_the_administrator_enters(school, client, page) -> None:
    stranger = school.test_client()
    asked = stranger.get("/new")
    assert asked.status_code == 200
    assert "token" in {field.attributes.get("name") for field in page(asked).all("input")}
    assert stranger.get("/new/some").status_code == 403
    for address in ADDRESSES:
        assert stranger.post(address, data={"name": "x"}).status_code == 403
    # Where there is no token, nobody does.
    closed = client.get("/new")
    assert "token" not in {field.attributes.get("name") for field in page(closed).all("input")}


def test_a_wrong_token_does_not_open(school, page) -> None:
    stranger = school.test_client()
    csrf = page(stranger.get("/new")).all("input")[0].attributes["value"]
    form = {"csrf_token": csrf, "token": "a wrong token, long enough"}
    assert stranger.post("/new/token", data=form).status_code == 403
    assert stranger.get("/new/some").status_code == 403


def test_the_camera_is_for_these_pages_only(teacher) -> None:
    assert "camera=(self)" in teacher.client.get("/new").headers["Permissions-Policy"]
    assert "camera=()" in teacher.client.get("/training").headers["Permissions-Policy"]


def test_a_form_of_another_site_makes_nothing(teacher, home, two_classes) -> None:
    teacher.csrf = "forged"
    assert teacher.send_zip(two_classes, "forged").status_code == 400
    assert not (home.datasets / "forged").exists()


def test_a_zip_becomes_a_data_set_with_a_page_and_is_deleted(
    teacher, home, two_classes, page
) -> None:
    made = teacher.send_zip(two_classes, "lesson-1")
    assert (made.status_code, made.location) == (303, "/new/lesson-1")
    shown = teacher.client.get("/new/lesson-1")
    pictures = [picture.attributes["src"] for picture in page(shown).all("img")]
    assert len(pictures) == 12
    square = teacher.client.get(pictures[7])
    assert decode_image(square.data).size == (256, 256)
    for path in (
        "train/brick/00009.jpg",
        "dataset.json",
        "train/../val/brick/00006.jpg",
        "train/%2e%2e/%2e%2e/dataset.json",
    ):
        assert teacher.client.get(f"/new/lesson-1/photographs/{path}").status_code == 404
    assert "/new/lesson-1" in teacher.client.get("/new").text
    assert teacher.send_zip(two_classes, "lesson-1").status_code == 409
    assert teacher.post("/new/lesson-1/delete").status_code == 303
    assert teacher.client.get("/new/lesson-1").status_code == 404
    assert list(home.datasets.iterdir()) == []


def test_why_a_zip_is_refused_stands_on_the_page(teacher, page, home) -> None:
    refused = teacher.send_zip(b"no zip", "lesson-2")
    assert refused.status_code == 400
    assert "not a zip" in page(refused).one("p", "problem").text
    fields = {f.attributes.get("name"): f for f in page(refused).all("input")}
    assert fields["name"].attributes["value"] == "lesson-2"
    empty = teacher.post("/new/from/zip", name="lesson-2", zip=(io.BytesIO(b""), ""))
    assert empty.status_code == 400
    large = teacher.send_zip(bytes(2_000_000), "lesson-2")
    assert large.status_code == 413
    assert list(home.datasets.glob("lesson-2*")) == []


def test_pictures_by_class_become_the_same_data_set(teacher, two_classes, page, home) -> None:
    with zipfile.ZipFile(io.BytesIO(two_classes)) as archive:
        sent = {name: archive.read(name) for name in archive.namelist()}
    fields: dict[str, object] = {"name": "taken", "class-0": " brick", "class-3": "coffee "}
    for number, label in ((0, "brick"), (3, "coffee")):
        pictures = [(io.BytesIO(data), n) for n, data in sent.items() if n.startswith(label)]
        fields[f"photographs-{number}"] = [*pictures, (io.BytesIO(b"x"), "notes.heic")]
    # A row that was left empty.
    fields |= {"class-1": "", "photographs-1": (io.BytesIO(b""), "")}
    assert teacher.post("/new/from/pictures", **fields).location == "/new/taken"
    dataset = read_dataset(home, "taken")
    assert (dataset.classes, dataset.counts) == (("brick", "coffee"), [6, 6])
    assert dataset.passed_over.names == ("notes.heic", "notes.heic")
    assert {(dataset.folder / one.path).read_bytes() for one in dataset.photographs} == set(
        sent.values()
    )
    nameless = teacher.post(
        "/new/from/pictures", name="other", **{"photographs-0": (io.BytesIO(b"x"), "a.jpg")}
    )
    assert nameless.status_code == 400
    assert page(nameless).one("p", "problem")
    large = {"class-0": "a", "photographs-0": (io.BytesIO(bytes(1_000_001)), "a.jpg")}
    large |= {"class-1": "b", "photographs-1": (io.BytesIO(b"x"), "b.jpg")}
    assert teacher.post("/new/from/pictures", name="other", **large).status_code == 413
    assert read_dataset(home, "other") is None
