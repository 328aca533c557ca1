"""The database side on a real PostgreSQL server, started for these tests alone."""

import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import event, select

from app.config import Settings
from app.database.browse import (
    ImageOrder,
    find_class_page,
    find_first_images_by_class,
    find_position,
    list_classes,
)
from app.database.images import find_examples, find_image, find_labels
from app.database.ingest import rank_again, register_images
from app.database.session import (
    DatabaseError,
    Sessions,
    get_engine,
    make_alembic_config,
    read_session,
    session_factory,
    upgrade_database,
    write_session,
)
from app.database.tables import (
    Dataset,
    Image,
    IndexVersion,
    Table,
    UploadBatch,
    UploadResult,
    utc_now,
)
from app.indexing.build import build_index
from app.inference.classify import classify_image
from app.inference.loader import ModelLoader
from app.inference.state import Ready
from index.building.reader import DecodedFile, read_photograph
from model.dataset.folder import scan_folder
from storage.files import switch_link
from storage.home import Home
from tests.app.database.catalogues import check_ranks_of_earlier_versions, enter_catalogue

pytestmark = pytest.mark.postgres
OWNER = "postgres"


def programs() -> Path | None:
    """The folder of initdb and pg_ctl: on the PATH, or the newest that Debian keeps aside."""
    found = shutil.which("initdb")
    kept = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: float(p.parent.name))
    folders = [Path(found).resolve().parent] if found else []
    whole = [f for f in folders + kept[::-1] if (f / "pg_ctl").exists() and (f / "initdb").exists()]
    return whole[0] if whole else None


def run(*command: str | Path) -> None:
    """Run a server's program: as another user where this one is root, which it refuses."""
    as_owner = ["runuser", "-u", OWNER, "--"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*as_owner, *map(str, command)],
        cwd="/",
        stdin=subprocess.DEVNULL,
        # Not a pipe: the server would inherit it and keep it open.
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}")


def why_not() -> str:
    """Why no server can be started here, or nothing."""
    if programs() is None:
        return "there is no PostgreSQL (initdb, pg_ctl) here"
    names = {user.pw_name for user in pwd.getpwall()}
    if os.geteuid() == 0 and (OWNER not in names or not shutil.which("runuser")):
        return f"PostgreSQL does not run as root, and there is no user {OWNER} to run it as"
    return ""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server's database; the server ends with the tests."""
    if reason := why_not():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    if os.geteuid() == 0:
        shutil.chown(folder, OWNER)
    bin_, data = programs() or Path(), folder / "data"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    try:
        run(bin_ / "initdb", "-D", data, "-U", "me", "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        run(bin_ / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start")
        try:
            yield f"postgres://me@127.0.0.1:{port}/postgres"
        finally:
            run(bin_ / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def on_postgres(server: str, tmp_path: Path, settings: Settings) -> Iterator[Settings]:
    """A home with weights whose empty database, up to date, is on the server."""
    home = Home(root=tmp_path / "home")
    switch_link(home.weights, settings.home.weights.resolve())
    changed = replace(settings, home=home, database_url=server)
    upgrade_database(changed)
    yield changed
    engine = get_engine(session_factory(changed))
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    engine.dispose()


@pytest.fixture
def sessions(on_postgres: Settings) -> Iterator[Sessions]:
    """Sessions whose connections are closed at the end."""
    sessions = session_factory(on_postgres)
    yield sessions
    get_engine(sessions).dispose()


def test_migrations_make_what_the_tables_say(on_postgres: Settings, sessions: Sessions) -> None:
    upgrade_database(on_postgres)
    with get_engine(sessions).connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Table.metadata) == []


def test_an_earlier_version_is_upgraded_with_its_results(
    on_postgres: Settings, sessions: Sessions
) -> None:
    with get_engine(sessions).begin() as connection:
        config = make_alembic_config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
        connection.exec_driver_sql("INSERT INTO dataset (id, root) VALUES (1, '/photographs')")
        connection.exec_driver_sql(
            "INSERT INTO index_version (id, name, dataset_id, weights, created_at, count, "
            "unreadable) VALUES (1, 'v', 1, 'w', now(), 1, 0)"
        )
        connection.exec_driver_sql(
            "INSERT INTO result (token, created_at, filename, sha256, width, height, weights, "
            "index_version_id, top5, crops, neighbours, milliseconds) VALUES ('t', now(), "
            "'cat.jpg', 's', 1, 2, 'w', 1, '[]', '[]', '[]', '{}')"
        )
    upgrade_database(on_postgres)
    with write_session(sessions) as session:
        found = session.scalars(select(UploadResult)).one()
        assert (found.filename, found.by_pixels, found.sampled) == ("cat.jpg", [], None)
        session.add(
            UploadBatch(token="all", items=[{"token": "t"}, {"filename": "a", "reason": "b"}])
        )
    with read_session(sessions) as session:
        together = session.scalars(select(UploadBatch)).one()
    assert together.items[1] == {"filename": "a", "reason": "b"}
    assert (utc_now() - together.created_at).total_seconds() < 60


def test_images_of_earlier_versions_are_ranked(on_postgres: Settings) -> None:
    check_ranks_of_earlier_versions(on_postgres)


def test_results_without_an_index_are_kept_until_the_migration_is_undone(
    on_postgres: Settings, sessions: Sessions
) -> None:
    with write_session(sessions) as session:
        result = UploadResult(
            token="t", owner="o", filename="cat.jpg", sha256="s", width=1, height=2, weights="w",
            top5=[], neighbours=[], milliseconds={},
        )  # fmt: skip
        session.add(result)
    with read_session(sessions) as session:
        assert session.scalars(select(UploadResult)).one().index_version_id is None
    with get_engine(sessions).begin() as connection:
        config = make_alembic_config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0003")
    upgrade_database(on_postgres)
    with read_session(sessions) as session:
        assert session.scalars(select(UploadResult)).all() == []


def test_a_folder_is_registered_and_kept(sessions: Sessions, photographs: Path) -> None:
    folder = scan_folder(photographs)
    read = [read_photograph(folder.root, p.path, lambda _: None) for p in folder.train]
    entries = [one.entry for one in read if isinstance(one, DecodedFile)]
    first = register_images(sessions, folder, folder.train, entries)
    assert len(set(first.ids.tolist())) == len(folder.train)
    assert (register_images(sessions, folder, folder.train, entries).ids == first.ids).all()
    examples = find_examples(sessions, first.dataset_id)
    assert len({example.class_id for example in examples}) == 3
    assert find_image(sessions, 2**40) is None


def check_orders(sessions: Sessions, version: int, class_: int) -> None:
    """A class's images stand in every order as in Python, and so do those beside one."""
    with write_session(sessions) as session:
        rows = session.scalars(select(Image).where(Image.class_id == class_)).all()
        images = [row for row in rows if row.split == "train"]
        for row, side in zip(images, (9, 60_000, 500, 9, 7), strict=False):
            row.width = row.height = side
    rank_again(sessions, version)
    smallest = sorted(images, key=lambda i: (i.width * i.height, i.path))
    expected = {
        ImageOrder.NAME: sorted(images, key=lambda i: i.path),
        ImageOrder.LARGEST: smallest[::-1],
        ImageOrder.SMALLEST: smallest,
        ImageOrder.NEWEST: sorted(images, key=lambda i: -i.id),
    }
    for order, ordered in expected.items():
        pages = [find_class_page(sessions, version, class_, n, 5, order) for n in (1, 2)]
        pictures = [picture for page in pages if page for picture in page.pictures]
        assert [picture.id for picture in pictures] == [row.id for row in ordered]
        place = find_position(sessions, version, pictures[4], order)
        assert place
        assert (place.previous, place.next) == (pictures[3].id, pictures[5].id)
        assert (place.number, place.images) == (5, len(images))
    first = find_first_images_by_class(sessions, version, [class_], 6)[class_]
    assert [picture.id for picture in first] == [row.id for row in expected[ImageOrder.NAME][:6]]


def test_pages_and_places_are_read_by_the_index_of_their_order(sessions: Sessions) -> None:
    enter_catalogue(sessions, 3000)
    engine, sent = get_engine(sessions), []

    def note(connection: object, cursor: object, statement: str, values: Any, *more: Any) -> None:
        sent.append((statement, values))

    with engine.begin() as connection:
        connection.exec_driver_sql("ANALYZE")
    picture = find_image(sessions, 6)
    assert picture
    event.listen(engine, "before_cursor_execute", note)
    for order in ImageOrder:
        find_class_page(sessions, 1, 6, 3, 48, order)
        find_position(sessions, 1, picture, order)
    event.remove(engine, "before_cursor_execute", note)
    ranked = [(query, values) for query, values in sent if "index_image" in query]
    assert len(ranked) == 2 * len(ImageOrder)
    with engine.connect() as connection:
        for query, values in ranked:
            plan = connection.exec_driver_sql(f"EXPLAIN {query}", values).scalars().all()
            conditions = "".join(line for line in plan if "Index Cond" in line)
            assert re.search(r"class_id = \S+ AND \(by_\w+ [<>=]", conditions), (query, plan)
            assert not any("Seq Scan on index_image" in line for line in plan), plan


def test_an_index_is_built_served_and_browsed(on_postgres: Settings, sessions: Sessions) -> None:
    built = build_index(on_postgres, sessions, lambda name, total: lambda done: None)
    assert built
    engine = ModelLoader(on_postgres, sessions)
    state = engine.get_state()
    assert isinstance(state, Ready)
    assert state.manifest == built.manifest
    classes = list_classes(sessions, state.version.id)
    assert sum(c.images for c in classes) == built.manifest.images == len(state.index)
    page = find_class_page(sessions, state.version.id, classes[0].id, 2, 4)
    assert page
    assert page.pages == -(-classes[0].images // 4)
    picture = page.pictures[0]
    answer, _ = classify_image(state, sessions, picture.file.read_bytes(), without=picture.id)
    assert len(answer.neighbours) == 6
    assert find_labels(sessions, [n.id for n in answer.neighbours])
    check_orders(sessions, state.version.id, classes[0].id)


def test_results_come_back(sessions: Sessions) -> None:
    moment = utc_now()
    with write_session(sessions) as session:
        dataset = Dataset(root="/photographs")
        session.add(dataset)
        session.flush()
        version = IndexVersion(
            name="v", dataset_id=dataset.id, weights="w", created_at=moment, count=1, unreadable=0
        )
        session.add(version)
        session.flush()
        session.add(
            UploadResult(
                token="t",
                filename="cat.jpg",
                sha256="s",
                width=1,
                height=2,
                weights="w",
                index_version_id=version.id,
                top5=[{"label": "cat", "probability": 0.5}],
                neighbours=[],
                milliseconds={"network": 2.5, "decode": 1.0},
                created_at=moment,
            )
        )
    with read_session(sessions) as session:
        found = session.scalars(select(UploadResult)).one()
    assert found.created_at == moment
    assert found.top5 == [{"label": "cat", "probability": 0.5}]
    assert found.crops == []
    assert list(found.milliseconds.items()) == [("network", 2.5), ("decode", 1.0)]


def test_missing_tables_name_the_command(server: str, on_postgres: Settings) -> None:
    sessions = session_factory(on_postgres)
    engine = get_engine(sessions)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE result")
    with (
        pytest.raises(DatabaseError, match="`flask db upgrade`"),
        read_session(sessions) as session,
    ):
        session.scalars(select(UploadResult)).all()
    engine.dispose()
