"""The database's tables: images and classes, index versions, results of uploads, corrections."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, ForeignKey, Index, MetaData, UniqueConstraint, text
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import BigInteger, TypeDecorator

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Utc(TypeDecorator[datetime]):
    """A timezone-aware datetime in UTC; SQLite itself stores no time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC for the database."""
        return value and value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Return a timezone-aware UTC datetime."""
        if not isinstance(value, datetime):
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def utc_now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


class Table(DeclarativeBase):
    """Base of all tables, with named constraints that migrations can refer to."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)


class Dataset(Table):
    """A folder of photographs."""

    __tablename__ = "dataset"

    id: Mapped[int] = mapped_column(primary_key=True)
    root: Mapped[str] = mapped_column(unique=True)
    """Absolute path."""


class Class(Table):
    """A class of a dataset: a folder, and a label for people."""

    __tablename__ = "class"
    __table_args__ = (UniqueConstraint("dataset_id", "folder"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("dataset.id"))
    folder: Mapped[str]
    label: Mapped[str]

    dataset: Mapped[Dataset] = relationship()


class Image(Table):
    """A photograph with fixed content: a changed file is another image with another id.

    Ids are the FAISS ids. No id is ever reused, so that no index or old result can mistake one
    image for another.
    """

    __tablename__ = "image"
    __table_args__ = (
        UniqueConstraint("class_id", "path", "sha256"),
        Index(None, "sha256"),
        Index(None, "split", "class_id"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    class_id: Mapped[int] = mapped_column(ForeignKey("class.id"))
    split: Mapped[str]
    """`train`, or `val` for validation images; the first of these are the examples to click."""
    path: Mapped[str]
    """Relative to the dataset's root, with forward slashes."""
    sha256: Mapped[str]
    """Of the file, in hex."""
    format: Mapped[str]
    """Pillow's name for the file's format, such as JPEG."""
    width: Mapped[int]
    """In pixels, as a viewer shows the image: EXIF orientation applied."""
    height: Mapped[int]
    bytes: Mapped[int] = mapped_column(BigInteger)

    class_: Mapped[Class] = relationship()


class Correction(Table):
    """What is to be done about an image that the review found wrong; at most one thing."""

    __tablename__ = "correction"

    image_id: Mapped[int] = mapped_column(ForeignKey("image.id"), primary_key=True)
    action: Mapped[str]
    """`relabel`, `drop` or `note`."""
    class_id: Mapped[int | None] = mapped_column(ForeignKey("class.id"))
    """The new class, of `relabel`; else null."""
    note: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(Utc, default=utc_now)


class IndexVersion(Table):
    """One build of the index. The row stays when its files and its list of images are deleted."""

    __tablename__ = "index_version"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    """The name of its folder."""
    dataset_id: Mapped[int] = mapped_column(ForeignKey("dataset.id"))
    weights: Mapped[str]
    """Identity of the weights it was built with."""
    created_at: Mapped[datetime] = mapped_column(Utc)
    count: Mapped[int]
    """Images in it."""
    unreadable: Mapped[int]
    """Files left out because they could not be read."""

    dataset: Mapped[Dataset] = relationship()


class IndexImage(Table):
    """An image of an index version, and its ranks among the version's images of its class.

    Ranks count from 1, so that any page of a class, and any image's place, is read by an index
    without counting what precedes it. The reverse of an order needs no rank of its own.
    """

    __tablename__ = "index_image"
    __table_args__ = (
        Index(None, "version_id", "class_id", "by_path"),
        Index(None, "version_id", "class_id", "by_pixels"),
        Index(None, "version_id", "class_id", "by_age"),
    )

    version_id: Mapped[int] = mapped_column(ForeignKey("index_version.id"), primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("image.id"), primary_key=True)
    class_id: Mapped[int] = mapped_column(ForeignKey("class.id"))
    """The image's class when the version was built."""
    by_path: Mapped[int]
    """By path, by Unicode's code points, equal ones by id."""
    by_pixels: Mapped[int]
    """Fewest pixels first, equal ones by path."""
    by_age: Mapped[int]
    """By id: first registered first."""


class IndexClass(Table):
    """The number of images of a class in an index version: counted once, shown on every page."""

    __tablename__ = "index_class"

    version_id: Mapped[int] = mapped_column(ForeignKey("index_version.id"), primary_key=True)
    class_id: Mapped[int] = mapped_column(ForeignKey("class.id"), primary_key=True)
    images: Mapped[int]


class UploadResult(Table):
    """The result of an upload. Its picture is a file in Home.uploads."""

    __tablename__ = "result"
    __table_args__ = (
        Index(None, "created_at"),
        Index("ix_result_owner", "owner", "created_at"),
    )

    token: Mapped[str] = mapped_column(primary_key=True)
    """From `secrets.token_urlsafe`: anyone who has it may see the result."""
    created_at: Mapped[datetime] = mapped_column(Utc, default=utc_now)
    owner: Mapped[str | None]
    """The browser that sent it: the hash of the id in its cookie."""
    filename: Mapped[str]
    """The browser's name for it; only displayed, never used as a path."""
    sha256: Mapped[str]
    width: Mapped[int]
    height: Mapped[int]
    weights: Mapped[str]
    index_version_id: Mapped[int | None] = mapped_column(ForeignKey("index_version.id"))
    """Null if there was no index."""
    top5: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    """`[{"label", "probability"}, …]`, most probable first."""
    crops: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)
    """The best label of each of the ten crops, in order, like top5."""
    neighbours: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    """`[{"id", "label", "distance"}, …]`, nearest first."""
    by_pixels: Mapped[list[dict[str, Any]]] = mapped_column(
        JSON, default=list, server_default=text("'[]'")
    )
    """The same by distance in pixels; empty if the index has no sample."""
    sampled: Mapped[int | None]
    """How many images were compared by pixels; null if all were."""
    sureness: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """`{"verdict", "nearer", "images", "temperature", "scaled"}`; null without a calibration."""
    milliseconds: Mapped[dict[str, float]] = mapped_column(JSON)
    """How long each step took, in order."""

    index_version: Mapped[IndexVersion | None] = relationship()


class UploadBatch(Table):
    """The results of images sent together. It outlives those of them that are deleted."""

    __tablename__ = "together"
    __table_args__ = (
        Index(None, "created_at"),
        Index("ix_together_owner", "owner", "created_at"),
    )

    token: Mapped[str] = mapped_column(primary_key=True)
    """Like a result's."""
    created_at: Mapped[datetime] = mapped_column(Utc, default=utc_now)
    owner: Mapped[str | None]
    """The browser that sent it: the hash of the id in its cookie."""
    items: Mapped[list[dict[str, str]]] = mapped_column(JSON)
    """In the order sent: `{"token"}` of a result, or `{"filename", "reason"}`."""
