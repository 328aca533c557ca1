"""Browsing the catalogue: classes by name, a class's images in every order, those beside one."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import event, select

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
from app.database.ingest import rank_images
from app.database.session import (
    Sessions,
    get_engine,
    read_session,
    session_factory,
    upgrade_database,
)
from app.database.tables import Image
from storage.home import Home
from tests.app.database.catalogues import enter_catalogue

Key = Callable[[Image], tuple[object, ...]]
IN_PYTHON: dict[ImageOrder, Key] = {
    ImageOrder.NAME: lambda image: (image.path, image.id),
    ImageOrder.SMALLEST: lambda image: (image.width * image.height, image.path, image.id),
    ImageOrder.NEWEST: lambda image: (-image.id,),
}


def sort_in_python(images: list[Image], order: ImageOrder) -> list[Image]:
    """Sort images; the largest first are the smallest first, reversed."""
    if order is ImageOrder.LARGEST:
        return sort_in_python(images, ImageOrder.SMALLEST)[::-1]
    return sorted(images, key=IN_PYTHON[order])


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Sessions:
    """Sessions of a database of 6 classes and 3,000 images, of which the version lacks some."""
    home = Home(root=tmp_path_factory.mktemp("browsing"))
    settings = Settings(home=home, secret_key="s" * 16)
    upgrade_database(settings)
    sessions = session_factory(settings)
    enter_catalogue(sessions, 3000)
    return sessions


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
    assert seen == [image.id for image in sort_in_python(images, order)]


@pytest.mark.parametrize("asked", [(1, 6, 0), (1, 6, 99), (1, 4242, 1), (2, 6, 1)])
def test_there_is_no_such_page(sessions: Sessions, asked: tuple[int, int, int]) -> None:
    assert find_class_page(sessions, *asked, 48) is None


@pytest.mark.parametrize("order", ImageOrder)
def test_an_image_stands_between_two_others(
    sessions: Sessions, images: list[Image], order: ImageOrder
) -> None:
    ids = [image.id for image in sort_in_python(images, order)]
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


def test_images_of_other_classes_sizes_and_paths_are_ranked_apart() -> None:
    ranked = rank_images(
        [7, 3, 9, 5], [2, 1, 2, 2], ["é", "a", "z", "z"], [100, 1, 60_000 * 60_000, 100]
    )
    assert ranked.image_id.tolist() == [3, 5, 7, 9]
    assert ranked.class_id.tolist() == [1, 2, 2, 2]
    assert ranked.by_path.tolist() == [1, 1, 3, 2]
    assert ranked.by_pixels.tolist() == [1, 1, 2, 3]
    assert ranked.by_age.tolist() == [1, 1, 2, 3]


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
                # Of a version's images only one page, or one image, is read, and in order.
                reads = step.detail.startswith("SEARCH") and " ix_index_image" in step.detail
                assert not reads or re.search(r"class_id=\? AND by_\w+[<>=]", step.detail), step
                of_version = step.detail.startswith(("SEARCH index_image ", "SEARCH anon"))
                assert not of_version or reads or "image_id=?" in step.detail, (query, step)
                is_sorted = "TEMP B-TREE" in step.detail and "index_image" in query
                assert not is_sorted, (query, step)


def test_a_picture_knows_its_file(sessions: Sessions) -> None:
    picture = find_image(sessions, 6)
    assert picture
    assert picture.file == Path("/photographs") / picture.path
    assert picture.bytes == 1
