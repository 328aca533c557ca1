"""Makes the tables of a home that has weights and no index yet.

Else `flask index build` and `flask db upgrade` make them. Tables that exist, of whatever revision,
are never touched here, and no empty database takes the place of one that is lost.
"""

from pathlib import Path

from sqlalchemy import inspect

from app.config import Settings
from app.database.session import (
    Sessions,
    get_engine,
    translate_database_errors,
    upgrade_database,
)
from index import store
from storage.files import lock_file

LOCK_FILE = ".tables.lock"


def make_first_tables(settings: Settings, sessions: Sessions) -> None:
    """Make the tables if this home is new. Raises DatabaseError and OSError."""
    if needs_first_tables(settings, sessions):
        with lock_file(settings.home.root / LOCK_FILE):
            if needs_first_tables(settings, sessions):
                upgrade_database(settings)


def needs_first_tables(settings: Settings, sessions: Sessions) -> bool:
    """Whether there is nothing yet that a database belongs to, and none. Raises DatabaseError."""
    home = settings.home
    if store.list_versions(home.index) or any(home.uploads.glob("*.jpg*")):
        return False
    url = settings.database
    if url.drivername == "sqlite" and not Path(url.database or "").exists():
        return True
    with translate_database_errors(sessions):
        return not inspect(get_engine(sessions)).get_table_names()
