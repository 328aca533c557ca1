"""Queries for browsing: classes by name, a class's images in order, an image's neighbours in it.

Every function is one short session with a fixed number of queries, each served by an index.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, Select, cast, exists, func, select, tuple_, union_all

from app.database.images import CatalogueImage, make_catalogue_images, select_images
from app.database.session import Sessions, read_session
from app.database.tables import Class, Image, IndexClass, IndexImage


class ClassOrder(StrEnum):
    """Orders of classes; equal counts are ordered by name."""

    NAME = "name"
    IMAGES = "images"


class ImageOrder(StrEnum):
    """Orders of a class's images: by path, by pixels and then path, the last registered first."""

    NAME = "name"
    LARGEST = "largest"
    SMALLEST = "smallest"
    NEWEST = "newest"


@dataclass(frozen=True, kw_only=True)
class ClassCount:
    """A class, and how many of its images the index version has."""

    id: int
    folder: str
    label: str
    images: int


@dataclass(frozen=True, kw_only=True)
class ClassPage:
    """One page of a class's images. Pages are numbered from 1."""

    class_: ClassCount
    pictures: list[CatalogueImage]
    number: int
    pages: int


@dataclass(frozen=True, kw_only=True)
class Position:
    """An image's position in its class: adjacent ids, its number from 1, and the class's size."""

    previous: int | None
    next: int | None
    number: int
    images: int


def list_classes(
    sessions: Sessions,
    version_id: int,
    *,
    order: ClassOrder = ClassOrder.NAME,
    query: str = "",
) -> list[ClassCount]:
    """Return the classes of an index version whose name contains every word of `query`.

    Raises DatabaseError.
    """
    with read_session(sessions) as session:
        rows = session.execute(select_class_counts(version_id)).all()
    found = [ClassCount(**row._mapping) for row in rows]
    return sort_classes([c for c in found if matches_query(c.label, query)], order)


def sort_classes(found: Iterable[ClassCount], order: ClassOrder) -> list[ClassCount]:
    """Sort classes.

    Not in the database: SQLite ignores accents and the case of non-ASCII letters, and all classes
    are read anyway.
    """
    by_name = sorted(found, key=lambda c: (fold_case(c.label), c.label, c.id))
    return by_name if order is ClassOrder.NAME else sorted(by_name, key=lambda c: -c.images)


def matches_query(label: str, query: str) -> bool:
    """Whether a name contains every word of `query`, ignoring accents and case."""
    name = fold_case(label)
    return all(word in name for word in fold_case(query).split())


def fold_case(text: str) -> str:
    """Fold text for comparison: no accents, no capitals, no ligatures."""
    parts = unicodedata.normalize("NFKD", text)
    return "".join(c for c in parts if unicodedata.category(c) != "Mn").casefold()


def find_class_page(
    sessions: Sessions,
    version_id: int,
    class_id: int,
    number: int,
    size: int,
    order: ImageOrder = ImageOrder.NAME,
) -> ClassPage | None:
    """Return page `number` of a class's images in a version, or None. Raises DatabaseError."""
    ids = (
        restrict_to_class(select(Image.id), version_id, class_id)
        .order_by(*SORT_KEYS[order])
        .limit(size)
    )
    with read_session(sessions) as session:
        row = session.execute(
            select_class_counts(version_id).where(Class.id == class_id)
        ).one_or_none()
        if row is None:
            return None
        class_ = ClassCount(**row._mapping)
        pages = -(-class_.images // size)
        if not 1 <= number <= pages:
            return None
        some = ids.offset((number - 1) * size).scalar_subquery()
        query = select_images().where(Image.id.in_(some)).order_by(*SORT_KEYS[order])
        rows = session.execute(query).all()
    return ClassPage(
        class_=class_, pictures=make_catalogue_images(rows), number=number, pages=pages
    )


def find_first_images_by_class(
    sessions: Sessions, version_id: int, class_ids: Sequence[int], size: int
) -> dict[int, list[CatalogueImage]]:
    """Return the first images by path of a few classes, in one query. Raises DatabaseError."""
    found: dict[int, list[CatalogueImage]] = {class_id: [] for class_id in class_ids}
    if not found:
        return found
    firsts = (
        restrict_to_class(select(Image.id), version_id, class_id)
        .order_by(*BY_PATH)
        .limit(size)
        .subquery()
        for class_id in found
    )
    ids = union_all(*(select(first.c.id) for first in firsts))
    query = select_images().where(Image.id.in_(ids.scalar_subquery())).order_by(*BY_PATH)
    with read_session(sessions) as session:
        rows = session.execute(query).all()
    for picture in make_catalogue_images(rows):
        found[picture.class_id].append(picture)
    return found


def find_position(
    sessions: Sessions,
    version_id: int,
    picture: CatalogueImage,
    order: ImageOrder = ImageOrder.NAME,
) -> Position | None:
    """Return an image's position in its class, or None if the version does not have it.

    Raises DatabaseError.
    """
    keys, own = SORT_KEYS[order], make_image_sort_keys(picture, order)
    before, after = tuple_(*keys) < own, tuple_(*keys) > own
    ids = restrict_to_class(select(Image.id), version_id, picture.class_id).limit(1)
    count = restrict_to_class(select(func.count()).select_from(Image), version_id, picture.class_id)
    query = (
        select(
            ids.where(before).order_by(*(key.desc() for key in keys)).scalar_subquery(),
            ids.where(after).order_by(*keys).scalar_subquery(),
            count.where(before).scalar_subquery(),
            select(IndexClass.images)
            .where(IndexClass.version_id == version_id, IndexClass.class_id == picture.class_id)
            .scalar_subquery(),
        )
        .select_from(VERSION_IMAGE)
        .where(VERSION_IMAGE.c.version_id == version_id, VERSION_IMAGE.c.image_id == picture.id)
    )
    with read_session(sessions) as session:
        row = session.execute(query).one_or_none()
    if row is None:
        return None
    previous, following, earlier, images = row
    return Position(previous=previous, next=following, number=earlier + 1, images=images)


VERSION_IMAGE = IndexImage.__table__.alias()
"""An alias of the table, since the subqueries use the table itself."""
# In 64 bits: 50,000 × 50,000 pixels are more than PostgreSQL's integers hold.
PIXELS = cast(Image.width, BigInteger) * Image.height
BY_PATH = (Image.path, Image.id)
SORT_KEYS: dict[ImageOrder, tuple[Any, ...]] = {
    ImageOrder.NAME: BY_PATH,
    ImageOrder.LARGEST: (-PIXELS, *BY_PATH),
    ImageOrder.SMALLEST: (PIXELS, *BY_PATH),
    ImageOrder.NEWEST: (-Image.id,),
}
"""Ascending sort keys; the last one is unique, so that pages never overlap."""


def make_image_sort_keys(picture: CatalogueImage, order: ImageOrder) -> tuple[str | int, ...]:
    """Return an image's own sort keys."""
    pixels, by_path = picture.width * picture.height, (picture.path, picture.id)
    return {
        ImageOrder.NAME: by_path,
        ImageOrder.LARGEST: (-pixels, *by_path),
        ImageOrder.SMALLEST: (pixels, *by_path),
        ImageOrder.NEWEST: (-picture.id,),
    }[order]


def restrict_to_class(query: Select[Any], version_id: int, class_id: int) -> Select[Any]:
    """Restrict a query of images to those of a class in a version."""
    held = exists().where(IndexImage.version_id == version_id, IndexImage.image_id == Image.id)
    # Not a join: SQLite might start from all images of the version.
    return query.where(Image.class_id == class_id, held.correlate(Image))


def select_class_counts(version_id: int) -> Select[int, str, str, int]:
    """Select the fields of ClassCount."""
    return (
        select(Class.id, Class.folder, Class.label, IndexClass.images)
        .join(IndexClass, IndexClass.class_id == Class.id)
        .where(IndexClass.version_id == version_id)
    )
