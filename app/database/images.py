"""What the pages ask of the database by name or id: an index version, its images, an image.

Every function is one short session and a fixed number of queries, each served by an index.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Row, Select, exists, select

from app.database.ingest import Registration, forget_versions, record_version, register
from app.database.session import Sessions, reading
from app.database.tables import Class, Dataset, Image, IndexClass, IndexImage, IndexVersion
from model.preprocess import MAX_PIXELS

__all__ = ["Registration", "forget_versions", "record_version", "register"]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image of the catalogue. `file` may have changed or gone since it was registered.

    bytes: of the file. width, height: in pixels, upright.
    """

    id: int
    class_id: int
    label: str
    split: str
    path: str
    file: Path
    format: str
    sha256: str
    width: int
    height: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Version:
    """A row of index_version, and the root of its data set."""

    id: int
    name: str
    dataset_id: int
    root: Path
    weights: str
    created_at: datetime
    count: int
    unreadable: int


def version(sessions: Sessions, name: str) -> Version | None:
    """The index version of that name, if its list of images is there. Raises DatabaseError."""
    query = (
        select(IndexVersion, Dataset.root)
        .join(Dataset)
        .where(IndexVersion.name == name)
        .where(exists().where(IndexClass.version_id == IndexVersion.id))
    )
    with reading(sessions) as session:
        found = session.execute(query).one_or_none()
    if found is None:
        return None
    row, root = found
    return Version(
        id=row.id,
        name=row.name,
        dataset_id=row.dataset_id,
        root=Path(root),
        weights=row.weights,
        created_at=row.created_at,
        count=row.count,
        unreadable=row.unreadable,
    )


def version_names(sessions: Sessions) -> set[str]:
    """The names of the index versions whose list of images is there. Raises DatabaseError."""
    query = select(IndexVersion.name).join(IndexClass, IndexClass.version_id == IndexVersion.id)
    with reading(sessions) as session:
        return set(session.scalars(query.distinct()))


def listed(sessions: Sessions, version_id: int) -> dict[int, int]:
    """The class id of every image that an index version lists, by id. Raises DatabaseError."""
    query = (
        select(IndexImage.image_id, Image.class_id)
        .join(Image, Image.id == IndexImage.image_id)
        .where(IndexImage.version_id == version_id)
    )
    with reading(sessions) as session:
        return dict(session.execute(query).all())


def picture(sessions: Sessions, image_id: int) -> Picture | None:
    """An image by its id, also one that no index version holds any more. Raises DatabaseError."""
    return next(iter(pictures_by_id(sessions, [image_id]).values()), None)


def pictures_by_id(sessions: Sessions, ids: Iterable[int]) -> dict[int, Picture]:
    """Images by their ids, in one query; unknown ids are left out. Raises DatabaseError."""
    known = [int(i) for i in ids if 0 < i < 2**31]
    with reading(sessions) as session:
        rows = session.execute(pictured().where(Image.id.in_(known))).all()
    return {found.id: found for found in pictures(rows)}


def labels(sessions: Sessions, ids: Iterable[int]) -> dict[int, str]:
    """The class labels of images, by id; unknown ids are left out. Raises DatabaseError."""
    return {image: found.label for image, found in pictures_by_id(sessions, ids).items()}


def class_folders(sessions: Sessions, version_id: int) -> dict[int, str]:
    """The class folder of every image in a version, by the image's id. Raises DatabaseError."""
    query = (
        select(IndexImage.image_id, Class.folder)
        .join(Image, Image.id == IndexImage.image_id)
        .join(Class, Class.id == Image.class_id)
        .where(IndexImage.version_id == version_id)
    )
    with reading(sessions) as session:
        return dict(session.execute(query).all())


def examples(sessions: Sessions, dataset_id: int, most: int = 3) -> list[Picture]:
    """A few validation images of different classes whose files are there, and not too large.

    Raises DatabaseError.
    """
    there: dict[int, Picture] = {}
    for found in validation_images(sessions, dataset_id):
        if len(there) == most:
            break
        if found.class_id not in there and found.file.is_file():
            there[found.class_id] = found
    return list(there.values())


def validation_images(sessions: Sessions, dataset_id: int) -> list[Picture]:
    """The validation images of a data set that were entered, but those that are too large.

    In their order; of a file that has changed the row entered last counts. Raises DatabaseError.
    """
    query = pictured().where(Image.split == "val", Class.dataset_id == dataset_id)
    with reading(sessions) as session:
        rows = session.execute(query.order_by(Image.id)).all()
    fit = (found for found in pictures(rows) if found.width * found.height <= MAX_PIXELS)
    return list({found.path: found for found in fit}.values())


def pictured() -> Select[Image, str, str]:
    """Select what a Picture is made of."""
    return (
        select(Image, Class.label, Dataset.root)
        .join(Class, Class.id == Image.class_id)
        .join(Dataset, Dataset.id == Class.dataset_id)
    )


def pictures(rows: Sequence[Row[Image, str, str]]) -> list[Picture]:
    """Make Pictures of the rows of `pictured`."""
    return [
        Picture(
            id=image.id,
            class_id=image.class_id,
            label=label,
            split=image.split,
            path=image.path,
            file=Path(root, image.path),
            format=image.format,
            sha256=image.sha256,
            width=image.width,
            height=image.height,
            bytes=image.bytes,
        )
        for image, label, root in rows
    ]
