"""Lists in pages, and what is not sent twice."""

import re

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse


def links(answer: TestResponse) -> dict[str, str]:
    """Where an answer leads."""
    return {name: to for to, name in re.findall(r'<([^>]+)>; rel="(\w+)"', answer.headers["Link"])}


def walk(client: FlaskClient, address: str) -> list[dict]:
    """Every page from this one on, by its links."""
    pages = []
    while True:
        answer = client.get(address)
        pages.append(answer.get_json())
        there = links(answer)
        assert ("prev" in there) == (len(pages) > 1)
        if "next" not in there:
            assert there["last"] == address or len(pages) == 1
            return pages
        address = there["next"]


@pytest.mark.parametrize("sort", ["name", "largest", "smallest", "newest"])
def test_the_pages_hold_every_image_once(client, sort):
    seen = []
    for told in walk(client, "/api/classes?size=4"):
        assert (told["total"], told["pages"]) == (6, 2)
        for one in told["classes"]:
            pages = walk(client, f"/api/classes/{one['id']}/images?sort={sort}")
            found = [image for page in pages for image in page["images"]]
            assert len(found) == one["images"] == pages[0]["total"]
            assert {image["class"] for image in found} == {one["id"]}
            assert [page["size"] for page in pages] == [4] * len(pages)  # ALEXNET_PAGE_SIZE
            seen += [image["id"] for image in found]
    assert sorted(seen) == list(range(1, 55))


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/api/classes?page=2&size=6", 404),
        ("/api/classes?page=99999999999999999999", 422),
        ("/api/classes?page=0", 422),
        ("/api/classes?page=x", 422),
        ("/api/classes?size=0", 422),
        ("/api/classes?size=1001", 422),
        ("/api/classes?sort=colour", 422),
        ("/api/classes/999/images", 404),
        ("/api/classes/99999999999/images", 404),
        ("/api/runs?page=2", 404),
    ],
)
def test_a_bad_page_is_a_problem(client, fits, address, status):
    answer = client.get(address)
    assert answer.status_code == status
    assert "Link" not in answer.headers
    fits(answer)


def test_a_query_without_matches_is_an_empty_page(client):
    found = client.get("/api/classes?q=nothing").get_json()
    assert (found["classes"], found["total"], found["pages"], found["page"]) == ([], 0, 1, 1)


def test_an_unchanged_response_is_304_and_cached_by_version(client):
    first = client.get("/api/classes")
    etag, index = first.headers["ETag"], first.get_json()["index"]
    assert first.headers["Cache-Control"] == "private, no-cache"
    for known in (etag, etag.removeprefix("W/"), f'"other", {etag}', "*"):
        again = client.get("/api/classes", headers={"If-None-Match": known})
        assert (again.status_code, again.data) == (304, b"")
        assert again.headers["ETag"] == etag
    assert client.get("/api/classes", headers={"If-None-Match": '"other"'}).status_code == 200
    other = client.get("/api/classes?sort=images").headers["ETag"]
    assert other != etag
    lasting = client.get(f"/api/classes?v={index}").headers["Cache-Control"]
    assert "immutable" in lasting
    assert "private" in lasting
    lasting = client.get(f"/api/filters/1?v={index}").headers["Cache-Control"]
    assert "immutable" in lasting
    for wrong in ("2", index[:4], f"{index}x"):
        kept = client.get(f"/api/classes?v={wrong}").headers["Cache-Control"]
        assert kept == "private, no-cache"


def test_bytes_and_json_have_different_etags(client):
    one = client.get("/api/images/1/features")
    accepting = {"Accept": "application/octet-stream", "If-None-Match": one.headers["ETag"]}
    other = client.get("/api/images/1/features", headers=accepting)
    assert other.status_code == 200
    assert one.headers["Vary"] == other.headers["Vary"] == "Accept"


def test_errors_have_no_etag(client):
    answer = client.get("/api/images/999999/features")
    assert answer.status_code == 404
    assert "ETag" not in answer.headers
    assert answer.headers["Cache-Control"] == "private, no-cache"


def test_head_has_no_body(client):
    answer = client.head("/api/health")
    assert (answer.status_code, answer.data) == (200, b"")
    assert answer.headers["ETag"]
