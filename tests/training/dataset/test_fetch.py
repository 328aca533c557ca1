"""Imagenette through torchvision's own class, from a server on this machine."""

import hashlib
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest
from torchvision.datasets import Imagenette

from model.dataset.folder import scan_folder
from training.dataset.fetch import FetchError, fetch_imagenette

WNIDS = ("n01440764", "n02102040")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def served(tmp_path: Path, photographs: Path) -> Iterator[tuple[str, str]]:
    """An archive laid out as Imagenette's, its address and its checksum."""
    archive = tmp_path / "www" / "imagenette2-320.tgz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        for wnid, name in zip(WNIDS, ("cat", "grass"), strict=True):
            for split in ("train", "val"):
                for file in sorted((photographs / split / name).glob("*.jpg")):
                    tar.add(file, f"imagenette2-320/{split}/{wnid}/{file.stem}.JPEG")
    server = HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(archive.parent)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    md5 = hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest()
    yield f"http://127.0.0.1:{server.server_port}/imagenette2-320.tgz", md5
    server.shutdown()
    thread.join()
    server.server_close()


def test_it_is_fetched_once_and_its_ids_read_as_names(
    served: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Imagenette, "_ARCHIVES", {"320px": served})
    place = tmp_path / "home" / "imagenette"
    folder = scan_folder(fetch_imagenette(place))
    assert [name.label for name in folder.classes] == ["tench", "English springer"]
    monkeypatch.setattr(Imagenette, "_ARCHIVES", {"320px": ("http://127.0.0.1:9/gone", "")})
    assert fetch_imagenette(place) == place
    assert list(place.parent.iterdir()) == [place]  # no archive, nothing half-unpacked


def test_several_that_want_it_fetch_it_once(
    served: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    get = Quiet.do_GET

    def count(self: Quiet) -> None:
        fetched.append(self.path)
        get(self)

    monkeypatch.setattr(Quiet, "do_GET", count)
    monkeypatch.setattr(Imagenette, "_ARCHIVES", {"320px": served})
    fetch_imagenette(tmp_path / "alone" / "imagenette")
    requests_of_one = fetched.copy()
    fetched.clear()
    place = tmp_path / "home" / "imagenette"
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(fetch_imagenette, [place] * 3)) == [place] * 3
    assert fetched == requests_of_one
    assert list(place.parent.iterdir()) == [place]


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FetchError, match=r"could not be fetched into .*file/imagenette"):
        fetch_imagenette(tmp_path / "file" / "imagenette")


def test_a_wrong_checksum_or_no_server_is_one_clear_error(
    served: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "imagenette"
    for archive in (("http://127.0.0.1:9/imagenette2-320.tgz", served[1]), (served[0], "0" * 32)):
        monkeypatch.setattr(Imagenette, "_ARCHIVES", {"320px": archive})
        with pytest.raises(FetchError, match=r"could not be fetched .* --data DIR"):
            fetch_imagenette(place)
        assert not place.exists()


def test_the_labels_agree_with_torchvisions_own() -> None:
    from model.dataset.folder import read_wordnet_labels

    labels = read_wordnet_labels()
    assert len(labels) == 1000
    for wnid, names in Imagenette._WNID_TO_CLASS.items():
        assert labels[wnid] in names
