"""Images in the database: ids that stay, bad files listed, queries that an index serves."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from sqlalchemy import event, select, text

from app import catalogue
from app.config import Settings
from app.db import DatabaseError, Sessions, engine_of, reading, session_factory, upgrade, writing
from app.registration import register
from app.tables import Class, Dataset, Image, IndexImage
from index.building.reading import Read, read_photograph
from index.store import Manifest
from model.home import Home
from model.photographs import Folder, scan

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


def enter(sessions: Sessions, folder: Folder) -> dict[str, int]:
    """Read a folder's training images and register them; give the ids by path."""
    return dict(zip(*registered(sessions, folder)[:2], strict=True))


def registered(sessions: Sessions, folder: Folder) -> tuple[list[str], list[int], int]:
    """The paths of the images that could be read, their ids, and the data set's id."""
    read = [(p, read_photograph(folder.root, p.path, lambda _: None)) for p in folder.train]
    good = [(p, r.entry) for p, r in read if isinstance(r, Read)]
    entered = register(sessions, folder, [p for p, _ in good], [e for _, e in good])
    return [p.path for p, _ in good], entered.ids.tolist(), entered.dataset_id


@pytest.fixture
def sessions(tmp_path: Path) -> Sessions:
    """Sessions of an empty database."""
    settings = Settings(home=Home(root=tmp_path / "home"), secret_key="s" * 16)
    upgrade(settings)
    return session_factory(settings)


@pytest.fixture
def statements(sessions: Sessions) -> Iterator[list[str]]:
    """The statements sent to the database."""
    sent: list[str] = []

    def note(connection: object, cursor: object, statement: str, *more: object) -> None:
        sent.append(statement)

    event.listen(engine_of(sessions), "before_cursor_execute", note)
    yield sent
    event.remove(engine_of(sessions), "before_cursor_execute", note)


def indexed(sessions: Sessions, root: Path, name: str = "one") -> int:
    """Register a folder and record a version of all its images."""
    _, ids, dataset_id = registered(sessions, scan(root))
    manifest = replace(MANIFEST, name=name, images=len(ids))
    return catalogue.record_version(sessions, manifest, dataset_id, ids)


def test_every_training_image_is_entered_as_it_is(sessions: Sessions, root: Path) -> None:
    folder = scan(root)
    entered = enter(sessions, folder)
    assert list(entered) == [p.path for p in folder.train]
    assert len(set(entered.values())) == len(folder.train)
    path, image = next(iter(entered.items()))
    found = catalogue.picture(sessions, image)
    assert found
    assert found.file == root / path
    assert (found.format, found.width, found.height) == ("JPEG", 120, 120)
    assert found.split == "train"


def test_a_second_registration_keeps_the_ids(sessions: Sessions, root: Path) -> None:
    assert enter(sessions, scan(root)) == enter(sessions, scan(root))


def test_only_a_changed_file_gets_a_new_id(sessions: Sessions, root: Path) -> None:
    before = enter(sessions, scan(root))
    changed = "train/chelsea/03.jpg"
    old = (root / changed).read_bytes()
    Pillow.new("RGB", (50, 40), "green").save(root / changed)
    after = enter(sessions, scan(root))
    assert {path for path in before if before[path] != after[path]} == {changed}
    assert after[changed] > max(before.values())
    found = catalogue.picture(sessions, after[changed])
    assert found
    assert (found.width, found.height) == (50, 40)
    (root / changed).write_bytes(old)
    assert enter(sessions, scan(root)) == before


def test_new_and_removed_files(sessions: Sessions, root: Path) -> None:
    before = enter(sessions, scan(root))
    (root / "train/coffee/00.jpg").unlink()
    shutil.copy(root / "train/coffee/01.jpg", root / "train/coffee/copy.jpg")
    after = enter(sessions, scan(root))
    assert before.keys() - after.keys() == {"train/coffee/00.jpg"}
    assert after.keys() - before.keys() == {"train/coffee/copy.jpg"}
    assert after["train/coffee/copy.jpg"] > max(before.values())
    # The removed one can still be looked at by its id, for results that name it.
    assert catalogue.picture(sessions, before["train/coffee/00.jpg"])


def test_labels_follow_the_folder(sessions: Sessions, root: Path) -> None:
    image = enter(sessions, scan(root))["train/astronaut/00.jpg"]
    assert catalogue.labels(sessions, [image, 10**6]) == {image: "astronaut"}
    (root / "classes.txt").write_text("astronaut a woman in space\n")
    enter(sessions, scan(root))
    assert catalogue.labels(sessions, [image]) == {image: "a woman in space"}


def test_a_folder_whose_name_is_not_utf8_is_refused(sessions: Sessions, root: Path) -> None:
    with pytest.raises(DatabaseError, match="rename"):
        enter(sessions, replace(scan(root), root=Path("/\udcff"), train=()))


def test_upright_size_of_a_turned_photograph(sessions: Sessions, root: Path) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    Pillow.new("RGB", (80, 30)).save(root / "train/chelsea/00.jpg", exif=exif)
    image = enter(sessions, scan(root))["train/chelsea/00.jpg"]
    found = catalogue.picture(sessions, image)
    assert found
    assert (found.width, found.height) == (30, 80)


def test_examples_are_of_different_classes(sessions: Sessions, root: Path) -> None:
    (root / "val/chelsea/00.jpg").write_bytes(b"damaged")
    dataset_id = registered(sessions, scan(root))[2]
    enter(sessions, scan(root))
    found = catalogue.examples(sessions, dataset_id)
    assert [example.path for example in found] == [
        "val/astronaut/00.jpg",
        "val/chelsea/01.jpg",
        "val/coffee/00.jpg",
    ]
    assert {example.split for example in found} == {"val"}
    found[0].file.unlink()
    assert len(catalogue.examples(sessions, dataset_id)) == 2


def test_classes_and_their_counts(sessions: Sessions, root: Path) -> None:
    shutil.rmtree(root / "val/coffee")
    (root / "val/coffee").mkdir()
    shutil.copy(root / "train/coffee/00.jpg", root / "val/coffee")
    (root / "train/coffee/08.jpg").unlink()
    version = indexed(sessions, root)
    found = catalogue.classes(sessions, version)
    assert [(c.folder, c.images) for c in found] == [
        ("coffee", 8),
        ("astronaut", 9),
        ("chelsea", 9),
    ]


def test_pages_of_a_class(sessions: Sessions, root: Path) -> None:
    version = indexed(sessions, root)
    chelsea = catalogue.classes(sessions, version)[-1]
    pages = [catalogue.class_page(sessions, version, chelsea.id, n, 4) for n in (1, 2, 3)]
    paths = [picture.path for page in pages if page for picture in page.pictures]
    assert paths == [f"train/chelsea/{n:02}.jpg" for n in range(9)]
    assert [len(page.pictures) for page in pages if page] == [4, 4, 1]
    assert all(page and page.pages == 3 and page.class_ == chelsea for page in pages)
    for version_id, class_id, number in [
        (version, chelsea.id, 0),
        (version, chelsea.id, 4),
        (version, 4242, 1),
        (version + 1, chelsea.id, 1),
    ]:
        assert catalogue.class_page(sessions, version_id, class_id, number, 4) is None


def test_a_version_holds_what_it_was_made_of(sessions: Sessions, root: Path) -> None:
    first = indexed(sessions, root, "one")
    (root / "train/coffee/00.jpg").unlink()
    second = indexed(sessions, root, "two")
    assert sum(c.images for c in catalogue.classes(sessions, first)) == 27
    assert sum(c.images for c in catalogue.classes(sessions, second)) == 26
    assert len(catalogue.class_folders(sessions, second)) == 26
    found = catalogue.version(sessions, "two")
    assert found
    assert (found.id, found.root, found.weights, found.unreadable) == (second, root, "w", 2)
    assert found.created_at.isoformat() == MANIFEST.created


def test_forgotten_versions_lose_their_images_only(sessions: Sessions, root: Path) -> None:
    first, second = indexed(sessions, root, "one"), indexed(sessions, root, "two")
    catalogue.forget_versions(sessions, ["two"])
    assert catalogue.classes(sessions, first) == []
    assert catalogue.version(sessions, "one") is None
    assert sum(c.images for c in catalogue.classes(sessions, second)) == 27
    with reading(sessions) as session:
        assert set(session.scalars(select(IndexImage.version_id))) == {second}
        assert session.scalar(text("SELECT count(*) FROM index_version")) == 2


@pytest.mark.parametrize("image", [0, -1, 4242, 2**31, 2**63, 2**70])
def test_an_unknown_image(sessions: Sessions, image: int) -> None:
    assert catalogue.picture(sessions, image) is None


@pytest.fixture
def large(sessions: Sessions) -> tuple[int, int]:
    """A version of 5,000 images in 10 classes; gives its id and that of a class."""
    with writing(sessions) as session:
        dataset = Dataset(root="/large")
        session.add(dataset)
        session.flush()
        rows = [Class(dataset_id=dataset.id, folder=f"c{n}", label=f"class {n}") for n in range(10)]
        session.add_all(rows)
        session.flush()
        session.add_all(
            Image(
                class_id=rows[n % 10].id,
                split="train",
                path=f"train/c{n % 10}/{n:05}.jpg",
                sha256=f"{n:064x}",
                format="JPEG",
                width=1,
                height=1,
                bytes=1,
            )
            for n in range(5000)
        )
        session.flush()
        ids = list(session.scalars(select(Image.id)))
        dataset_id, class_id = dataset.id, rows[3].id
    return catalogue.record_version(sessions, MANIFEST, dataset_id, ids), class_id


def test_pages_take_a_fixed_number_of_queries_each_served_by_an_index(
    sessions: Sessions, large: tuple[int, int], statements: list[str]
) -> None:
    version, class_id = large
    page = catalogue.class_page(sessions, version, class_id, 11, 48)
    assert page
    assert (page.pages, page.class_.images, len(page.pictures)) == (11, 500, 20)
    catalogue.classes(sessions, version)
    catalogue.labels(sessions, range(1, 7))
    catalogue.examples(sessions, 1)
    queries = [statement for statement in statements if statement.startswith("SELECT")]
    assert len(queries) == 5
    with engine_of(sessions).connect() as connection:
        for query in queries:
            plan = connection.exec_driver_sql(
                f"EXPLAIN QUERY PLAN {query}", (1,) * query.count("?")
            )
            for step in plan:
                assert not step.detail.startswith(("SCAN image", "SCAN index_image")), step


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
    assert sum(c.images for c in catalogue.classes(sessions, version)) == 1500
    assert len(statements) < 60
