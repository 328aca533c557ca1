"""Errors are problem documents (RFC 9457), whatever is asked."""

import dataclasses
import json
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from app.problems import PROBLEM_KINDS

MEMBERS = ["type", "title", "status", "detail", "instance"]


def problem(answer) -> dict:
    """The document of an answer."""
    assert answer.mimetype == "application/problem+json"
    found = answer.get_json()
    assert list(found)[:5] == MEMBERS
    assert found["status"] == answer.status_code
    return found


@pytest.mark.parametrize("status", [400, 403, 404, 405, 410, 413, 415, 422, 429, 500, 503])
def test_every_error_is_a_problem_document(failing, status):
    found = problem(failing.get(f"/api/fail/{status}"))
    assert found["status"] == status
    assert found["instance"] == f"/api/fail/{status}"
    assert found["detail"]


@pytest.mark.parametrize(
    ("kind", "status", "type"),
    [
        ("bug", 500, "about:blank"),
        ("file", 500, "about:blank"),
        ("database", 503, "/api#database"),
        ("search", 503, "/api#search"),
        ("full", 507, "/api#no-room"),
    ],
)
def test_internal_errors_reveal_nothing(failing, caplog, kind, status, type):
    answer = failing.get(f"/api/fail/{kind}")
    found = problem(answer)
    assert (found["status"], found["type"]) == (status, type)
    assert ("Retry-After" in answer.headers) == (status == 503)
    assert "secret" not in json.dumps(found)
    assert "secret" in caplog.text  # the log has it


def test_what_is_missing_comes_with_the_command_that_creates_it(empty, page):
    found = problem(empty.get("/api/health"))
    assert found["type"] == "/api#no-weights"
    assert found["title"] == PROBLEM_KINDS["no-weights"].title
    assert found["command"] == "python training/run.py"
    address, _, place = found["type"].partition("#")
    assert [e for e in page(empty.get(address)).all("div") if e.attributes.get("id") == place]
    for address in ("/api/classes", "/api/map", "/api/filters", "/api/figure-4"):
        assert problem(empty.get(address))["status"] == 503


def test_unknown_paths_and_methods_are_problems(client):
    assert problem(client.get("/api/nothing"))["status"] == 404
    answer = client.get("/api/classify")
    assert problem(answer)["status"] == 405
    assert "POST" in answer.headers["Allow"]
    assert problem(client.post("/api"))["status"] == 405
    assert problem(client.delete("/api/images/1"))["status"] == 405


def test_the_current_image_is_named_by_the_url_alone(uploader, fits):
    client, token = uploader.client, uploader.token
    answer = client.get("/api/layers")  # with the cookie of the browser that sent it
    assert problem(answer)["status"] == 422
    assert "Cookie" not in answer.headers.get("Vary", "")
    assert fits(client.get(f"/api/layers?of={token}"))["of"] == token


def test_flasks_own_responses_are_not_pages(client):
    answer = client.options("/api/classify")
    assert answer.status_code == 200
    assert answer.data == b""
    assert "Content-Type" not in answer.headers
    answer = client.get("/api//images/1")
    assert answer.mimetype != "text/html"


ADDRESSES = st.sampled_from(
    [
        *("images/{}", "images/{}/neighbours", "images/{}/features", "classes/{}/images"),
        *("filters/{}", "results/{}", "runs/{}", "swagger-ui/{}", "{}", "{}/x"),
        *("classes", "runs", "map", "layers", "filters", "classify", "neighbours"),
    ]
)
PLACES = st.integers().map(str) | st.text(min_size=1, max_size=8)
NAMES = st.sampled_from(["page", "size", "k", "class", "q", "sort", "of", "v"])
QUERIES = st.dictionaries(NAMES, st.integers().map(str) | st.text(max_size=8), max_size=3)


@limits(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    address=ADDRESSES,
    place=PLACES,
    query=QUERIES,
    method=st.sampled_from(["get", "get", "post", "put", "head"]),
)
def test_any_request_gets_a_response_without_a_server_error(client, address, place, query, method):
    path = f"/api/{address.format(quote(place, safe=''))}"
    answer = getattr(client, method)(path, query_string=query)
    assert answer.status_code < 500
    assert answer.mimetype != "text/html"
    if answer.status_code >= 400 and method != "head":
        problem(answer)


@limits(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    data=st.binary(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["feature", "images", "x"]), inner, max_size=3)
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode()),
    kind=st.sampled_from(["application/json", "image/jpeg", "multipart/form-data", "text/plain"]),
    address=st.sampled_from(["classify", "features", "neighbours"]),
)
def test_any_invalid_body_is_a_client_error(client, data, kind, address):
    answer = client.post(f"/api/{address}", data=data, content_type=kind)
    assert 400 <= answer.status_code < 500
    problem(answer)


def test_a_missing_database_is_a_problem(tmp_path, settings, open_app):
    other = dataclasses.replace(settings, database_url=f"sqlite:///{tmp_path}/no/such/file")
    client = open_app(other).test_client()
    assert problem(client.get("/api/images/1"))["type"] == "/api#database"
