"""What the browser is told, what it may load, and what nobody can reach."""

import dataclasses
import io
import re

import pytest

from app import create_app
from app.database.tables import UploadResult
from storage.home import Home

ADDRESSES = [
    "/",
    "/explore",
    "/filters",
    "/filters/gpu-1.png",
    "/healthz",
    "/nothing",
    "/static/shared/style.css",
    "/static/shared/page.js",
    "/static/shared/favicon.svg",
]


def addresses(client, page, send, jpeg) -> list[str]:
    """One address of every kind."""
    tile = page(client.get("/explore")).all("a", "tile")[0]
    image, answered = tile.attributes["href"], send(jpeg).location
    pictures = [f"{image}/thumbnail.jpg", f"{image}/picture.jpg", f"{answered}/picture.jpg"]
    return [*ADDRESSES, image, answered, *pictures]


def test_every_response_carries_the_policy(client, page, send, jpeg):
    for address in addresses(client, page, send, jpeg):
        headers = client.get(address).headers
        policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
        assert policy == {
            "default-src": "'none'",
            "img-src": "'self' blob:",
            "style-src": "'self'",
            "script-src": "'self'",
            "connect-src": "'self'",
            "form-action": "'self'",
            "base-uri": "'none'",
            "frame-ancestors": "'none'",
        }
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
        assert "camera=()" in headers["Permissions-Policy"]
        assert "Cache-Control" in headers


def test_no_page_holds_a_script_a_style_or_another_host(client, empty, page, send, jpeg):
    answers = [client.get(a) for a in addresses(client, page, send, jpeg)]
    answers += [empty.get("/"), send(b"text"), client.post("/", data={})]
    pages = [page(answer) for answer in answers if answer.mimetype == "text/html"]
    assert len(pages) > 6
    for shown in pages:
        assert not shown.all("style")
        for element in shown.all():
            assert "style" not in element.attributes
            assert not [name for name in element.attributes if name.startswith("on")]
            for name in ("src", "href", "action", "formaction", "srcset"):
                assert not re.match(r"(\w+:|//)", element.attributes.get(name, ""))
        assert {s.text for s in shown.all("script")} == {""}


@pytest.mark.parametrize("data", [{}, {"csrf_token": "forged"}])
def test_a_form_without_the_right_token_is_refused(client, page, settings, jpeg, data):
    before = set(settings.home.uploads.glob("*"))
    answer = client.post("/", data={**data, "image": (io.BytesIO(jpeg), "cat.jpg")})
    assert answer.status_code == 400
    assert page(answer).one("form", "upload")
    assert client.post("/examples/1", data=data).status_code == 400
    assert set(settings.home.uploads.glob("*")) == before


def test_a_token_of_another_session_is_refused(app, client, token, jpeg):
    form = {"csrf_token": token, "image": (io.BytesIO(jpeg), "cat.jpg")}
    other = app.test_client()
    other.get("/")
    assert other.post("/", data=form).status_code == 400


def test_the_cookie_stays_with_this_site_and_out_of_scripts(app, client):
    cookie = client.get("/").headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Secure" not in cookie
    assert "Expires" in cookie  # it outlives the browser's session
    secure = app.test_client().get("/", base_url="https://localhost")
    assert secure.headers["Set-Cookie"].startswith("__Host-alexnet=")
    assert "Secure; HttpOnly; Path=/" in secure.headers["Set-Cookie"]
    assert "max-age" in secure.headers["Strict-Transport-Security"]
    assert "Strict-Transport-Security" not in client.get("/").headers


def test_a_static_file_is_kept_only_under_its_present_version(client, page):
    asset = page(client.get("/")).all("link")[0].attributes["href"]
    assert "immutable" in client.get(asset).headers["Cache-Control"]
    for version in ("anything", "", "0" * 12):
        kept = client.get(asset.split("?")[0], query_string={"v": version}).headers["Cache-Control"]
        assert "immutable" not in kept


def test_results_are_kept_by_no_cache_and_name_no_token_in_a_header(client, send, jpeg):
    where = send(jpeg).location
    for address in (where, f"{where}/picture.jpg", f"{where}/thumbnail.jpg", f"/api{where}"):
        headers = client.get(address).headers
        assert headers["Cache-Control"] == "no-store"
        assert where.split("/")[-1] not in str(headers)


def test_uploads_sent_at_the_same_time_are_all_their_browsers_own(app, client, jpeg, token):
    def send():
        # Each with the cookie as it was before: none sees what the others were told.
        one = app.test_client()
        one.set_cookie("alexnet", client.get_cookie("alexnet").value)
        form = {"csrf_token": token, "image": (io.BytesIO(jpeg), "cat.jpg")}
        return one.post("/", data=form).location

    sent = [send() for _ in range(3)]
    shown = client.get("/").get_data(as_text=True)
    assert all(where in shown for where in sent)
    assert [client.get(f"{where}/delete").status_code for where in sent] == [200] * 3
    assert app.test_client().get(f"{sent[0]}/delete").status_code == 403


def test_an_earlier_versions_cookie_keeps_its_results(app, client, send, jpeg):
    where = send(jpeg).location
    with app.extensions["sessions"].begin() as session:
        session.query(UploadResult).update({"owner": None})
    other = app.test_client()
    with other.session_transaction() as cookie:
        cookie["results"] = [where.split("/")[-1], "nonsense", 3]
    assert where in other.get("/").get_data(as_text=True)
    assert other.get(f"{where}/delete").status_code == 200
    assert client.get(f"{where}/delete").status_code == 403


@pytest.mark.parametrize(
    "address",
    [
        "/static/../app/config.py",
        "/static/..%2f..%2fapp/config.py",
        "/static/%2e%2e/%2e%2e/etc/passwd",
        "/static//etc/passwd",
        "/images/../secret_key",
        "/images/..%2f..%2fsecret_key/thumbnail.jpg",
        "/images/1%00/thumbnail.jpg",
        "/results/../secret_key",
        "/results/..%2fapp.sqlite3/picture.jpg",
        "/results/%2e%2e%2f%2e%2e%2fsecret_key/picture.jpg",
        "/results/x%00/picture.jpg",
        "/filters/gpu-..%2f1.png",
        "/explore/..%2f1",
    ],
)
def test_no_path_in_an_address_reaches_a_file(client, settings, address):
    answer = client.get(address)
    if answer.status_code == 308:  # a doubled slash is mended, then there is still nothing
        answer = client.get(answer.location)
    assert answer.status_code == 404
    assert settings.secret_key.encode() not in answer.data


def test_tokens_cannot_be_guessed(send, jpeg):
    tokens = {send(jpeg).location.rsplit("/", 1)[1] for _ in range(3)}
    assert len(tokens) == 3
    assert all(len(token) == 22 for token in tokens)  # 128 bits


def test_static_files_keep_only_under_the_address_of_their_content(client, page):
    sheet = page(client.get("/")).all("link")[-1].attributes["href"]
    assert "immutable" in client.get(sheet).headers["Cache-Control"]
    assert client.get("/static/shared/style.css").headers["Cache-Control"] == "no-cache"


def test_starting_touches_nothing(tmp_path, settings):
    create_app(dataclasses.replace(settings, home=Home(root=tmp_path / "none")))
    assert not (tmp_path / "none").exists()
