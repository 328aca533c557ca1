"""Registers a folder's images, and the index versions built from them, in the database.

Rows are inserted in several transactions, so that others can write meanwhile. An image that no
version lists does no harm, and a version becomes visible with its class counts, which come last.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from sqlalchemy import bindparam, delete, func, insert, literal, select, update
from sqlalchemy.orm import Session

from app.database.images import MAX_EXAMPLES, find_version, read_class_ids_by_image
from app.database.session import (
    DatabaseError,
    Sessions,
    execute_for_rows,
    read_session,
    write_session,
)
from app.database.tables import Class, Dataset, Image, IndexClass, IndexImage, IndexVersion
from index.building.file_list import FileEntry, escape_file_name
from index.building.reader import DecodedFile, read_photograph
from index.id_map import Classes
from index.store import Manifest
from index.vectors import Ids
from model.dataset.folder import ImageFolder, Photograph

T = TypeVar("T")
CLICKABLE_EXAMPLES = 3
MAX_TRIES_PER_EXAMPLE = 3
"""Files tried per validation image until one can be read."""


@dataclass(frozen=True, kw_only=True)
class Registration:
    """Registered photographs, in their order: ids int64 [M], class ids int32 [M], their files."""

    dataset_id: int
    ids: Ids
    classes: Classes
    entries: Sequence[FileEntry]


def register_images(
    sessions: Sessions,
    folder: ImageFolder,
    photographs: Sequence[Photograph],
    entries: Sequence[FileEntry],
) -> Registration:
    """Register training images as they were read, and some validation images as examples.

    A file known by path and content keeps its id, and gets the class of its folder back if the
    database has another; a changed file gets a new id. Raises DatabaseError.
    """
    check_folder_names(folder)
    dataset_id, class_ids = register_classes(sessions, folder)
    ids = insert_new_images(sessions, "train", photographs, entries, class_ids)
    examples = choose_examples(folder)
    insert_new_images(
        sessions, "val", [p for p, _ in examples], [e for _, e in examples], class_ids
    )
    return Registration(
        dataset_id=dataset_id,
        ids=np.array([ids[entry.path, entry.sha256] for entry in entries], np.int64),
        classes=np.array([class_ids[p.class_index] for p in photographs], np.int32),
        entries=entries,
    )


def register_validation_images(
    sessions: Sessions, folder: ImageFolder, labels: Ids, entries: Sequence[FileEntry]
) -> Registration:
    """Register validation images as they were read, for the review.

    labels: int64 [V], the index of each one's class in the folder's list. Raises DatabaseError.
    """
    check_folder_names(folder)
    dataset_id, class_ids = register_classes(sessions, folder)
    photographs = [
        Photograph(entry.path, label) for entry, label in zip(entries, labels.tolist(), strict=True)
    ]
    ids = insert_new_images(sessions, "val", photographs, entries, class_ids)
    return Registration(
        dataset_id=dataset_id,
        ids=np.array([ids[entry.path, entry.sha256] for entry in entries], np.int64),
        classes=np.array([class_ids[label] for label in labels.tolist()], np.int32),
        entries=entries,
    )


def record_version(sessions: Sessions, manifest: Manifest, images: Registration) -> int:
    """Insert a built index version and its list of images; return its id. Raises DatabaseError."""
    with write_session(sessions) as session:
        version = IndexVersion(
            name=manifest.name,
            dataset_id=images.dataset_id,
            weights=manifest.weights,
            created_at=datetime.fromisoformat(manifest.created),
            count=manifest.images,
            unreadable=manifest.unreadable,
        )
        session.add(version)
        session.flush()
        number = version.id
    pixels = [entry.width * entry.height for entry in images.entries]
    ranked = rank_images(
        images.ids, images.classes, [entry.path for entry in images.entries], pixels
    )
    rows = make_version_rows(number, ranked)
    execute_for_rows(sessions, insert(IndexImage), rows)
    with write_session(sessions) as session:
        fill_class_counts(session, number)
    return number


@dataclass(frozen=True, kw_only=True)
class RankedImages:
    """Images by ascending id, with their classes and the ranks of IndexImage: int64 [M] each."""

    image_id: Ids
    class_id: Ids
    by_path: Ids
    by_pixels: Ids
    by_age: Ids


def rank_images(
    ids: npt.ArrayLike,
    classes: npt.ArrayLike,
    paths: Sequence[str],
    pixels: npt.ArrayLike,
) -> RankedImages:
    """Rank images within their classes, given their ids, class ids, paths and sizes: [M] each.

    In Python, where paths are compared alike for every database.
    """
    id_array, class_array = np.asarray(ids, np.int64), np.asarray(classes, np.int64)
    place = np.empty(len(id_array), np.int64)
    numbers = id_array.tolist()
    place[sorted(range(len(paths)), key=lambda i: (paths[i], numbers[i]))] = np.arange(len(paths))
    order = np.argsort(id_array)
    return RankedImages(
        image_id=id_array[order],
        class_id=class_array[order],
        by_path=rank_within(class_array, place)[order],
        by_pixels=rank_within(class_array, place, np.asarray(pixels, np.int64))[order],
        by_age=rank_within(class_array, id_array)[order],
    )


def rank_within(classes: Ids, *keys: Ids) -> Ids:
    """Rank within classes by keys, int64 [M] each, the last one first; ranks count from 1."""
    order = np.lexsort((*keys, classes))
    firsts = np.searchsorted(classes[order], classes, side="left")
    ranks = np.empty(len(classes), np.int64)
    ranks[order] = np.arange(len(classes))
    return ranks - firsts + 1


def make_version_rows(version_id: int, ranked: RankedImages) -> Iterator[dict[str, int]]:
    """Make the rows of IndexImage of a version."""
    columns = {field.name: getattr(ranked, field.name).tolist() for field in fields(ranked)}
    for values in zip(*columns.values(), strict=True):
        yield {"version_id": version_id, **dict(zip(columns, values, strict=True))}


def forget_versions(sessions: Sessions, keep: Iterable[str]) -> None:
    """Delete the lists of images of all index versions but those named. Raises DatabaseError."""
    with write_session(sessions) as session:
        old = select(IndexVersion.id).where(IndexVersion.name.not_in(list(keep)))
        for table in (IndexImage, IndexClass):
            session.execute(delete(table).where(table.version_id.in_(old)))


def fill_class_counts(session: Session, version_id: int) -> None:
    """Fill index_class from index_image, within the database."""
    counts = (
        select(literal(version_id), IndexImage.class_id, func.count())
        .where(IndexImage.version_id == version_id)
        .group_by(IndexImage.class_id)
    )
    columns = ["version_id", "class_id", "images"]
    session.execute(insert(IndexClass).from_select(columns, counts))


def check_folder_names(folder: ImageFolder) -> None:
    """Raise DatabaseError if the root's or a class's name is not valid text for a database."""
    for name in (str(folder.root), *(c.folder for c in folder.classes)):
        if escape_file_name(name) != name:
            raise DatabaseError(
                f"The folder's name {escape_file_name(name)} is not UTF-8; rename it"
            )


def register_classes(sessions: Sessions, folder: ImageFolder) -> tuple[int, list[int]]:
    """Register the dataset and its classes, update the labels; return their ids in order."""
    root = str(folder.root)
    with write_session(sessions) as session:
        dataset = session.scalar(select(Dataset).where(Dataset.root == root)) or Dataset(root=root)
        session.add(dataset)
        session.flush()
        rows = session.scalars(select(Class).where(Class.dataset_id == dataset.id))
        known = {row.folder: row for row in rows}
        for name in folder.classes:
            row = known.setdefault(name.folder, Class(dataset_id=dataset.id, folder=name.folder))
            row.label = name.label
            session.add(row)
        session.flush()
        return dataset.id, [known[name.folder].id for name in folder.classes]


def refuse_known_folder(sessions: Sessions, folder: Path) -> None:
    """Raise DatabaseError if a folder has images in the database."""
    with read_session(sessions) as session:
        if session.scalar(select(Dataset.id).where(Dataset.root == str(folder))):
            raise DatabaseError(
                f"{folder} has been indexed on its own; `flask index build --data {folder}` "
                "serves it"
            )


def move_dataset(sessions: Sessions, old: Path, new: Path) -> None:
    """Record that a folder of photographs lies elsewhere. Raises DatabaseError."""
    with write_session(sessions) as session:
        session.execute(update(Dataset).where(Dataset.root == str(old)).values(root=str(new)))


def insert_new_images(
    sessions: Sessions,
    split: str,
    photographs: Sequence[Photograph],
    entries: Sequence[FileEntry],
    class_ids: list[int],
) -> dict[tuple[str, str], int]:
    """Insert the images that are new; return the ids of all, by path and hash."""
    registered = read_registered_images(sessions, split, class_ids)
    wanted = {
        registered[key][0]: class_ids[photograph.class_index]
        for photograph, entry in zip(photographs, entries, strict=True)
        if (key := (entry.path, entry.sha256)) in registered
    }
    mend_image_classes(sessions, dict(registered.values()), wanted)
    ids = {key: image for key, (image, _) in registered.items()}
    new = [
        {
            "class_id": class_ids[photograph.class_index],
            "split": split,
            "path": entry.path,
            "sha256": entry.sha256,
            "format": entry.format,
            "width": entry.width,
            "height": entry.height,
            "bytes": entry.bytes,
        }
        for photograph, entry in zip(photographs, entries, strict=True)
        if (entry.path, entry.sha256) not in ids
    ]
    if new:
        execute_for_rows(sessions, insert(Image), new)
        found = read_registered_images(
            sessions, split, class_ids, after=max(ids.values(), default=0)
        )
        ids |= {key: image for key, (image, _) in found.items()}
    return ids


def read_registered_images(
    sessions: Sessions, split: str, class_ids: list[int], *, after: int = 0
) -> dict[tuple[str, str], tuple[int, int]]:
    """Return the ids and class ids of the images registered so far, by path and hash.

    after: leave out the ids up to this one.
    """
    query = select(Image.path, Image.sha256, Image.id, Image.class_id).where(
        Image.class_id.in_(class_ids), Image.split == split, Image.id > after
    )
    with read_session(sessions) as session:
        return {
            (path, sha256): (image, class_)
            for path, sha256, image, class_ in session.execute(query)
        }


def mend_version_classes(sessions: Sessions, name: str, ids: Ids, classes: Classes) -> int:
    """Give a version's images the classes they are indexed with; return how many had another.

    ids: int64 [M]. classes: int32 [M], class ids. Raises DatabaseError.
    """
    version = find_version(sessions, name)
    if version is None:
        return 0
    wanted = dict(zip(ids.tolist(), classes.tolist(), strict=True))
    mended = mend_image_classes(sessions, read_class_ids_by_image(sessions, version.id), wanted)
    if mended:
        rank_again(sessions, version.id)
    return mended


def rank_again(sessions: Sessions, version_id: int) -> None:
    """Rank a version's images by the classes that they have now, and count these."""
    query = (
        select(Image.id, Image.class_id, Image.path, Image.width, Image.height)
        .join(IndexImage, IndexImage.image_id == Image.id)
        .where(IndexImage.version_id == version_id)
    )
    with read_session(sessions) as session:
        rows = session.execute(query).all()
    ranked = rank_images(
        [row.id for row in rows],
        [row.class_id for row in rows],
        [row.path for row in rows],
        [row.width * row.height for row in rows],
    )
    with write_session(sessions) as session:
        for table in (IndexImage, IndexClass):
            session.execute(delete(table).where(table.version_id == version_id))
        session.execute(insert(IndexImage), list(make_version_rows(version_id, ranked)))
        fill_class_counts(session, version_id)


def mend_image_classes(
    sessions: Sessions, registered: Mapping[int, int], wanted: Mapping[int, int]
) -> int:
    """Change the classes of registered images that differ from those wanted, by image id."""
    wrong = [
        {"image_id": image, "wanted": class_id}
        for image, class_id in wanted.items()
        if registered.get(image, class_id) != class_id
    ]
    if wrong:
        by_id = update(Image).where(Image.id == bindparam("image_id"))
        execute_for_rows(sessions, by_id.values(class_id=bindparam("wanted")), wrong)
    return len(wrong)


def choose_examples(folder: ImageFolder) -> list[tuple[Photograph, FileEntry]]:
    """Choose readable validation images, spread over the classes and each class's files.

    The first ones, the examples to click, are of classes far apart in the list.
    """
    groups: dict[int, list[Photograph]] = {}
    for photograph in folder.val:
        if escape_file_name(photograph.path) == photograph.path:
            groups.setdefault(photograph.class_index, []).append(photograph)
    classes = pick_evenly_spaced(list(groups), MAX_EXAMPLES)
    each = -(-MAX_EXAMPLES // max(1, len(classes)))
    order = dict.fromkeys([*pick_evenly_spaced(classes, CLICKABLE_EXAMPLES), *classes])
    turns = zip_longest(
        *(find_readable_photographs(folder.root, groups[index], each) for index in order)
    )
    return list(islice(filter(None, chain.from_iterable(turns)), MAX_EXAMPLES))


def pick_evenly_spaced(values: Sequence[T], most: int) -> list[T]:
    """Return at most `most` of the values, evenly spaced, including the first."""
    count = min(most, len(values))
    return [values[i * len(values) // count] for i in range(count)]


def find_readable_photographs(
    root: Path, group: Sequence[Photograph], count: int
) -> Iterator[tuple[Photograph, FileEntry]]:
    """Yield readable photographs of a class, evenly spaced ones first; not all files are tried."""
    order = dict.fromkeys([*pick_evenly_spaced(group, count), *group])
    for photograph in islice(order, MAX_TRIES_PER_EXAMPLE * count):
        read = read_photograph(root, photograph.path, lambda _: None)
        if isinstance(read, DecodedFile):
            yield photograph, read.entry
