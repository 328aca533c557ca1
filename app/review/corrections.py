"""The list of corrections in the database."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from sqlalchemy import delete, select
from sqlalchemy.orm import aliased

from app.database.session import Sessions, read_session, write_session
from app.database.tables import Class, Correction, Dataset, Image

Action = Literal["relabel", "drop", "note"]
ACTIONS: tuple[Action, ...] = get_args(Action)
MAX_NOTE_LENGTH = 500
"""Characters of a note."""


class CorrectionError(ValueError):
    """A correction that makes no sense, or a list of them that cannot be applied."""


@dataclass(frozen=True, kw_only=True)
class ListedCorrection:
    """What is to be done about one photograph.

    file: its path from the data set's folder, with forward slashes. sha256: of its bytes, as they
    were reviewed. label: the folder of its class. to: the folder of its new class, for `relabel`;
    else empty.
    """

    file: str
    sha256: str
    action: Action
    label: str
    to: str = ""
    note: str = ""
    image_id: int = 0


@dataclass(frozen=True, kw_only=True)
class WantedCorrection:
    """A correction to enter. class_id: of the new class, for `relabel`."""

    image_id: int
    action: Action
    class_id: int | None = None
    note: str = ""


def enter_corrections(sessions: Sessions, wanted: Sequence[WantedCorrection]) -> None:
    """Enter corrections; each replaces what was listed of its image. Raises DatabaseError."""
    with write_session(sessions) as session:
        for one in wanted:
            session.merge(
                Correction(
                    image_id=one.image_id,
                    action=one.action,
                    class_id=one.class_id,
                    note=one.note[:MAX_NOTE_LENGTH],
                )
            )


def delete_correction(sessions: Sessions, image_id: int) -> None:
    """Take an image off the list. Raises DatabaseError."""
    with write_session(sessions) as session:
        session.execute(delete(Correction).where(Correction.image_id == image_id))


def list_corrections(sessions: Sessions, dataset_id: int) -> list[ListedCorrection]:
    """List the corrections of a data set, by file. Raises DatabaseError."""
    new = aliased(Class)
    query = (
        select(Correction, Image, Class.folder, new.folder)
        .join(Image, Image.id == Correction.image_id)
        .join(Class, Class.id == Image.class_id)
        .outerjoin(new, new.id == Correction.class_id)
        .where(Class.dataset_id == dataset_id)
        .order_by(Image.path, Image.id)
    )
    with read_session(sessions) as session:
        return [
            ListedCorrection(
                file=image.path,
                sha256=image.sha256,
                action=next(known for known in ACTIONS if known == correction.action),
                label=folder,
                to=to or "",
                note=correction.note,
                image_id=image.id,
            )
            for correction, image, folder, to in session.execute(query)
        ]


def find_actions(sessions: Sessions, ids: Sequence[int]) -> dict[int, str]:
    """Return what is listed of some images, by id. Raises DatabaseError."""
    query = select(Correction.image_id, Correction.action).where(Correction.image_id.in_(ids))
    with read_session(sessions) as session:
        return dict(session.execute(query).all())


def find_ids_by_file_name(sessions: Sessions, dataset_id: int, text: str) -> list[int]:
    """Find the images of a data set whose path contains a text, in either case.

    Raises DatabaseError.
    """
    query = (
        select(Image.id)
        .join(Class, Class.id == Image.class_id)
        .join(Dataset, Dataset.id == Class.dataset_id)
        .where(Dataset.id == dataset_id, Image.path.icontains(text, autoescape=True))
    )
    with read_session(sessions) as session:
        return list(session.scalars(query))


def read_labels(sessions: Sessions, dataset_id: int) -> dict[int, str]:
    """Return the labels of a data set's classes by id, in alphabetical order.

    Raises DatabaseError.
    """
    query = select(Class.id, Class.label).where(Class.dataset_id == dataset_id)
    with read_session(sessions) as session:
        return dict(session.execute(query.order_by(Class.label, Class.id)).all())
