"""Other sites' pages read the API only where that is set."""

import dataclasses

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

ALLOWED = "Access-Control-Allow-Origin"


@pytest.fixture(scope="module")
def opened(settings, open_app) -> FlaskClient:
    """The application with two sites allowed."""
    origins = ("https://example.org", "http://[::1]:3000")
    return open_app(dataclasses.replace(settings, cors_origins=origins)).test_client()


def asked(client: FlaskClient, origin: str, address: str = "/api/runs") -> TestResponse:
    """An answer for a page of another site."""
    return client.get(address, headers={"Origin": origin})


def preflight(client: FlaskClient, origin: str, method: str = "POST") -> TestResponse:
    """What a browser asks before it sends an image there."""
    wanted = {"Access-Control-Request-Method": method}
    wanted |= {"Access-Control-Request-Headers": "content-type, x-own"}
    return client.options("/api/classify", headers={"Origin": origin, **wanted})


def test_no_origin_is_allowed_by_default(client):
    answer = asked(client, "https://example.org")
    assert answer.status_code == 200
    assert not [name for name, _ in answer.headers if name.startswith("Access-Control")]
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert ALLOWED not in preflight(client, "https://example.org").headers


@pytest.mark.parametrize("origin", ["https://example.org", "http://[::1]:3000"])
def test_configured_origins_are_allowed(opened, origin):
    answer = asked(opened, origin)
    assert answer.headers[ALLOWED] == origin
    assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert "ETag" in answer.headers["Access-Control-Expose-Headers"]
    assert "Origin" in answer.headers["Vary"]
    before = preflight(opened, origin)
    assert before.headers[ALLOWED] == origin
    assert "POST" in before.headers["Access-Control-Allow-Methods"]
    assert before.headers["Access-Control-Allow-Headers"] == "content-type"


@pytest.mark.parametrize(
    "origin",
    [
        "http://example.org",
        "https://example.org.evil.net",
        "https://evil.net/https://example.org",
        "https://exampleXorg",
        "http://:3000",
        "null",
    ],
)
def test_other_origins_are_not_allowed(opened, origin):
    answer = asked(opened, origin)
    assert ALLOWED not in answer.headers
    assert "Origin" in answer.headers["Vary"]
    assert ALLOWED not in preflight(opened, origin).headers


def test_errors_are_readable_and_pages_are_not(opened):
    assert asked(opened, "https://example.org", "/api/nothing").headers[ALLOWED]
    for address in ("/models", "/training", "/images/1/thumbnail.jpg", "/static/shared/page.js"):
        answer = asked(opened, "https://example.org", address)
        assert ALLOWED not in answer.headers
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_all_origins_can_be_allowed(settings, open_app):
    client = open_app(dataclasses.replace(settings, cors_origins=("*",))).test_client()
    assert asked(client, "https://anywhere.net").headers[ALLOWED] == "*"
