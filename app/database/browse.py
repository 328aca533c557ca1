"""Queries for browsing: classes by name, a class's images in order, an image's neighbours in it.

Every function is one short session with a fixed number of queries, each served by an index.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Select, and_, select
from sqlalchemy.orm import InstrumentedAttribute, aliased

from app.database.images import CatalogueImage, make_catalogue_images, select_images
from app.database.session import Sessions, read_session
from app.database.tables import Class, Image, IndexClass, IndexImage


class ClassOrder(StrEnum):
    """Orders of classes; equal counts are ordered by name."""

    NAME = "name"
    IMAGES = "images"


class ImageOrder(StrEnum):
    """Orders of a class's images: by path, by pixels, the last registered first.

    Images of equally many pixels stand by path in `smallest`; `largest` is its reverse.
    """

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
        rank, descends = RANKS[order]
        before = (number - 1) * size
        if descends:
            within = rank.between(class_.images - before - size + 1, class_.images - before)
        else:
            within = rank.between(before + 1, before + size)
        query = (
            select_class_images(version_id)
            .where(IndexImage.class_id == class_id, within)
            .order_by(rank.desc() if descends else rank)
        )
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
    query = (
        select_class_images(version_id)
        .where(IndexImage.class_id.in_(list(found)), IndexImage.by_path <= size)
        .order_by(IndexImage.class_id, IndexImage.by_path)
    )
    with read_session(sessions) as session:
        rows = session.execute(query).all()
    for picture in make_catalogue_images(rows):
        found.setdefault(picture.class_id, []).append(picture)
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
    rank, descends = RANKS[order]
    own, beside = aliased(IndexImage), rank.class_
    beside_own = (
        select(beside.image_id)
        .where(beside.version_id == own.version_id, beside.class_id == own.class_id)
        .correlate(own)
    )
    own_rank = getattr(own, rank.key)
    query = (
        select(
            beside_own.where(rank == own_rank - 1).scalar_subquery(),
            beside_own.where(rank == own_rank + 1).scalar_subquery(),
            own_rank,
            IndexClass.images,
        )
        .join(
            IndexClass,
            and_(IndexClass.version_id == own.version_id, IndexClass.class_id == own.class_id),
        )
        .where(own.version_id == version_id, own.image_id == picture.id)
    )
    with read_session(sessions) as session:
        row = session.execute(query).one_or_none()
    if row is None:
        return None
    lower, higher, number, images = row
    if descends:
        return Position(previous=higher, next=lower, number=images + 1 - number, images=images)
    return Position(previous=lower, next=higher, number=number, images=images)


RANKS: dict[ImageOrder, tuple[InstrumentedAttribute[int], bool]] = {
    ImageOrder.NAME: (IndexImage.by_path, False),
    ImageOrder.LARGEST: (IndexImage.by_pixels, True),
    ImageOrder.SMALLEST: (IndexImage.by_pixels, False),
    ImageOrder.NEWEST: (IndexImage.by_age, True),
}
"""The rank that each order reads, and whether from the last to the first."""


def select_class_images(version_id: int) -> Select[Image, str, str]:
    """Select what a CatalogueImage is made of, of a version's images."""
    joined = select_images().join(IndexImage, IndexImage.image_id == Image.id)
    return joined.where(IndexImage.version_id == version_id)


def select_class_counts(version_id: int) -> Select[int, str, str, int]:
    """Select the fields of ClassCount."""
    return (
        select(Class.id, Class.folder, Class.label, IndexClass.images)
        .join(IndexClass, IndexClass.class_id == Class.id)
        .where(IndexClass.version_id == version_id)
    )
