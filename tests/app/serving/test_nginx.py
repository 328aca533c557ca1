"""The application behind the proxy that deploy/nginx.conf configures."""

import io
import json
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from http.cookiejar import CookieJar
from pathlib import Path

import pytest

from app import create_app
from tests.app.serving.test_connections import Served

ROOT = Path(__file__).resolve().parents[3]
NGINX = shutil.which("nginx")


def configure(folder: Path, port: int, application_port: int) -> Path:
    """The configuration as it is delivered, without TLS and for another user's folder."""
    server = (ROOT / "deploy/nginx.conf").read_text()
    server = re.sub(r"\n +ssl_.*", "", server)
    for old, new in (
        ("listen 443 ssl;", f"listen 127.0.0.1:{port};"),
        ("127.0.0.1:8000", f"127.0.0.1:{application_port}"),
        # What TLS would make of it.
        ("X-Forwarded-Proto $scheme", "X-Forwarded-Proto https"),
    ):
        assert old in server
        server = server.replace(old, new)
    paths = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = folder / "nginx.conf"
    file.write_text(
        f"pid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{paths}{server}}}\n"
    )
    return file


@pytest.fixture
def address(tmp_path: Path, settings) -> Iterator[str]:
    if NGINX is None:
        pytest.skip("nginx is not installed")
    folder = tmp_path / "nginx"
    folder.mkdir()
    folder.chmod(0o777)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    served = Served(create_app(replace(settings, proxies=("127.0.0.1",))).wsgi_app, body=10_000_000)
    file = configure(folder, port, served.listener.getsockname()[1])
    nginx = subprocess.Popen(
        [NGINX, "-e", f"{folder}/error.log", "-c", str(file), "-g", "daemon off;"],
        stderr=subprocess.PIPE,
    )
    try:
        end = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                break
            except ConnectionRefusedError:
                assert nginx.poll() is None, nginx.communicate()[1]
                assert time.monotonic() < end
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/alexnet"
    finally:
        nginx.terminate()
        nginx.communicate(timeout=30)
        served.stop()


class KeepRedirects(urllib.request.HTTPRedirectHandler):
    """Does not follow."""

    def redirect_request(self, *_):
        return None


class HttpsCookies(CookieJar):
    """Sends cookies that are for HTTPS over the test's plain connection, too."""

    def make_cookies(self, response, request):
        found = super().make_cookies(response, request)
        for cookie in found:
            cookie.secure = False
        return found


def test_pages_and_uploads_behind_a_prefix(address: str, jpeg: bytes) -> None:
    jar = HttpsCookies()
    client = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar), KeepRedirects)
    with client.open(f"{address}/") as answer:
        page = answer.read().decode()
        assert "max-age" in answer.headers["Strict-Transport-Security"]
    assert [cookie.name for cookie in jar] == ["__Host-alexnet"]
    links = re.findall(r'(?:href|src|action)="(/[^"]*)"', page)
    assert links
    assert all(link.startswith("/alexnet/") for link in links)
    stylesheet = next(link for link in links if ".css" in link)
    with client.open(address.removesuffix("/alexnet") + stylesheet) as answer:
        assert "immutable" in answer.headers["Cache-Control"]

    token = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert token
    body = io.BytesIO()
    for head, data in (
        (b'name="csrf_token"', token[1].encode()),
        (b'name="image"; filename="a.jpg"\r\nContent-Type: image/jpeg', jpeg),
    ):
        body.write(b"--x\r\nContent-Disposition: form-data; " + head + b"\r\n\r\n" + data + b"\r\n")
    body.write(b"--x--\r\n")
    upload = urllib.request.Request(
        f"{address}/",
        body.getvalue(),
        {
            "Content-Type": "multipart/form-data; boundary=x",
            # What a browser sends over HTTPS, which Flask-WTF asks for.
            "Referer": address.replace("http:", "https:") + "/",
        },
    )
    with pytest.raises(urllib.error.HTTPError) as sent:
        client.open(upload)
    sent.value.close()
    assert sent.value.code == 303
    assert sent.value.headers["Location"].startswith("/alexnet/results/")


def test_what_the_proxy_adds_and_keeps_to_itself(address: str) -> None:
    def ask(path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        request = urllib.request.Request(f"{address}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, lower(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, lower(error.headers), error.read()

    status, headers, _ = ask("/livez", **{"X-Request-ID": "chosen-by-a-client"})
    assert status == 200
    # nginx names each request itself, so that its own log has the same name.
    assert re.fullmatch(r"[0-9a-f]{32}", headers["x-request-id"])
    assert ask("/metrics")[0] == 404
    status, headers, body = ask("/api/nothing")
    assert (status, headers["content-type"]) == (404, "application/problem+json")
    assert json.loads(body)["instance"] == "/alexnet/api/nothing"
    status, _, page = ask("/nothing")
    assert status == 404
    links = re.findall(rb'(?:href|src|action)="(/[^"]*)"', page)
    assert links
    assert all(link.startswith(b"/alexnet/") for link in links)


def lower(headers) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
