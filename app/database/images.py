"""Queries by name or id: index versions, their images, single images.

Every function is one short session with a fixed number of queries, each served by an index.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Row, Select, exists, select

from app.database.session import Sessions, read_session
from app.database.tables import Class, Dataset, Image, IndexClass, IndexImage, IndexVersion
from model.image.decode import MAX_PIXELS

MAX_EXAMPLES = 64
"""Validation images for Figure 4; three of them are the examples to click."""
EXAMPLE_ROWS = 8 * MAX_EXAMPLES
"""Rows read to find them: of a file that changes again and again, each version is one."""


@dataclass(frozen=True, kw_only=True)
class CatalogueImage:
    """An image in the database. `file` may have changed or gone since it was registered.

    bytes: the file's size. width, height: of the upright image, in pixels.
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
    """A row of index_version, with the root of its dataset."""

    id: int
    name: str
    dataset_id: int
    root: Path
    weights: str
    created_at: datetime
    count: int
    unreadable: int


def find_version(sessions: Sessions, name: str) -> IndexVersionInfo | None:
    """Return the named index version if the database lists its images. Raises DatabaseError."""
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
    """Return the names of the index versions with a list of images. Raises DatabaseError."""
    query = select(IndexVersion.name).join(IndexClass, IndexClass.version_id == IndexVersion.id)
    with read_session(sessions) as session:
        return set(session.scalars(query.distinct()))


def read_class_ids_by_image(sessions: Sessions, version_id: int) -> dict[int, int]:
    """Return the class id of every image of an index version, by image id. Raises DatabaseError."""
    query = (
        select(IndexImage.image_id, Image.class_id)
        .join(Image, Image.id == IndexImage.image_id)
        .where(IndexImage.version_id == version_id)
    )
    with read_session(sessions) as session:
        return dict(session.execute(query).all())


def read_class_ids(sessions: Sessions, dataset_id: int) -> dict[str, int]:
    """Return the class ids of a dataset by folder. Raises DatabaseError."""
    query = select(Class.folder, Class.id).where(Class.dataset_id == dataset_id)
    with read_session(sessions) as session:
        return dict(session.execute(query).all())


def find_image(sessions: Sessions, image_id: int) -> CatalogueImage | None:
    """Return an image, even one that no index version has any more. Raises DatabaseError."""
    return next(iter(find_images(sessions, [image_id]).values()), None)


def find_images(sessions: Sessions, ids: Iterable[int]) -> dict[int, CatalogueImage]:
    """Return images by id, in one query, without unknown ids. Raises DatabaseError."""
    known = [int(i) for i in ids if 0 < i < 2**31]
    with read_session(sessions) as session:
        rows = session.execute(select_images().where(Image.id.in_(known))).all()
    return {found.id: found for found in make_catalogue_images(rows)}


def find_labels(sessions: Sessions, ids: Iterable[int]) -> dict[int, str]:
    """Return the class labels of images by id, without unknown ids. Raises DatabaseError."""
    return {image: found.label for image, found in find_images(sessions, ids).items()}


def read_class_folders_by_image(sessions: Sessions, version_id: int) -> dict[int, str]:
    """Return the class folder of every image of a version, by image id. Raises DatabaseError."""
    query = (
        select(IndexImage.image_id, Class.folder)
        .join(Image, Image.id == IndexImage.image_id)
        .join(Class, Class.id == Image.class_id)
        .where(IndexImage.version_id == version_id)
    )
    with read_session(sessions) as session:
        return dict(session.execute(query).all())


def find_examples(sessions: Sessions, dataset_id: int, most: int = 3) -> list[CatalogueImage]:
    """Return a few validation images of different classes whose files exist and are not too large.

    Raises DatabaseError.
    """
    examples: dict[int, CatalogueImage] = {}
    for image in find_validation_images(sessions, dataset_id):
        if len(examples) == most:
            break
        if image.class_id not in examples and image.file.is_file():
            examples[image.class_id] = image
    return list(examples.values())


def find_validation_images(sessions: Sessions, dataset_id: int) -> list[CatalogueImage]:
    """Return the first of a dataset's validation images that are not too large, in order.

    Those that were registered as examples come first. Of a file that has changed, the row
    registered last counts. Raises DatabaseError.
    """
    query = select_images().where(Image.split == "val", Class.dataset_id == dataset_id)
    with read_session(sessions) as session:
        rows = session.execute(query.order_by(Image.id).limit(EXAMPLE_ROWS)).all()
    fit = (
        found for found in make_catalogue_images(rows) if found.width * found.height <= MAX_PIXELS
    )
    return list({found.path: found for found in fit}.values())[:MAX_EXAMPLES]


def select_images() -> Select[Image, str, str]:
    """Select what a CatalogueImage is made of."""
    return (
        select(Image, Class.label, Dataset.root)
        .join(Class, Class.id == Image.class_id)
        .join(Dataset, Dataset.id == Class.dataset_id)
    )


def make_catalogue_images(rows: Sequence[Row[Image, str, str]]) -> list[CatalogueImage]:
    """Turn the rows of `select_images` into CatalogueImages."""
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
