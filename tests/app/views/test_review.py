"""The review's pages: what is stored is shown, and corrections are listed only with the token."""

import hashlib
import io
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image

from app.config import Settings
from app.database.images import find_images, read_class_ids
from app.review.correction_list import read_correction_list
from app.review.corrections import CorrectionError, ListedCorrection
from app.review.zip_export import MAX_ZIP_BYTES, plan_zip, stream_zip
from index.manifest import read_manifest, write_manifest
from index.review.stored import REVIEW_FILE, Review, read_review, write_review
from index.store import StoreError

TOKEN = "a token of 25 characters"
Page = Callable[..., Any]


@pytest.fixture(scope="module")
def desk(settings: Settings, open_app: Callable[[Settings], Flask]) -> Flask:
    """The application with an administrator's token."""
    return open_app(replace(settings, admin_token=TOKEN))


@pytest.fixture
def browser(desk: Flask) -> FlaskClient:
    return desk.test_client()


@pytest.fixture(scope="module")
def review(desk: Flask) -> Review:
    """What the served version stores."""
    found = desk.extensions["loader"].require_ready().review
    assert isinstance(found, Review)
    return found


def csrf(client: FlaskClient, path: str) -> str:
    found = re.search(r'name="csrf_token" value="([^"]+)"', client.get(path).get_data(as_text=True))
    assert found
    return found[1]


def shown_ids(page: Page, client: FlaskClient, path: str) -> list[int]:
    """The images of a page, in order."""
    boxes = page(client.get(path)).all("input")
    return [int(b.attributes["value"]) for b in boxes if b.attributes.get("name") == "image"]


def test_images_come_in_the_order_asked_for(browser, page, review: Review) -> None:
    shown = shown_ids(page, browser, "/review?show=all&sort=doubt")
    assert shown == review.ids[np.argsort(-review.doubts, kind="stable")][: len(shown)].tolist()
    assert len(shown) == 24
    second = shown_ids(page, browser, "/review?show=all&sort=loss&page=2")
    assert second == review.ids[np.argsort(-review.losses, kind="stable")][24:48].tolist()
    listed = shown_ids(page, browser, "/review")
    contested = review.ids[review.contested].tolist()
    assert set(listed) <= set(contested)
    assert len(listed) == min(24, len(contested))


def test_filters_narrow_by_class_guess_split_and_file_name(browser, page, review: Review) -> None:
    label, guess = int(review.classes[0]), int(review.guesses[0])
    cell = (review.classes == label) & (review.guesses == guess)
    shown = shown_ids(page, browser, f"/review?show=all&label={label}&guess={guess}")
    assert set(shown) == set(review.ids[cell][:24].tolist()) or len(shown) == 24
    shown_page = page(browser.get(f"/review?show=all&label={label}&guess={guess}"))
    on_map = shown_page.one("a", "on-map").attributes["href"]
    assert on_map == f"/map?label={label}&guess={guess}"
    assert page(browser.get("/review?show=all")).all("a", "on-map") == []
    validation = shown_ids(page, browser, "/review?show=all&split=val")
    assert set(validation) == set(review.ids[review.validation].tolist())
    named = page(browser.get("/review?show=all&q=ROCKET/01"))
    files = [p.text for p in named.all("p", "file")]
    assert sorted(files) == ["train/rocket/01.jpg", "val/rocket/01.jpg"]
    assert page(browser.get("/review?show=all&q=100%25")).all("p", "file") == []


def test_a_list_is_made_exported_and_shortened(
    browser, page, review: Review, tmp_path: Path
) -> None:
    first, second = review.ids[:2].tolist()
    new = int(next(c for c in review.classes if c != review.classes[0]))
    form = {"csrf_token": csrf(browser, "/review?show=all"), "token": TOKEN, "note": "= odd"}
    sent = browser.post(
        "/review?show=all",
        data={**form, "action": "relabel", "image": [str(first)], "to": str(new)},
    )
    assert (sent.status_code, sent.location) == (303, "/review?show=all")
    browser.post("/review", data={**form, "action": "drop", "image": [str(second)]})
    content = browser.get("/review/corrections.json").get_json()
    assert [c["action"] for c in content["corrections"]] == ["relabel", "drop"]
    assert content["corrections"][0]["to"] not in ("", content["corrections"][0]["label"])
    for form_name in ("csv", "json"):
        file = tmp_path / f"list.{form_name}"
        file.write_bytes(browser.get(f"/review/corrections.{form_name}").data)
        read = read_correction_list(file)
        assert [one.note for one in read] == ["= odd", "= odd"]
        assert [(one.file, one.action) for one in read] == [
            (c["file"], c["action"]) for c in content["corrections"]
        ]
    # A second opinion replaces the first.
    browser.post("/review", data={**form, "action": "note", "image": [str(second)]})
    shown = page(browser.get("/review/corrections")).one("ul", "corrections").all("li")
    assert [li.one("strong").text for li in shown] == ["relabel", "note"]
    for image in (first, second):
        gone = browser.post(
            "/review/corrections",
            data={"csrf_token": form["csrf_token"], "token": TOKEN, "image": str(image)},
        )
        assert gone.status_code == 303
    assert browser.get("/review/corrections.json").get_json()["corrections"] == []


def test_the_map_lists_many_at_once(browser, review: Review) -> None:
    ids = review.ids.tolist()
    form = {"csrf_token": csrf(browser, "/map"), "token": TOKEN, "action": "note"}
    sent = browser.post("/review", data={**form, "images": ",".join(map(str, ids))})
    assert (sent.status_code, sent.location) == (303, "/review/corrections")
    found = browser.get("/review/corrections.json").get_json()["corrections"]
    assert len(found) == len(ids)
    for image in ids:
        browser.post("/review/corrections", data={**form, "image": str(image)})
    assert browser.post("/review", data={**form, "images": "1,x"}).status_code == 400


def test_a_zip_has_the_photographs_where_the_corrections_put_them(
    desk: Flask, browser, client, review: Review, tmp_path: Path
) -> None:
    images = find_images(desk.extensions["sessions"], review.ids.tolist())
    first, second, third = (images[i] for i in review.ids[:3].tolist())
    form = {"csrf_token": csrf(browser, "/review?show=all"), "token": TOKEN}
    new = next(i for i in images.values() if i.label != first.label)
    new_id = dict(zip(review.ids.tolist(), review.classes.tolist(), strict=True))
    browser.post(
        "/review",
        data={**form, "action": "relabel", "image": [str(first.id)], "to": str(new_id[new.id])},
    )
    browser.post("/review", data={**form, "action": "drop", "image": [str(second.id)]})
    browser.post("/review", data={**form, "action": "note", "image": [str(third.id)]})
    sent = browser.post("/review/corrections.zip", data=form)
    assert (sent.status_code, sent.mimetype) == (200, "application/zip")
    with zipfile.ZipFile(io.BytesIO(sent.data)) as archive:
        assert archive.testzip() is None
        packed = {
            name.removeprefix("corrections/"): archive.read(name) for name in archive.namelist()
        }
    for name in ("corrections.csv", "corrections.json"):
        assert packed[name] == browser.get(f"/review/{name}").data
    to = Path(new.path).parent.name
    moved = f"train/{to}/{Path(first.path).name}"
    # The new class has a photograph of that name only if it is on the list too.
    assert packed[moved] == first.file.read_bytes()
    assert packed[f"dropped/{second.path}"] == second.file.read_bytes()
    assert packed[third.path] == third.file.read_bytes()
    assert len(packed) == 5
    assert (
        browser.post("/review/corrections.zip", data={**form, "token": "wrong"}).status_code == 403
    )
    own = {"csrf_token": csrf(client, "/")}
    assert client.post("/review/corrections.zip", data=own).status_code == 403
    for image in (first, second, third):
        browser.post("/review/corrections", data={**form, "image": str(image.id)})


def test_a_changed_or_missing_photograph_is_named_in_the_zip(tmp_path: Path) -> None:
    files = {n: tmp_path / f"{n}.jpg" for n in range(1, 5)}
    for n in (1, 2, 4):
        files[n].write_bytes(b"photograph %d" % n)
    listed = [
        ListedCorrection(
            file=f"train/{'a' if n < 4 else 'b'}/{n if n < 4 else 1}.jpg",
            sha256=hashlib.sha256(b"photograph %d" % n).hexdigest(),
            action="note" if n < 4 else "relabel",
            label="a" if n < 4 else "b",
            to="" if n < 4 else "a",
            image_id=n,
        )
        for n in files
    ]
    files[2].write_bytes(b"another")
    pieces = list(stream_zip(listed, plan_zip(listed, files)))
    assert len(pieces) == 3  # one photograph at a time, and the zip's own list
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    assert found["corrections/train/a/1.jpg"] == b"photograph 1"
    assert found["corrections/train/a/1-2.jpg"] == b"photograph 4"  # both were called 1.jpg
    said = found["corrections/left-out.txt"].decode().splitlines()
    assert [line.split(":")[0] for line in said] == ["train/a/2.jpg", "train/a/3.jpg"]
    assert len(found) == 5
    with files[1].open("r+b") as large:
        large.truncate(MAX_ZIP_BYTES + 1)
    with pytest.raises(CorrectionError, match="GB"):
        plan_zip(listed, files)


def test_the_proposed_label_is_taken_where_none_is_chosen(
    desk: Flask, browser, review: Review
) -> None:
    image = int(review.ids[3])
    form = {"csrf_token": csrf(browser, "/review?show=all"), "token": TOKEN}
    browser.post("/review", data={**form, "action": "relabel", "image": [str(image)], "to": ""})
    (one,) = browser.get("/review/corrections.json").get_json()["corrections"]
    ready = desk.extensions["loader"].require_ready()
    folders = read_class_ids(desk.extensions["sessions"], ready.version.dataset_id)
    assert folders[one["to"]] == int(review.proposed[3])
    browser.post("/review/corrections", data={**form, "image": str(image)})


def test_nothing_is_listed_without_the_token(browser, client, page, review: Review) -> None:
    image = str(review.ids[0])
    form = {"csrf_token": csrf(browser, "/review?show=all"), "action": "drop", "image": [image]}
    assert browser.post("/review", data={**form, "token": "wrong"}).status_code == 403
    assert browser.post("/review/corrections", data={**form, "token": ""}).status_code == 403
    form["csrf_token"] = csrf(client, "/")
    assert client.post("/review", data={**form, "token": TOKEN}).status_code == 403  # it is off
    assert page(client.get("/review?show=all")).all("fieldset", "correct-bar") == []
    assert browser.get("/review/corrections.json").get_json()["corrections"] == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"image": []},
        {"image": ["2147483647"]},
        {"image": ["x"]},
        {"action": "erase"},
        {"action": "relabel", "to": "2147483647"},
        {"image": [], "images": ",".join(["1"] * 1001)},
    ],
)
def test_a_form_that_makes_no_sense_is_refused(desk, review: Review, wrong) -> None:
    client = desk.test_client()
    form = {
        "csrf_token": csrf(client, "/review?show=all"),
        "token": TOKEN,
        "action": "drop",
        "image": [str(review.ids[0])],
        **wrong,
    }
    assert client.post("/review", data=form).status_code == 400
    assert client.get("/review/corrections.json").get_json()["corrections"] == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/review?page=9999", 404),
        ("/review?page=x", 404),
        ("/review?show=nonsense&sort=nonsense&label=nonsense&split=nonsense", 200),
        ("/review?show=leaks", 200),
        ("/review?show=duplicates&label=1", 200),
        ("/review?show=outliers", 200),
        ("/review/corrections", 200),
    ],
)
def test_every_address_is_answered(browser, path: str, status: int) -> None:
    assert browser.get(path).status_code == status


def test_copies_across_classes_and_into_validation_are_found(shop: Any, page, open_app) -> None:
    train, val = shop.photographs / "train", shop.photographs / "val"
    shutil.copy(train / "coffee/00.jpg", train / "chelsea/copied.jpg")
    with Image.open(train / "astronaut/03.jpg") as image:
        image.save(val / "astronaut/again.png")
        image.resize((200, 200)).save(val / "chelsea/larger.png")
    shop.right("update")
    client = open_app(shop.settings).test_client()

    def pairs(show: str) -> set[frozenset[str]]:
        rows = page(client.get(f"/review?show={show}")).one("ul", "pairs").all("li")
        return {frozenset(p.text for p in row.all("p", "file")) for row in rows}

    assert frozenset({"train/coffee/00.jpg", "train/chelsea/copied.jpg"}) in pairs("duplicates")
    leaks = pairs("leaks")
    assert frozenset({"train/astronaut/03.jpg", "val/astronaut/again.png"}) in leaks
    assert frozenset({"train/astronaut/03.jpg", "val/chelsea/larger.png"}) in leaks
    first = page(client.get("/review?show=duplicates")).one("ul", "pairs").all("li")[0]
    assert "same pixels" in first.text
    # The examples to click are the same as before the review registered the others.
    assert len(page(client.get("/")).all("button", "example")) == 3


def test_an_index_without_a_review_names_the_command(shop: Any, page, open_app) -> None:
    (shop.version / REVIEW_FILE).unlink()
    manifest = read_manifest(shop.version)
    kept = {name: sealed for name, sealed in manifest.files.items() if name != REVIEW_FILE}
    write_manifest(replace(manifest, files=kept), shop.version)
    shown = page(open_app(shop.settings).test_client().get("/review"))
    assert shown.one("code").text == "flask index look"
    shop.right("look")
    assert read_review(shop.version) is not None


def test_what_is_written_is_read_and_damage_is_named(review: Review, tmp_path: Path) -> None:
    write_review(tmp_path, review)
    read = read_review(tmp_path)
    assert read is not None
    assert read.ids.tolist() == review.ids.tolist()
    assert read.near_pixels == review.near_pixels
    write_review(tmp_path, replace(review, doubts=review.doubts[1:]))
    with pytest.raises(StoreError, match="damaged"):
        read_review(tmp_path)
