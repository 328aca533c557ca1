"""Entering a folder's images, and the index versions made of them, in the database."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TypeVar

from sqlalchemy import delete, func, insert, literal, select
from sqlalchemy.orm import Session

from app.db import DatabaseError, Sessions, reading, writing
from app.measuring import Measured, measure
from app.tables import Class, Dataset, Image, IndexClass, IndexImage, IndexVersion
from index.store import Manifest
from model.decoding import ImageError
from model.photographs import Folder, Photograph

T = TypeVar("T")
THREADS = 4
AHEAD = 256
"""Files being read while earlier ones wait to be taken."""
ROWS = 5000
"""Rows sent to the database at a time."""
EXAMPLES = 3
TRIES = 3
"""Validation images of a class that are tried until one can be read."""


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """A file that was left out: its path from the data set's root, and why."""

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Registration:
    """A folder in the database: `items` are its training images, id and file, ids rising."""

    dataset_id: int
    items: list[tuple[int, Path]]
    unreadable: list[Unreadable]


def register(
    sessions: Sessions, folder: Folder, on_progress: Callable[[int], None] | None = None
) -> Registration:
    """Enter a folder's training images, and up to three validation images as examples.

    A file that is known, by path and content, keeps its id; a changed one gets a new one. Files
    that cannot be read are listed. `on_progress` is told how many of the training images are
    done. Raises DatabaseError.
    """
    check_names(folder)
    dataset_id, class_ids = enter_classes(sessions, folder)
    measured: list[tuple[Photograph, Measured]] = []
    unreadable: list[Unreadable] = []
    for done, (photograph, found) in enumerate(measure_all(folder.root, folder.train), 1):
        if isinstance(found, Measured):
            measured.append((photograph, found))
        else:
            unreadable.append(Unreadable(path=shown(photograph.path), reason=found))
        if on_progress:
            on_progress(done)
    ids = enter_images(sessions, "train", measured, class_ids)
    enter_images(sessions, "val", readable_examples(folder), class_ids)
    items = sorted((ids[p.path, m.sha256], folder.root / p.path) for p, m in measured)
    return Registration(dataset_id=dataset_id, items=items, unreadable=unreadable)


def record_version(
    sessions: Sessions, manifest: Manifest, dataset_id: int, ids: Iterable[int]
) -> int:
    """Enter a built index version and the images it holds; give its id. Raises DatabaseError."""
    with writing(sessions) as session:
        version = IndexVersion(
            name=manifest.name,
            dataset_id=dataset_id,
            weights=manifest.weights,
            created_at=datetime.fromisoformat(manifest.created),
            count=manifest.count,
            unreadable=manifest.unreadable,
        )
        session.add(version)
        session.flush()
        for some in batched(ids, ROWS):
            rows = [{"version_id": version.id, "image_id": int(image)} for image in some]
            session.execute(insert(IndexImage), rows)
        count_classes(session, version.id)
        return version.id


def forget_versions(sessions: Sessions, keep: Iterable[str]) -> None:
    """Delete the list of images of every index version but those named. Raises DatabaseError."""
    with writing(sessions) as session:
        old = select(IndexVersion.id).where(IndexVersion.name.not_in(list(keep)))
        for table in (IndexImage, IndexClass):
            session.execute(delete(table).where(table.version_id.in_(old)))


def count_classes(session: Session, version_id: int) -> None:
    """Fill index_class from index_image, in the database."""
    counts = (
        select(literal(version_id), Image.class_id, func.count())
        .join(IndexImage, IndexImage.image_id == Image.id)
        .where(IndexImage.version_id == version_id)
        .group_by(Image.class_id)
    )
    columns = ["version_id", "class_id", "images"]
    session.execute(insert(IndexClass).from_select(columns, counts))


def batched(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` values, the last one shorter; Python has its own from 3.12."""
    rest = iter(values)
    while some := list(islice(rest, size)):
        yield some


def check_names(folder: Folder) -> None:
    """Raise DatabaseError where the root's or a class's name is no text a database can hold."""
    for name in (str(folder.root), *(c.folder for c in folder.classes)):
        if shown(name) != name:
            raise DatabaseError(f"The folder's name {shown(name)} is not UTF-8; rename it")


def shown(name: str) -> str:
    """A file's name with the bytes that are not UTF-8 written out."""
    return name.encode("utf-8", "backslashreplace").decode()


def enter_classes(sessions: Sessions, folder: Folder) -> tuple[int, list[int]]:
    """The ids of the data set and of its classes, in their order; labels are brought up to date."""
    root = str(folder.root)
    with writing(sessions) as session:
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


def enter_images(
    sessions: Sessions,
    split: str,
    measured: Sequence[tuple[Photograph, Measured]],
    class_ids: list[int],
) -> dict[tuple[str, str], int]:
    """Enter images that are new; give the ids of all, by path and hash."""
    ids = known_images(sessions, split, class_ids)
    new = [
        {**asdict(m), "path": p.path, "class_id": class_ids[p.class_index], "split": split}
        for p, m in measured
        if (p.path, m.sha256) not in ids
    ]
    entry = insert(Image).returning(Image.id, Image.path, Image.sha256)
    with writing(sessions) as session:
        for rows in batched(new, ROWS):
            for image, path, sha256 in session.execute(entry, rows):
                ids[path, sha256] = image
    return ids


def known_images(
    sessions: Sessions, split: str, class_ids: list[int]
) -> dict[tuple[str, str], int]:
    """The ids of the images that were entered before, by path and hash."""
    query = select(Image.id, Image.path, Image.sha256).where(
        Image.class_id.in_(class_ids), Image.split == split
    )
    with reading(sessions) as session:
        return {(path, sha256): image for image, path, sha256 in session.execute(query)}


def readable_examples(folder: Folder) -> list[tuple[Photograph, Measured]]:
    """A readable validation image each of a few classes, spread over the list of classes."""
    groups: dict[int, list[Photograph]] = {}
    for photograph in folder.val:
        groups.setdefault(photograph.class_index, []).append(photograph)
    order = list(groups)
    spread = [order[i * len(order) // EXAMPLES] for i in range(EXAMPLES)] if order else []
    found: list[tuple[Photograph, Measured]] = []
    for index in dict.fromkeys([*spread, *order[:TRIES]]):
        readable = ((p, measure_file(folder.root, p)) for p in groups[index][:TRIES])
        found += [(p, m) for p, m in readable if isinstance(m, Measured)][:1]
    return found[:EXAMPLES]


def measure_all(
    root: Path, photographs: Sequence[Photograph]
) -> Iterator[tuple[Photograph, Measured | str]]:
    """Each file's measures in order, or why there are none; read ahead in threads."""
    waiting: deque[tuple[Photograph, Future[Measured | str]]] = deque()
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="measure")
    try:
        for photograph in photographs:
            waiting.append((photograph, pool.submit(measure_file, root, photograph)))
            if len(waiting) > AHEAD:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def measure_file(root: Path, photograph: Photograph) -> Measured | str:
    """One file's measures, or why there are none: one bad file stops nothing."""
    if shown(photograph.path) != photograph.path:
        return "Its name is not UTF-8."
    try:
        return measure((root / photograph.path).read_bytes())
    except ImageError as error:
        return str(error)
    except OSError as error:
        return f"The file cannot be opened: {error.strerror}."
