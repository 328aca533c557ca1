"""The database: migrations make what the tables say, sessions wait their turn."""

import shutil
import sqlite3
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import make_url, select, text
from sqlalchemy.exc import IntegrityError

from app.config import Settings
from app.database.new_home import make_first_tables
from app.database.session import (
    COMMAND_PATIENCE,
    REQUEST_PATIENCE,
    DatabaseError,
    Sessions,
    are_tables_current,
    describe_server_waits,
    downgrade_database,
    get_engine,
    migrate_database,
    read_session,
    session_factory,
    upgrade_database,
    write_session,
)
from app.database.tables import (
    Class,
    Dataset,
    IndexVersion,
    Table,
    UploadBatch,
    UploadResult,
    utc_now,
)
from storage.home import Home
from tests.app.database.catalogues import check_ranks_of_earlier_versions

EARLIER = """
INSERT INTO dataset (id, root) VALUES (1, '/photographs');
INSERT INTO index_version (id, name, dataset_id, weights, created_at, count, unreadable)
VALUES (1, 'v', 1, 'w', '2026-01-01 00:00:00', 1, 0);
INSERT INTO result (token, created_at, filename, sha256, width, height, weights, index_version_id,
top5, crops, neighbours, milliseconds) VALUES ('t', '2026-01-01 00:00:00', 'cat.jpg', 's', 1, 2,
'w', 1, '[{"label": "cat", "probability": 0.5}]', '[]', '[]', '{"decode": 1.5}')
"""
"""What a database of the first revision may hold."""


def settings_for(root: Path, url: str = "") -> Settings:
    return Settings(home=Home(root=root), secret_key="s" * 16, database_url=url)


@pytest.fixture
def database(tmp_path: Path) -> Settings:
    """An empty SQLite database, up to date, that does not wait long."""
    settings = settings_for(tmp_path, f"sqlite:///{tmp_path}/home/app.sqlite3?timeout=0.2")
    upgrade_database(settings)
    return settings


def test_migrations_make_what_the_tables_say(database: Settings) -> None:
    with get_engine(session_factory(database)).connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Table.metadata) == []


def test_an_earlier_version_is_upgraded_with_its_results(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    migrate_database(settings, "0001")
    sessions = session_factory(settings)
    assert not are_tables_current(sessions)
    with write_session(sessions) as session:
        for line in EARLIER.split(";"):
            session.execute(text(line))
    upgrade_database(settings)
    assert are_tables_current(sessions)
    with read_session(sessions) as session:
        found = session.scalars(select(UploadResult)).one()
        assert session.scalars(select(UploadBatch)).all() == []
    assert (found.filename, found.top5) == ("cat.jpg", [{"label": "cat", "probability": 0.5}])
    assert (found.by_pixels, found.sampled) == ([], None)


def test_the_last_migration_can_be_undone(database: Settings) -> None:
    sessions = session_factory(database)
    downgrade_database(database, "0001")
    assert not are_tables_current(sessions)
    upgrade_database(database)
    assert are_tables_current(sessions)


def test_a_revision_that_is_unknown_or_not_earlier_is_refused(database: Settings) -> None:
    with pytest.raises(DatabaseError, match=r"no revision 7 .* 0001, 0002, .* 0007"):
        downgrade_database(database, "7")
    with pytest.raises(DatabaseError, match="at revision 0007, which is not after 0007"):
        downgrade_database(database, "0007")
    downgrade_database(database, "0005")
    with pytest.raises(DatabaseError, match="at revision 0005, which is not after 0006"):
        downgrade_database(database, "0006")
    assert not are_tables_current(session_factory(database))


def test_undoing_a_migration_loses_only_the_results_that_need_it(database: Settings) -> None:
    sessions = session_factory(database)
    with write_session(sessions) as session:
        for line in EARLIER.split(";"):
            session.execute(text(line))
        session.add(
            UploadResult(
                token="u", owner="o", filename="cat.jpg", sha256="s", width=1, height=2,
                weights="w", top5=[], neighbours=[], milliseconds={},
            )
        )  # fmt: skip
    downgrade_database(database, "0003")
    upgrade_database(database)
    with read_session(sessions) as session:
        (kept,) = session.scalars(select(UploadResult)).all()
    assert (kept.token, kept.index_version_id, kept.by_pixels) == ("t", 1, [])
    with get_engine(sessions).connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Table.metadata) == []


def test_new_tables_are_made_once_and_only_in_a_new_home(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "home")
    settings.home.root.mkdir()
    sessions = session_factory(settings)
    visits = [
        threading.Thread(target=make_first_tables, args=(settings, sessions)) for _ in range(4)
    ]
    for visit in visits:
        visit.start()
    for visit in visits:
        visit.join()
    assert are_tables_current(sessions)
    get_engine(sessions).dispose()
    # Tables of an earlier version are left to `flask db upgrade`.
    downgrade_database(settings, "0003")
    make_first_tables(settings, sessions)
    assert not are_tables_current(sessions)
    get_engine(sessions).dispose()
    # Where there have been uploads there was a database, and it is lost.
    settings.home.database.unlink()
    settings.home.uploads.mkdir()
    (settings.home.uploads / "a.jpg").touch()
    make_first_tables(settings, sessions)
    assert not settings.home.database.exists()


def test_images_of_earlier_versions_are_ranked(database: Settings) -> None:
    check_ranks_of_earlier_versions(database)


def test_upgrading_twice_changes_nothing(database: Settings) -> None:
    with write_session(session_factory(database)) as session:
        session.add(Dataset(root="/photographs"))
    upgrade_database(database)
    with read_session(session_factory(database)) as session:
        assert session.scalars(select(Dataset.root)).all() == ["/photographs"]


def test_ids_of_images_are_never_used_twice(database: Settings) -> None:
    with read_session(session_factory(database)) as session:
        sql = session.scalar(text("SELECT sql FROM sqlite_master WHERE name = 'image'"))
    assert "AUTOINCREMENT" in str(sql)


def test_whether_the_tables_are_up_to_date(tmp_path: Path, database: Settings) -> None:
    assert are_tables_current(session_factory(database))
    (tmp_path / "other").mkdir()
    other = settings_for(tmp_path / "other")
    with pytest.raises(DatabaseError, match="does not exist"):
        are_tables_current(session_factory(other))
    other.home.database.touch()
    assert not are_tables_current(session_factory(other))


def test_foreign_keys_are_kept_and_a_failed_session_is_undone(database: Settings) -> None:
    sessions = session_factory(database)
    rows = [Dataset(root="/photographs"), Class(dataset_id=4242, folder="a", label="a")]
    with pytest.raises(DatabaseError, match="FOREIGN KEY"), write_session(sessions) as session:
        session.add_all(rows)
    with read_session(sessions) as session:
        assert session.scalars(select(Dataset)).all() == []


def test_an_error_keeps_its_cause(database: Settings) -> None:
    with (
        pytest.raises(DatabaseError) as caught,
        write_session(session_factory(database)) as session,
    ):
        session.add_all([Dataset(root="/one"), Dataset(root="/one")])
    assert isinstance(caught.value.__cause__, IntegrityError)
    assert "\n" not in str(caught.value)


def test_moments_come_back_in_utc(database: Settings) -> None:
    sessions, moment = session_factory(database), utc_now()
    with write_session(sessions) as session:
        dataset = Dataset(root="/photographs")
        session.add(dataset)
        session.flush()
        session.add(
            IndexVersion(
                name="v",
                dataset_id=dataset.id,
                weights="w",
                created_at=moment,
                count=1,
                unreadable=0,
            )
        )
    with read_session(sessions) as session:
        assert session.scalars(select(IndexVersion.created_at)).one() == moment


def test_missing_tables_name_the_command(tmp_path: Path) -> None:
    sessions = session_factory(settings_for(tmp_path))
    with (
        pytest.raises(DatabaseError, match="`flask db upgrade`"),
        read_session(sessions) as session,
    ):
        session.scalars(select(Dataset)).all()


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    sessions = session_factory(settings_for(tmp_path / "gone"))
    with pytest.raises(DatabaseError, match="does not exist"), read_session(sessions) as session:
        session.scalars(select(Dataset)).all()


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    settings.home.database.write_bytes(b"not a database at all" * 100)
    with pytest.raises(DatabaseError, match="not a database"):
        upgrade_database(settings)


def test_a_database_of_a_newer_version_is_told(database: Settings) -> None:
    with write_session(session_factory(database)) as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseError, match="9999"):
        upgrade_database(database)
    assert not are_tables_current(session_factory(database))


def test_a_locked_database_is_told_and_still_read(database: Settings) -> None:
    sessions = session_factory(database)
    other = sqlite3.connect(str(database.database.database), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(DatabaseError, match="locked by another program"):
            upgrade_database(database)
        with pytest.raises(DatabaseError, match="locked"), write_session(sessions) as session:
            session.add(Dataset(root="/photographs"))
        with read_session(sessions) as session:
            assert session.scalars(select(Dataset)).all() == []
    finally:
        other.close()


def test_a_file_that_is_exchanged_while_serving_is_noticed(database: Settings) -> None:
    sessions = session_factory(database)
    with write_session(sessions) as session:
        session.add(Dataset(root="/first"))
    file = Path(str(database.database.database))
    for one in file.parent.glob(f"{file.name}*"):
        one.unlink()
    with (
        pytest.raises(DatabaseError, match="`flask db upgrade`"),
        write_session(sessions) as session,
    ):
        session.add(Dataset(root="/lost"))
    upgrade_database(database)
    with write_session(sessions) as session:
        session.add(Dataset(root="/second"))
    with read_session(session_factory(database)) as session:
        assert session.scalars(select(Dataset.root)).all() == ["/second"]


def test_a_backup_put_in_place_of_a_killed_servers_database_stays_as_it_was(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    upgrade_database(settings)
    file, backup = settings.home.database, tmp_path / "backup"
    shutil.copyfile(file, backup)
    writing = session_factory(settings)
    with write_session(writing) as session:
        session.add(Dataset(root="/after the backup"))
    # The server is killed: it never closes its connections, and its log stays.
    log = file.with_name(f"{file.name}-wal")
    assert log.exists()
    shutil.copyfile(backup, file)
    with read_session(session_factory(settings)) as session:
        assert session.scalars(select(Dataset)).all() == []
        assert session.execute(text("PRAGMA integrity_check")).scalar() == "ok"


def test_a_file_is_readable_by_its_owner_only_and_never_made_by_a_reader(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    with (
        pytest.raises(DatabaseError, match="does not exist"),
        read_session(session_factory(settings)) as session,
    ):
        session.scalars(select(Dataset)).all()
    assert not settings.home.database.exists()
    upgrade_database(settings)
    assert settings.home.database.stat().st_mode & 0o777 == 0o600


def add_dataset(sessions: Sessions, root: str) -> None:
    with write_session(sessions) as session:
        session.add(Dataset(root=root))


def test_a_request_does_not_wait_long_for_another_writer(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    upgrade_database(settings)
    waits = replace(REQUEST_PATIENCE, lock=0)
    sessions = session_factory(settings, waits)
    with write_session(session_factory(settings)) as session:
        session.add(Dataset(root="/one"))
        session.flush()
        with pytest.raises(DatabaseError, match="locked"):
            add_dataset(sessions, "/two")
    url = make_url("postgresql://host/name")
    assert describe_server_waits(url, REQUEST_PATIENCE) == {
        "connect_timeout": 3,
        "options": "-c lock_timeout=3000 -c statement_timeout=10000",
    }
    assert describe_server_waits(url, COMMAND_PATIENCE)["options"] == "-c lock_timeout=15000"
    own = make_url("postgresql://host/name?connect_timeout=1&options=-c%20x=1")
    assert describe_server_waits(own, REQUEST_PATIENCE) == {}


def test_an_unreachable_server_is_told_without_its_password(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, "postgresql://me:hidden@127.0.0.1:1/name")
    with pytest.raises(DatabaseError) as caught:
        upgrade_database(settings)
    assert "hidden" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_writers_that_read_first_wait_for_each_other(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    upgrade_database(settings)
    sessions = session_factory(settings)
    with write_session(sessions) as session:
        session.add(Dataset(root="0"))

    def count_up() -> None:
        for _ in range(20):
            with write_session(sessions) as session:
                row = session.scalars(select(Dataset)).one()
                row.root = str(int(row.root) + 1)

    threads = [threading.Thread(target=count_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with read_session(sessions) as session:
        assert session.scalars(select(Dataset.root)).one() == "80"
