"""Downloads from a server on this machine that breaks off, changes its file, or is not there."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from storage.download import DownloadError, download

CONTENT = bytes(range(256)) * 40_000


class Server:
    """A server of one file. breaks: after how many bytes each of the next answers ends."""

    def __init__(self) -> None:
        self.content, self.version, self.breaks = CONTENT, '"first"', list[int]()
        self.ranges: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Say nothing."""

            def do_GET(self) -> None:
                outer.answer(self)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/weights.net"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Send the file, or what is missing of it if it is still the same."""
        asked = request.headers.get("Range")
        self.ranges.append(asked)
        start = 0
        if asked:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if request.path != "/weights.net" or start >= len(self.content):
            request.send_error(404 if request.path != "/weights.net" else 416)
            return
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(self.content) - start))
        if self.version:
            request.send_header("ETag", self.version)
        request.end_headers()
        end = start + self.breaks.pop(0) if self.breaks else None
        request.wfile.write(self.content[start:end])


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever)
    thread.start()
    yield server
    server.http.shutdown()
    thread.join()
    server.http.server_close()


def fetch(server: Server, target: Path) -> Path:
    return download(server.url, target, pause_seconds=0)


def test_a_file_is_downloaded_once_with_its_digest(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "downloads/weights.net"
    steps: list[int] = []

    def report(_name: str, total: int) -> Callable[[int], None]:
        assert total == len(CONTENT)
        return steps.append

    assert download(server.url, target, report) == target
    assert target.read_bytes() == CONTENT
    assert steps[0] == 0
    assert steps[-1] == len(CONTENT)
    assert steps == sorted(steps)
    record = target.with_name("weights.net.sha256")
    assert record.read_text().split() == [hashlib.sha256(CONTENT).hexdigest(), "weights.net"]
    fetch(server, target)
    assert server.ranges == [None]
    assert set(target.parent.iterdir()) == {target, record}  # nothing half-done is left


def test_an_interrupted_download_continues(server: Server, tmp_path: Path) -> None:
    server.breaks = [3_000_000, 2_000_000]
    assert fetch(server, tmp_path / "weights.net").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=3000000-", "bytes=5000000-"]


def test_another_process_continues_what_one_left(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "weights.net"
    # The first attempt brings something, the next five nothing: then it gives up.
    server.breaks = [4_000_000, *[0] * 5]
    with pytest.raises(DownloadError, match="4,000,000 of 10,240,000 bytes"):
        fetch(server, target)
    assert not target.exists()
    server.ranges.clear()
    assert fetch(server, target).read_bytes() == CONTENT
    assert server.ranges == ["bytes=4000000-"]


@pytest.mark.parametrize("version", ['"second"', ""])
def test_a_file_that_has_changed_meanwhile_is_begun_anew(
    server: Server, tmp_path: Path, version: str
) -> None:
    target = tmp_path / "weights.net"
    server.breaks = [4_000_000, *[0] * 5]
    with pytest.raises(DownloadError):
        fetch(server, target)
    server.content, server.version = CONTENT[::-1], version
    assert fetch(server, target).read_bytes() == CONTENT[::-1]


def test_a_part_longer_than_the_file_is_begun_anew(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "weights.net"
    server.breaks = [4_000_000, *[0] * 5]
    with pytest.raises(DownloadError):
        fetch(server, target)
    server.content = CONTENT[:1_000_000]
    assert fetch(server, target).read_bytes() == CONTENT[:1_000_000]


def test_what_is_fetched_again_must_be_the_same(server: Server, tmp_path: Path) -> None:
    target = fetch(server, tmp_path / "weights.net")
    target.unlink()
    server.content = CONTENT[::-1]
    with pytest.raises(DownloadError, match=r"not the file that was downloaded before.*\.sha256"):
        fetch(server, target)
    assert not target.exists()
    server.content = CONTENT
    assert fetch(server, target).read_bytes() == CONTENT


def test_several_that_want_it_fetch_it_once(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "weights.net"
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda _: fetch(server, target), range(3))) == [target] * 3
    assert server.ranges == [None]


def test_no_server_no_file_and_no_place_are_told(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"could not be downloaded: .*refused"):
        download("http://127.0.0.1:9/weights.net", tmp_path / "weights.net")
    with pytest.raises(DownloadError, match="Not Found"):
        download(f"{server.url}.old", tmp_path / "weights.net")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DownloadError, match="could not be downloaded"):
        fetch(server, tmp_path / "file/weights.net")
    assert {file.name for file in tmp_path.iterdir()} == {"file"}
