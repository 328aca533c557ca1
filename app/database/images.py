"""What the pages ask of the database by name or id: an index version, its images, an image.

Every function is one short session and a fixed number of queries, each served by an index.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Row, Select, exists, select

from app.database.ingest import Registration, forget_versions, record_version, register_images
from app.database.session import Sessions, read_session
from app.database.tables import Class, Dataset, Image, IndexClass, IndexImage, IndexVersion
from model.decode import MAX_PIXELS

__all__ = ["Registration", "forget_versions", "record_version", "register_images"]


@dataclass(frozen=True, kw_only=True)
class CatalogueImage:
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
class IndexVersionInfo:
    """A row of index_version, and the root of its data set."""

    id: int
    name: str
    dataset_id: int
    root: Path
    weights: str
    created_at: datetime
    count: int
    unreadable: int


def find_version(sessions: Sessions, name: str) -> IndexVersionInfo | None:
    """The index version of that name, if its list of images is there. Raises DatabaseError."""
    query = (
        select(IndexVersion, Dataset.root)
        .join(Dataset)
        .where(IndexVersion.name == name)
        .where(exists().where(IndexClass.version_id == IndexVersion.id))
    )
    with read_session(sessions) as session:
        found = session.execute(query).one_or_none()
    if found is None:
        return None
    row, root = found
    return IndexVersionInfo(
        id=row.id,
        name=row.name,
        dataset_id=row.dataset_id,
        root=Path(root),
        weights=row.weights,
        created_at=row.created_at,
        count=row.count,
        unreadable=row.unreadable,
    )


def list_version_names(sessions: Sessions) -> set[str]:
    """The names of the index versions whose list of images is there. Raises DatabaseError."""
    query = select(IndexVersion.name).join(IndexClass, IndexClass.version_id == IndexVersion.id)
    with read_session(sessions) as session:
        return set(session.scalars(query.distinct()))


def class_ids_by_image(sessions: Sessions, version_id: int) -> dict[int, int]:
    """The class id of every image that an index version lists, by id. Raises DatabaseError."""
    query = (
        select(IndexImage.image_id, Image.class_id)
        .join(Image, Image.id == IndexImage.image_id)
        .where(IndexImage.version_id == version_id)
    )
    with read_session(sessions) as session:
        return dict(session.execute(query).all())


def find_image(sessions: Sessions, image_id: int) -> CatalogueImage | None:
    """An image by its id, also one that no index version holds any more. Raises DatabaseError."""
    return next(iter(find_images(sessions, [image_id]).values()), None)


def find_images(sessions: Sessions, ids: Iterable[int]) -> dict[int, CatalogueImage]:
    """Images by their ids, in one query; unknown ids are left out. Raises DatabaseError."""
    known = [int(i) for i in ids if 0 < i < 2**31]
    with read_session(sessions) as session:
        rows = session.execute(select_images().where(Image.id.in_(known))).all()
    return {found.id: found for found in images_from_rows(rows)}


def find_labels(sessions: Sessions, ids: Iterable[int]) -> dict[int, str]:
    """The class labels of images, by id; unknown ids are left out. Raises DatabaseError."""
    return {image: found.label for image, found in find_images(sessions, ids).items()}


def class_folders_by_image(sessions: Sessions, version_id: int) -> dict[int, str]:
    """The class folder of every image in a version, by the image's id. Raises DatabaseError."""
    query = (
        select(IndexImage.image_id, Class.folder)
        .join(Image, Image.id == IndexImage.image_id)
        .join(Class, Class.id == Image.class_id)
        .where(IndexImage.version_id == version_id)
    )
    with read_session(sessions) as session:
        return dict(session.execute(query).all())


def find_examples(sessions: Sessions, dataset_id: int, most: int = 3) -> list[CatalogueImage]:
    """A few validation images of different classes whose files are there, and not too large.

    Raises DatabaseError.
    """
    there: dict[int, CatalogueImage] = {}
    for found in find_validation_images(sessions, dataset_id):
        if len(there) == most:
            break
        if found.class_id not in there and found.file.is_file():
            there[found.class_id] = found
    return list(there.values())


def find_validation_images(sessions: Sessions, dataset_id: int) -> list[CatalogueImage]:
    """The validation images of a data set that were entered, but those that are too large.

    In their order; of a file that has changed the row entered last counts. Raises DatabaseError.
    """
    query = select_images().where(Image.split == "val", Class.dataset_id == dataset_id)
    with read_session(sessions) as session:
        rows = session.execute(query.order_by(Image.id)).all()
    fit = (found for found in images_from_rows(rows) if found.width * found.height <= MAX_PIXELS)
    return list({found.path: found for found in fit}.values())


def select_images() -> Select[Image, str, str]:
    """Select what a Picture is made of."""
    return (
        select(Image, Class.label, Dataset.root)
        .join(Class, Class.id == Image.class_id)
        .join(Dataset, Dataset.id == Class.dataset_id)
    )


def images_from_rows(rows: Sequence[Row[Image, str, str]]) -> list[CatalogueImage]:
    """Make Pictures of the rows of `pictured`."""
    return [
        CatalogueImage(
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
