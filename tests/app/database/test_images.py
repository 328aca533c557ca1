"""Images in the database: ids that stay, what a version holds, what is forgotten."""

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from sqlalchemy import event, select, text

from app.config import Settings
from app.database.browse import list_classes
from app.database.images import (
    find_examples,
    find_image,
    find_labels,
    find_validation_images,
    find_version,
    read_class_folders_by_image,
)
from app.database.ingest import Registration, forget_versions, record_version, register_images
from app.database.session import (
    DatabaseError,
    Sessions,
    get_engine,
    read_session,
    session_factory,
    upgrade_database,
)
from app.database.tables import IndexImage
from index.building.reader import DecodedFile, read_photograph
from index.store import Manifest
from model.dataset.folder import ImageFolder, scan_folder
from storage.home import Home

MANIFEST = Manifest(
    name="one",
    weights="w",
    data="/d",
    created="2026-01-01T00:00:00+00:00",
    made_by="nobody",
    images=0,
    vectors=0,
    unreadable=2,
    listing="l",
    dtype="float32",
    kind="exact",
    target=0.95,
    shards=[],
    files={},
)


def enter(sessions: Sessions, folder: ImageFolder) -> dict[str, int]:
    """Read a folder's training images and register them; give the ids by path."""
    images = registered(sessions, folder)
    return dict(zip([e.path for e in images.entries], images.ids.tolist(), strict=True))


def registered(sessions: Sessions, folder: ImageFolder) -> Registration:
    """Register the images that can be read."""
    read = [(p, read_photograph(folder.root, p.path, lambda _: None)) for p in folder.train]
    good = [(p, r.entry) for p, r in read if isinstance(r, DecodedFile)]
    return register_images(sessions, folder, [p for p, _ in good], [e for _, e in good])


@pytest.fixture
def sessions(tmp_path: Path) -> Sessions:
    """Sessions of an empty database."""
    settings = Settings(home=Home(root=tmp_path / "home"), secret_key="s" * 16)
    upgrade_database(settings)
    return session_factory(settings)


@pytest.fixture
def statements(sessions: Sessions) -> Iterator[list[str]]:
    """The statements sent to the database."""
    sent: list[str] = []

    def note(connection: object, cursor: object, statement: str, *more: object) -> None:
        sent.append(statement)

    event.listen(get_engine(sessions), "before_cursor_execute", note)
    yield sent
    event.remove(get_engine(sessions), "before_cursor_execute", note)


def indexed(sessions: Sessions, root: Path, name: str = "one") -> int:
    """Register a folder and record a version of all its images."""
    images = registered(sessions, scan_folder(root))
    manifest = replace(MANIFEST, name=name, images=len(images.ids))
    return record_version(sessions, manifest, images)


def test_every_training_image_is_entered_as_it_is(sessions: Sessions, root: Path) -> None:
    folder = scan_folder(root)
    entered = enter(sessions, folder)
    assert list(entered) == [p.path for p in folder.train]
    assert len(set(entered.values())) == len(folder.train)
    path, image = next(iter(entered.items()))
    found = find_image(sessions, image)
    assert found
    assert found.file == root / path
    assert (found.format, found.width, found.height) == ("JPEG", 120, 120)
    assert found.split == "train"


def test_a_second_registration_keeps_the_ids(sessions: Sessions, root: Path) -> None:
    assert enter(sessions, scan_folder(root)) == enter(sessions, scan_folder(root))


def test_only_a_changed_file_gets_a_new_id(sessions: Sessions, root: Path) -> None:
    before = enter(sessions, scan_folder(root))
    changed = "train/chelsea/03.jpg"
    old = (root / changed).read_bytes()
    Pillow.new("RGB", (50, 40), "green").save(root / changed)
    after = enter(sessions, scan_folder(root))
    assert {path for path in before if before[path] != after[path]} == {changed}
    assert after[changed] > max(before.values())
    found = find_image(sessions, after[changed])
    assert found
    assert (found.width, found.height) == (50, 40)
    (root / changed).write_bytes(old)
    assert enter(sessions, scan_folder(root)) == before


def test_new_and_removed_files(sessions: Sessions, root: Path) -> None:
    before = enter(sessions, scan_folder(root))
    (root / "train/coffee/00.jpg").unlink()
    shutil.copy(root / "train/coffee/01.jpg", root / "train/coffee/copy.jpg")
    after = enter(sessions, scan_folder(root))
    assert before.keys() - after.keys() == {"train/coffee/00.jpg"}
    assert after.keys() - before.keys() == {"train/coffee/copy.jpg"}
    assert after["train/coffee/copy.jpg"] > max(before.values())
    # The removed one can still be looked at by its id, for results that name it.
    assert find_image(sessions, before["train/coffee/00.jpg"])


def test_labels_follow_the_folder(sessions: Sessions, root: Path) -> None:
    image = enter(sessions, scan_folder(root))["train/astronaut/00.jpg"]
    assert find_labels(sessions, [image, 10**6]) == {image: "astronaut"}
    (root / "classes.txt").write_text("astronaut a woman in space\n")
    enter(sessions, scan_folder(root))
    assert find_labels(sessions, [image]) == {image: "a woman in space"}


def test_a_folder_whose_name_is_not_utf8_is_refused(sessions: Sessions, root: Path) -> None:
    with pytest.raises(DatabaseError, match="rename"):
        enter(sessions, replace(scan_folder(root), root=Path("/\udcff"), train=()))


def test_upright_size_of_a_turned_photograph(sessions: Sessions, root: Path) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    Pillow.new("RGB", (80, 30)).save(root / "train/chelsea/00.jpg", exif=exif)
    image = enter(sessions, scan_folder(root))["train/chelsea/00.jpg"]
    found = find_image(sessions, image)
    assert found
    assert (found.width, found.height) == (30, 80)


def test_examples_are_of_different_classes(sessions: Sessions, root: Path) -> None:
    (root / "val/chelsea/00.jpg").write_bytes(b"damaged")
    dataset_id = registered(sessions, scan_folder(root)).dataset_id
    enter(sessions, scan_folder(root))
    found = find_examples(sessions, dataset_id)
    assert [example.path for example in found] == [
        "val/astronaut/00.jpg",
        "val/chelsea/01.jpg",
        "val/coffee/00.jpg",
    ]
    assert {example.split for example in found} == {"val"}
    found[0].file.unlink()
    assert "val/astronaut/01.jpg" in {e.path for e in find_examples(sessions, dataset_id)}
    (root / "val/astronaut/01.jpg").unlink()
    assert len(find_examples(sessions, dataset_id)) == 2
    assert len(find_examples(sessions, dataset_id, most=1)) == 1


def test_all_validation_images_that_can_be_read_are_entered_where_there_are_few(
    sessions: Sessions, root: Path
) -> None:
    (root / "val/chelsea/00.jpg").write_bytes(b"damaged")
    dataset_id = registered(sessions, scan_folder(root)).dataset_id
    entered = find_validation_images(sessions, dataset_id)
    files = {file.relative_to(root).as_posix() for file in (root / "val").rglob("*.jpg")}
    assert {one.path for one in entered} == files - {"val/chelsea/00.jpg"}
    Pillow.new("RGB", (50, 40), "green").save(root / "val/coffee/00.jpg")
    enter(sessions, scan_folder(root))
    after = {one.path: one for one in find_validation_images(sessions, dataset_id)}
    assert after.keys() == {one.path for one in entered}
    assert after["val/coffee/00.jpg"].width == 50


def test_of_many_validation_images_some_of_every_class_are_entered(
    sessions: Sessions, tmp_path: Path
) -> None:
    for split, count in (("train", 1), ("val", 30)):
        for name in ("a", "b", "c", "d", "e"):
            (tmp_path / split / name).mkdir(parents=True)
            for n in range(count):
                grey = (n, ord(name), len(split))
                Pillow.new("RGB", (8, 8), grey).save(tmp_path / split / name / f"{n:02}.png")
    (tmp_path / "val/e/00.png").write_bytes(b"damaged")
    dataset_id = registered(sessions, scan_folder(tmp_path)).dataset_id
    entered = find_validation_images(sessions, dataset_id)
    assert len(entered) == 64
    counts = Counter(one.label for one in entered)
    assert sorted(counts.values()) == [12, 13, 13, 13, 13]
    # From the first files to the last, not the first dozen.
    assert max(one.path for one in entered if one.label == "a") >= "val/a/26.png"
    # The three to be clicked are of classes far from each other.
    assert [one.label for one in find_examples(sessions, dataset_id)] == ["a", "b", "d"]


def test_a_version_holds_what_it_was_made_of(sessions: Sessions, root: Path) -> None:
    first = indexed(sessions, root, "one")
    (root / "train/coffee/00.jpg").unlink()
    second = indexed(sessions, root, "two")
    assert sum(c.images for c in list_classes(sessions, first)) == 27
    assert sum(c.images for c in list_classes(sessions, second)) == 26
    assert len(read_class_folders_by_image(sessions, second)) == 26
    found = find_version(sessions, "two")
    assert found
    assert (found.id, found.root, found.weights, found.unreadable) == (second, root, "w", 2)
    assert found.created_at.isoformat() == MANIFEST.created


def test_forgotten_versions_lose_their_images_only(sessions: Sessions, root: Path) -> None:
    first, second = indexed(sessions, root, "one"), indexed(sessions, root, "two")
    forget_versions(sessions, ["two"])
    assert list_classes(sessions, first) == []
    assert find_version(sessions, "one") is None
    assert sum(c.images for c in list_classes(sessions, second)) == 27
    with read_session(sessions) as session:
        assert set(session.scalars(select(IndexImage.version_id))) == {second}
        assert session.scalar(text("SELECT count(*) FROM index_version")) == 2


@pytest.mark.parametrize("image", [0, -1, 4242, 2**31, 2**63, 2**70])
def test_an_unknown_image(sessions: Sessions, image: int) -> None:
    assert find_image(sessions, image) is None


def test_a_large_folder_is_entered_in_few_statements(
    sessions: Sessions, tmp_path: Path, statements: list[str]
) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (1500, 3))
    for number, colour in enumerate(colours):
        folder = tmp_path / "many/train" / f"c{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Pillow.new("RGB", (2, 2), tuple(int(c) for c in colour)).save(folder / f"{number}.png")
    for name in ("c0", "c1"):
        (tmp_path / "many/val" / name).mkdir(parents=True)
        shutil.copy(tmp_path / f"many/train/{name}/{name[1]}.png", tmp_path / f"many/val/{name}/")
    version = indexed(sessions, tmp_path / "many")
    assert sum(c.images for c in list_classes(sessions, version)) == 1500
    assert len(statements) < 60
