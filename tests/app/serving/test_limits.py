"""How often an address may ask, and what a proxy is believed."""

import io
from dataclasses import replace

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from app.config import Settings, SettingsError
from app.serving.proxies import TrustedProxies


@pytest.fixture
def limited(settings: Settings) -> FlaskClient:
    """An application with tight limits."""
    tight = replace(settings, upload_rate="2 per hour", api_rate="4 per hour")
    return create_app(tight).test_client()


def test_an_address_that_asks_too_often_is_told_when_to_come_back(limited: FlaskClient) -> None:
    assert [limited.get("/api/models").status_code for _ in range(5)] == [200] * 4 + [429]
    answer = limited.get("/api/models")
    assert 0 < int(answer.headers["Retry-After"]) <= 3600
    assert answer.get_json()["status"] == 429
    assert limited.get("/models").status_code == 200
    other = limited.get("/api/models", environ_overrides={"REMOTE_ADDR": "192.0.2.1"})
    assert other.status_code == 200


def test_uploads_are_counted_together(limited: FlaskClient, jpeg: bytes, page) -> None:
    def send(address: str) -> int:
        return limited.post(address, data={"image": (io.BytesIO(jpeg), "a.jpg")}).status_code

    # The form's token is missing, which is said first and counts nothing.
    assert [send(to) for to in ("/api/classify", "/api/features")] == [200, 200]
    assert send("/api/neighbours") == 429


def test_no_limit_and_a_wrong_one(settings: Settings) -> None:
    free = create_app(replace(settings, upload_rate="", api_rate=""))
    assert {free.test_client().get("/api/models").status_code for _ in range(50)} == {200}
    environ = {"ALEXNET_HOME": str(settings.home.root)}
    assert Settings.from_environment(environ | {"ALEXNET_API_RATE": "0"}).api_rate == ""
    for name, value in (
        ("ALEXNET_API_RATE", "often"),
        ("ALEXNET_RATE_STORAGE", "nowhere://x"),
        ("ALEXNET_PROXIES", "10.0.0.1/8 example.org"),
    ):
        with pytest.raises(SettingsError, match=name):
            Settings.from_environment(environ | {name: value})


FORWARDED = {
    "X-Forwarded-For": "198.51.100.9",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "photos.example",
    "X-Forwarded-Prefix": "/alexnet",
}


def describe(application: Flask, address: str, proxies: tuple[str, ...]) -> tuple[str, ...]:
    """What the application takes for client, scheme, host and prefix."""
    found: list[tuple[str, ...]] = []

    def note(environ, start_response):
        names = ("REMOTE_ADDR", "wsgi.url_scheme", "HTTP_HOST", "SCRIPT_NAME")
        found.append(tuple(environ[name] for name in names))
        start_response("200 OK", [])
        return [b""]

    with application.test_request_context(
        "/", headers=FORWARDED, environ_overrides={"REMOTE_ADDR": address}
    ) as context:
        TrustedProxies(note, proxies)(context.request.environ, lambda *_: None)
    return found[0]


@pytest.mark.parametrize(
    ("address", "proxies"),
    [("127.0.0.1", ("127.0.0.1",)), ("10.1.2.3", ("192.0.2.1", "10.0.0.0/8")), ("", ("unix",))],
)
def test_a_named_proxy_is_believed(app, address: str, proxies: tuple[str, ...]) -> None:
    assert describe(app, address, proxies) == (
        "198.51.100.9",
        "https",
        "photos.example",
        "/alexnet",
    )


@pytest.mark.parametrize(
    ("address", "proxies"),
    [("127.0.0.1", ()), ("11.1.2.3", ("10.0.0.0/8",)), ("localhost", ("127.0.0.1",))],
)
def test_nobody_else_is(app, address: str, proxies: tuple[str, ...]) -> None:
    assert describe(app, address, proxies) == (address, "http", "localhost", "")


def test_addresses_behind_a_prefix(settings: Settings, page) -> None:
    client = create_app(replace(settings, proxies=("127.0.0.1",))).test_client()
    shown = page(client.get("/", headers={"X-Forwarded-Prefix": "/alexnet"}))
    inner = [a.attributes["href"] for a in shown.all("a") if a.attributes["href"][0] == "/"]
    assert inner
    assert all(address.startswith("/alexnet/") for address in inner)


def test_only_the_names_of_the_settings_are_answered(settings: Settings) -> None:
    client = create_app(replace(settings, hosts=("photos.example", ".lab.example"))).test_client()

    def ask(host: str) -> int:
        return client.get("/livez", headers={"Host": host}).status_code

    assert [ask(name) for name in ("photos.example", "a.lab.example:8000")] == [200, 200]
    assert [ask(name) for name in ("evil.example", "photos.example.evil", "")] == [400, 400, 400]
    # For pages too, which cannot link anywhere then.
    for path in ("/", "/models", "/nothing", "/static/shared/favicon.svg"):
        answer = client.get(path, headers={"Host": "evil.example"})
        assert (answer.status_code, answer.mimetype) == (400, "application/problem+json")
