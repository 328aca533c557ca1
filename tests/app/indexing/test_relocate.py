"""Photographs that were moved are found again, and other photographs are refused."""

import shutil
from pathlib import Path

import pytest

from app.database.images import find_version
from app.database.session import session_factory
from app.indexing import relocate
from index import store
from index.manifest import read_manifest
from storage.moved_folders import find_moved_folder, record_moved_folder
from storage.progress import ignore_progress


@pytest.fixture
def moved(shop) -> Path:
    """The shop's photographs, moved away."""
    place = shop.photographs.with_name("moved")
    shutil.rmtree(place, ignore_errors=True)
    return shop.photographs.rename(place)


def get_picture(shop, open_app) -> tuple[int, bytes]:
    """Ask a server for an indexed picture."""
    image = int(shop.state().index.id_map.ids[4])
    answer = open_app(shop.settings).test_client().get(f"/images/{image}/picture.jpg")
    return answer.status_code, answer.data


def test_everything_works_from_the_new_place_and_nothing_is_computed(
    shop, open_app, moved: Path
) -> None:
    version = shop.name
    moved.rename(shop.photographs)
    before = get_picture(shop, open_app)
    assert before[0] == 200
    shop.photographs.rename(moved)
    assert get_picture(shop, open_app)[0] == 404
    assert "flask index relocate" in shop.refused("update")
    assert "flask index relocate" in shop.refused("build")
    said = shop.right("relocate", str(moved))
    assert f"27 photographs of {shop.photographs} found in {moved}" in said
    assert get_picture(shop, open_app) == before
    for word in (("update",), ("build", "--if-needed")):
        assert "up to date: 27 images" in shop.right(*word)
    assert shop.name == version
    assert "failed" not in shop.right("verify")
    # Weights still say where they were trained; a build finds the folder none the less.
    assert f"Indexed 27 images of {moved}" in shop.right("build")


def test_other_photographs_are_refused_and_nothing_changes(shop, moved: Path) -> None:
    first = next(moved.glob("train/*/*"))
    whole = first.read_bytes()
    first.write_bytes(whole + b" ")
    assert f"{first} has changed" in shop.refused("relocate", str(moved))
    first.unlink()
    assert f"{first} is missing" in shop.refused("relocate", str(moved))
    first.write_bytes(whole)
    assert "does not exist" in shop.refused("relocate", str(moved / "nothing"))
    assert read_manifest(shop.version).data == str(shop.photographs)
    assert find_version(session_factory(shop.settings), shop.name).root == shop.photographs
    assert not shop.settings.home.moved_folders.exists()


def test_a_folder_with_an_index_of_its_own_is_refused(shop, tmp_path: Path) -> None:
    copy = shutil.copytree(shop.photographs, tmp_path / "copy")
    assert "already points" in shop.refused("relocate", str(shop.photographs))
    shop.right("build", "--data", str(copy))
    assert "indexed on its own" in shop.refused("relocate", str(shop.photographs))


def test_killed_before_the_database_knows_it_is_completed_by_the_next(
    shop, open_app, moved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(BaseException):
        pass

    def die(*_: object) -> None:
        raise KilledError

    sessions = session_factory(shop.settings)
    with monkeypatch.context() as patch:
        patch.setattr(relocate, "move_dataset", die)
        with pytest.raises(KilledError):
            relocate.relocate_index(shop.settings, sessions, ignore_progress, moved)
    shop.right("relocate", str(moved))
    assert get_picture(shop, open_app)[0] == 200
    assert len(store.list_versions(shop.index)) == 1


def test_a_folder_that_moves_on_and_back_is_found(shop, tmp_path: Path) -> None:
    home, (a, b, c) = shop.settings.home, (tmp_path / name for name in "abc")
    for old, new in ((a, b), (b, c)):
        record_moved_folder(home, old, new)
    assert find_moved_folder(home, a) == find_moved_folder(home, b) == c
    record_moved_folder(home, c, a)
    assert {find_moved_folder(home, place) for place in (a, b, c)} == {a}
    assert find_moved_folder(home, tmp_path) == tmp_path
