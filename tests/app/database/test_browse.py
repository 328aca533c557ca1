"""Browsing the catalogue: classes by name, a class's images in every order, those beside one."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import event, insert, select, update

from app.config import Settings
from app.database.browse import (
    ClassOrder,
    ImageOrder,
    find_class_page,
    find_first_images_by_class,
    find_position,
    list_classes,
)
from app.database.images import find_examples, find_image, find_labels
from app.database.session import (
    Sessions,
    get_engine,
    read_session,
    session_factory,
    upgrade_database,
    write_session,
)
from app.database.tables import Class, Dataset, Image, IndexClass, IndexImage, IndexVersion, utc_now
from storage.home import Home

LABELS = ("Élan", "eland", "tiger cat", "Tabby Cat", "ﬁddler crab", "Straße")
Key = Callable[[Image], tuple[object, ...]]
IN_PYTHON: dict[ImageOrder, Key] = {
    ImageOrder.NAME: lambda image: (image.path, image.id),
    ImageOrder.LARGEST: lambda image: (-image.width * image.height, image.path, image.id),
    ImageOrder.SMALLEST: lambda image: (image.width * image.height, image.path, image.id),
    ImageOrder.NEWEST: lambda image: (-image.id,),
}


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Sessions:
    """Sessions of a database of 6 classes and 3,000 images, of which the version lacks some."""
    home = Home(root=tmp_path_factory.mktemp("browsing"))
    settings = Settings(home=home, secret_key="s" * 16)
    upgrade_database(settings)
    sessions = session_factory(settings)
    enter(sessions, 3000)
    return sessions


def enter(sessions: Sessions, count: int) -> None:
    """Enter images of many equal sizes, their paths in another order than their ids."""
    draw = np.random.default_rng(1)
    with write_session(sessions) as session:
        session.add(Dataset(id=1, root="/photographs"))
        session.add(
            IndexVersion(
                id=1,
                name="v",
                dataset_id=1,
                weights="w",
                created_at=utc_now(),
                count=0,
                unreadable=0,
            )
        )
        session.flush()
        session.add_all(
            Class(id=n, dataset_id=1, folder=f"c{n}", label=label)
            for n, label in enumerate(LABELS, 1)
        )
        session.flush()
        names, sides = draw.permutation(count), draw.integers(1, 9, (count, 2)) * 100
        rows = [
            {
                **{"class_id": min(1 + n % 9, 6), "split": "train", "format": "JPEG", "bytes": 1},
                **{"path": f"train/{name:05}.jpg", "sha256": f"{n:064x}"},
                **{"width": width, "height": height},
            }
            for n, (name, (width, height)) in enumerate(
                zip(names.tolist(), sides.tolist(), strict=True)
            )
        ]
        session.execute(insert(Image), rows)
        ids = [i for i in session.scalars(select(Image.id)) if i % 7]
        session.execute(insert(IndexImage), [{"version_id": 1, "image_id": i} for i in ids])
        for n in range(1, 7):
            held = [i for i in ids if min(1 + (i - 1) % 9, 6) == n]
            session.add(IndexClass(version_id=1, class_id=n, images=len(held)))


@pytest.fixture
def images(sessions: Sessions) -> list[Image]:
    """The images of class 6 that the version holds."""
    with read_session(sessions) as session:
        return [i for i in session.scalars(select(Image).where(Image.class_id == 6)) if i.id % 7]


@pytest.fixture
def statements(sessions: Sessions) -> Iterator[list[str]]:
    """The queries sent to the database."""
    sent: list[str] = []

    def note(connection: object, cursor: object, statement: str, *more: object) -> None:
        sent.extend([statement] * statement.startswith("SELECT"))

    event.listen(get_engine(sessions), "before_cursor_execute", note)
    yield sent
    event.remove(get_engine(sessions), "before_cursor_execute", note)


def test_classes_stand_as_in_a_dictionary(sessions: Sessions) -> None:
    found = list_classes(sessions, 1)
    assert [c.label for c in found] == [
        *("Élan", "eland", "ﬁddler crab", "Straße", "Tabby Cat", "tiger cat")
    ]
    assert list_classes(sessions, 2) == []


def test_classes_stand_by_their_number_of_images(sessions: Sessions, images: list[Image]) -> None:
    found = list_classes(sessions, 1, order=ClassOrder.IMAGES)
    counts = [c.images for c in found]
    assert counts == sorted(counts, reverse=True)
    assert (found[0].label, found[0].images) == ("Straße", len(images))
    equal = [c.label for c in found[1:] if c.images == counts[1]]
    by_name = [c.label for c in list_classes(sessions, 1)]
    assert equal == [label for label in by_name if label in equal]


@pytest.mark.parametrize(
    ("query", "labels"),
    [
        ("ELAN", ["Élan", "eland"]),
        ("élan", ["Élan", "eland"]),
        ("cat", ["Tabby Cat", "tiger cat"]),
        ("cat  tab", ["Tabby Cat"]),
        ("fid", ["ﬁddler crab"]),
        ("STRASSE", ["Straße"]),
        ("%", []),
        ("_", []),
        ("dog", []),
    ],
)
def test_classes_are_found_by_their_names(
    sessions: Sessions, query: str, labels: list[str]
) -> None:
    assert [c.label for c in list_classes(sessions, 1, query=query)] == labels


@pytest.mark.parametrize("order", ImageOrder)
def test_the_pages_of_a_class_are_its_images_in_order(
    sessions: Sessions, images: list[Image], order: ImageOrder
) -> None:
    seen, number, pages = [], 0, 1
    while number < pages:
        page = find_class_page(sessions, 1, 6, number + 1, 48, order)
        assert page
        seen += [picture.id for picture in page.pictures]
        number, pages = page.number, page.pages
        assert page.class_.images == len(images)
    assert pages == -(-len(images) // 48)
    assert seen == [image.id for image in sorted(images, key=IN_PYTHON[order])]


@pytest.mark.parametrize("asked", [(1, 6, 0), (1, 6, 99), (1, 4242, 1), (2, 6, 1)])
def test_there_is_no_such_page(sessions: Sessions, asked: tuple[int, int, int]) -> None:
    assert find_class_page(sessions, *asked, 48) is None


@pytest.mark.parametrize("order", ImageOrder)
def test_an_image_stands_between_two_others(
    sessions: Sessions, images: list[Image], order: ImageOrder
) -> None:
    ids = [image.id for image in sorted(images, key=IN_PYTHON[order])]
    for number in (0, 1, 700, len(ids) - 1):
        picture = find_image(sessions, ids[number])
        assert picture
        found = find_position(sessions, 1, picture, order)
        assert found
        assert found.previous == (ids[number - 1] if number else None)
        assert found.next == (ids[number + 1] if number + 1 < len(ids) else None)
        assert (found.number, found.images) == (number + 1, len(ids))


def test_an_image_that_the_version_lacks_stands_nowhere(sessions: Sessions) -> None:
    picture = find_image(sessions, 7)
    assert picture
    assert find_position(sessions, 1, picture) is None


def test_shelves_hold_the_first_of_each_class(sessions: Sessions) -> None:
    found = find_first_images_by_class(sessions, 1, [6, 2, 4242], 5)
    for class_id in (6, 2):
        page = find_class_page(sessions, 1, class_id, 1, 5)
        assert page
        assert found[class_id] == page.pictures
    assert found[4242] == []
    assert find_first_images_by_class(sessions, 1, [], 5) == {}


def test_a_size_beyond_32_bits_is_compared(sessions: Sessions, images: list[Image]) -> None:
    def resize(width: int, height: int) -> None:
        with write_session(sessions) as session:
            one = update(Image).where(Image.id == images[9].id)
            session.execute(one.values(width=width, height=height))

    resize(60_000, 60_000)
    first = find_class_page(sessions, 1, 6, 1, 1, ImageOrder.LARGEST)
    resize(images[9].width, images[9].height)
    assert first
    assert first.pictures[0].id == images[9].id


def test_browsing_takes_a_fixed_number_of_queries_each_served_by_an_index(
    sessions: Sessions, statements: list[str]
) -> None:
    picture = find_image(sessions, 6)
    assert picture
    for order in ImageOrder:
        find_class_page(sessions, 1, 6, 3, 48, order)
        find_position(sessions, 1, picture, order)
    list_classes(sessions, 1)
    find_first_images_by_class(sessions, 1, [1, 2, 3, 4], 6)
    find_labels(sessions, range(1, 7))
    find_examples(sessions, 1)
    assert len(statements) == 1 + 4 * (2 + 1) + 4
    with get_engine(sessions).connect() as connection:
        for query in statements:
            values = (1,) * query.count("?")
            for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}", values):
                assert not step.detail.startswith("SCAN i"), (query, step)
                # One image is looked for in a version, never all that it holds.
                of_version = step.detail.startswith(("SEARCH index_image", "SEARCH anon"))
                assert not of_version or "image_id=?" in step.detail, (query, step)


def test_a_picture_knows_its_file(sessions: Sessions) -> None:
    picture = find_image(sessions, 6)
    assert picture
    assert picture.file == Path("/photographs") / picture.path
    assert picture.bytes == 1
