"""Database sessions, and the migrations that bring the tables up to date or back."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, Executable, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import (
    DBAPIError,
    DisconnectionError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.orm import Session, sessionmaker

from app.config import Settings
from storage.parallel import split_batches

Sessions = sessionmaker[Session]


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How many seconds to wait: for another writer, for a connection, and for a query's end.

    query: None: for as long as it takes.
    """

    lock: int
    connect: int
    query: int | None = None


COMMAND_PATIENCE = Patience(lock=15, connect=15)
"""A command's, which builds an index."""
REQUEST_PATIENCE = Patience(lock=3, connect=3, query=10)
"""A request's: whoever asked is answered soon that the database is away, and frees the thread."""


ROWS_PER_TRANSACTION = 5000
"""Rows written per transaction by `execute_for_rows`."""
UPGRADE_COMMAND = "flask db upgrade"
DISK_FULL_MESSAGES = ("disk is full", "No space left")
"""What SQLite and PostgreSQL say when the disk is full."""


class DatabaseError(Exception):
    """The database cannot be reached, is locked, or its tables are not up to date."""

    @property
    def is_disk_full(self) -> bool:
        """Whether the disk was full."""
        return any(words in str(self) for words in DISK_FULL_MESSAGES)

    @property
    def command(self) -> str:
        """The command that helps; empty if none does."""
        return UPGRADE_COMMAND if UPGRADE_COMMAND in str(self) else ""


def session_factory(settings: Settings, patience: Patience = COMMAND_PATIENCE) -> Sessions:
    """Return a factory of sessions. Nothing is opened before the first session is used.

    A SQLite file that does not exist is not created: `migrate_database` does that.
    """
    engine = create_database_engine(settings.database, patience)
    return sessionmaker(engine, expire_on_commit=False)


@contextmanager
def read_session(sessions: Sessions) -> Iterator[Session]:
    """Open a short session for reading. Raises DatabaseError."""
    with translate_database_errors(sessions), sessions() as session:
        yield session


@contextmanager
def write_session(sessions: Sessions) -> Iterator[Session]:
    """Open a short session that is committed at its end, or rolled back if its body raises.

    On SQLite it waits for other writers at its start: a session that reads first and then writes
    would be rejected, not queued. Raises DatabaseError.
    """
    engine = get_engine(sessions).execution_options(immediate=True)
    with translate_database_errors(sessions):
        with sessions(bind=engine) as session, session.begin():
            yield session
        if engine.dialect.name == "sqlite":
            empty_write_ahead_log(engine)


def execute_for_rows(
    sessions: Sessions, statement: Executable, rows: Iterable[Mapping[str, Any]]
) -> None:
    """Execute a statement once for each row, in transactions so short that others can write.

    Raises DatabaseError; earlier transactions stay.
    """
    engine = get_engine(sessions).execution_options(immediate=True)
    with translate_database_errors(sessions):
        for some in split_batches(rows, ROWS_PER_TRANSACTION):
            with engine.begin() as connection:
                connection.execute(statement, some)
        if engine.dialect.name == "sqlite":
            empty_write_ahead_log(engine)


def upgrade_database(settings: Settings) -> None:
    """Bring the tables up to date, from any earlier revision or from an empty database.

    Raises DatabaseError if it cannot be reached or written, or comes from a newer version.
    """
    migrate_database(settings, "head")


def downgrade_database(settings: Settings, revision: str) -> None:
    """Undo migrations, back to an earlier revision; what only later ones hold is lost.

    Raises DatabaseError, also for a revision that is unknown or not an earlier one.
    """
    revisions = list_revisions()
    if revision not in revisions:
        known = ", ".join(revisions)
        raise DatabaseError(f"There is no revision {revision} of the database; there are {known}")
    sessions = session_factory(settings)
    with read_session(sessions) as session:
        current = MigrationContext.configure(session.connection()).get_current_revision()
    get_engine(sessions).dispose()
    if current is None or (current in revisions and current <= revision):
        raise DatabaseError(
            f"The database is at revision {current or 'none'}, which is not after {revision}"
        )
    migrate_database(settings, revision, command.downgrade)


def list_revisions() -> list[str]:
    """List the revisions of the tables, the first one first."""
    scripts = ScriptDirectory.from_config(make_alembic_config()).walk_revisions()
    return sorted(script.revision for script in scripts)


def migrate_database(
    settings: Settings,
    revision: str,
    migrate: Callable[[Config, str], None] = command.upgrade,
) -> None:
    """As `upgrade_database`, to a revision; or back to it."""
    if settings.database.drivername == "sqlite":
        make_file(settings.database)
    sessions = session_factory(settings)
    engine = get_engine(sessions)
    with (
        translate_database_errors(sessions),
        engine.execution_options(immediate=True).begin() as connection,
    ):
        config = make_alembic_config()
        config.attributes["connection"] = connection
        migrate(config, revision)
    engine.dispose()


def are_tables_current(sessions: Sessions) -> bool:
    """Whether the tables are those that this version expects. Raises DatabaseError."""
    head = ScriptDirectory.from_config(make_alembic_config()).get_current_head()
    with read_session(sessions) as session:
        return MigrationContext.configure(session.connection()).get_current_revision() == head


@contextmanager
def translate_database_errors(sessions: Sessions) -> Iterator[None]:
    """Turn exceptions of SQLAlchemy and Alembic into a DatabaseError with a one-line message."""
    where = get_engine(sessions).url.render_as_string(hide_password=True)
    try:
        yield
    except CommandError as error:
        raise DatabaseError(f"The database {where} belongs to another version: {error}") from error
    except DBAPIError as error:
        raise DatabaseError(describe_dbapi_error(error, where)) from error
    except SQLAlchemyError as error:
        raise DatabaseError(f"The database {where} failed: {get_first_line(error)}") from error


def describe_dbapi_error(error: DBAPIError, where: str) -> str:
    """Say in one line what went wrong with the database at `where`, and what to do about it."""
    what = get_first_line(error.orig)
    missing = "no such table" in what or "no such column" in what
    if missing or (isinstance(error, ProgrammingError) and "does not exist" in what):
        return f"The database {where} is not up to date ({what}); run `flask db upgrade`"
    if "unable to open database file" in what:
        return (
            f"The database {where} does not exist or cannot be read ({what}); restore it, or make "
            "a new one with `flask db upgrade`"
        )
    if "readonly database" in what:
        return f"The database {where} is on a disk, or in a folder, that cannot be written"
    if "locked" in what:
        return f"The database {where} is locked by another program; try again when it has finished"
    if isinstance(error, OperationalError):
        return f"The database {where} cannot be used: {what}"
    return f"The database {where} failed: {what}"


def get_first_line(error: BaseException | None) -> str:
    """Return the first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def make_file(url: URL) -> None:
    """Create a SQLite file, readable by its owner only, and its folder. Raises DatabaseError."""
    file = Path(url.database or "")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
    except OSError as error:
        raise DatabaseError(f"The database's file cannot be created: {error}") from error


def make_alembic_config() -> Config:
    """Return Alembic's configuration: the migrations beside this file."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


def get_engine(sessions: Sessions) -> Engine:
    """Return the engine of a session factory."""
    engine = sessions.kw["bind"]
    assert isinstance(engine, Engine)
    return engine


def create_database_engine(url: URL, patience: Patience) -> Engine:
    """Create an engine; SQLite gets foreign keys, a write-ahead log and real transactions."""
    if url.drivername != "sqlite":
        return create_engine(
            url,
            connect_args=describe_server_waits(url, patience),
            pool_timeout=patience.connect,
            pool_pre_ping=True,
            hide_parameters=True,
        )
    waits = {} if "timeout" in url.query else {"timeout": patience.lock}
    engine = create_engine(
        url, connect_args=waits, pool_timeout=patience.connect, hide_parameters=True
    )
    event.listen(engine, "do_connect", open_existing_sqlite)
    event.listen(engine, "connect", prepare_sqlite)
    event.listen(engine, "checkout", reconnect_if_replaced)
    event.listen(engine, "begin", begin_sqlite)
    return engine


def describe_server_waits(url: URL, patience: Patience) -> dict[str, Any]:
    """Return the arguments of a connection to PostgreSQL; those in its address come first."""
    waits: dict[str, Any] = {}
    if "connect_timeout" not in url.query:
        waits["connect_timeout"] = patience.connect
    if "options" not in url.query:
        limits = {"lock_timeout": patience.lock, "statement_timeout": patience.query}
        waits["options"] = " ".join(f"-c {k}={1000 * v}" for k, v in limits.items() if v)
    return waits


def open_existing_sqlite(
    dialect: Any, record: Any, arguments: list[str], named: dict[str, Any]
) -> None:
    """Have a SQLite file opened only if it exists, instead of an empty one in its place."""
    arguments[0] = f"file:{quote(arguments[0])}?mode=rw"
    named["uri"] = True


def prepare_sqlite(connection: sqlite3.Connection, record: Any) -> None:
    """Configure each new SQLite connection."""
    # Python's own transactions begin too late: not before a SELECT or a CREATE TABLE.
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA journal_mode = WAL")
    record.info["file"] = read_database_file_id(connection)


def reconnect_if_replaced(connection: sqlite3.Connection, record: Any, proxy: Any) -> None:
    """Have a SQLite connection replaced when its file has been removed or replaced.

    It would continue to read and write the file that no longer has a name.
    """
    if read_database_file_id(connection) != record.info["file"]:
        raise DisconnectionError("The database's file has been replaced")


def read_database_file_id(connection: sqlite3.Connection) -> tuple[int, int] | None:
    """Return device and inode of the file at a SQLite connection's path, or None."""
    # The first is the database itself; SQLite may have opened one for temporary tables beside it.
    _, _, path = connection.execute("PRAGMA database_list").fetchone()
    try:
        stat = Path(path).stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def empty_write_ahead_log(engine: Engine) -> None:
    """Move what a writer has logged into SQLite's file at once, unless somebody reads just now.

    A log that a killed server leaves beside a file that is then replaced by a backup would be
    applied to the backup.
    """
    connection = engine.raw_connection()
    try:
        (patience,) = connection.cursor().execute("PRAGMA busy_timeout").fetchone()
        connection.cursor().execute("PRAGMA busy_timeout = 0")
        connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.cursor().execute(f"PRAGMA busy_timeout = {patience}")
    finally:
        connection.close()


def begin_sqlite(connection: Connection) -> None:
    """Begin each SQLite transaction, as a writer from the start if `write_session` asks for it."""
    immediate = connection.get_execution_options().get("immediate")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
