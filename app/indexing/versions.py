"""The versions of the index: which is served, going back to one, deleting what is too old.

Files and database change together: a version that the database does not list is never kept, and
one that is deleted is forgotten there.
"""

from collections.abc import Iterable
from contextlib import suppress

from app.config import Settings
from app.database.images import find_version, list_version_names
from app.database.ingest import forget_versions
from app.database.session import DatabaseError, Sessions, upgrade_database
from index import store
from index.building.distributed import is_first
from index.engines import milvus_collections
from index.engines.protocol import SearchError
from index.manifest import StoreError, read_manifest
from index.store import Manifest
from model.checkpoint import load_weights


def prepare_database(settings: Settings) -> None:
    """Make or migrate the tables; of several processes the first does."""
    if is_first():
        upgrade_database(settings)


def manifest_in_use(settings: Settings, sessions: Sessions) -> Manifest | None:
    """The manifest of what is served, when that is whole and the database knows it."""
    root = settings.home.index
    try:
        name = store.current_version(root)
        manifest = store.check_version(root, name) if name else None
        return manifest if manifest and find_version(sessions, manifest.name) else None
    except StoreError:
        return None
    except DatabaseError:
        # Beside the first process, which makes the tables, there may be none yet.
        if is_first():
            raise
        return None


def rollback_version(settings: Settings, sessions: Sessions, name: str | None) -> Manifest:
    """Serve an earlier version again: the one of that name, or the one before that served.

    Raises StoreError where there is none, it is damaged, of other weights than those in use, or
    unknown to the database; WeightsError and DatabaseError.
    """
    root = settings.home.index
    with store.build_lock(root):
        found = read_manifest(root / store.find_earlier(root, name))
        if found.weights != load_weights(settings.home.weights).identity:
            raise StoreError(
                f"Version {found.name} is of other weights than those in use, and would answer "
                f"nothing; point {settings.home.weights} to the weights {found.weights[:8]} first"
            )
        if find_version(sessions, found.name) is None:
            raise StoreError(f"The database does not know version {found.name} any more")
        store.publish(root, found.name)
    return found


def prune_versions(
    settings: Settings, sessions: Sessions, keep: int
) -> tuple[list[str], list[str]]:
    """Delete all versions but `keep`, the served one among them; those kept, those deleted."""
    with store.build_lock(settings.home.index):
        return discard_versions(settings, sessions, keep)


def discard_versions(
    settings: Settings, sessions: Sessions, keep: int
) -> tuple[list[str], list[str]]:
    """As `prune`, for who holds the right to build."""
    kept, gone = store.prune_versions(settings.home.index, keep, list_version_names(sessions))
    forget_versions(sessions, kept)
    drop_collections(settings, gone)
    return kept, gone


def drop_collections(settings: Settings, names: Iterable[str]) -> None:
    """Drop what lies in Milvus of versions; what cannot be dropped now stays there unused."""
    if settings.index_url:
        with suppress(SearchError):
            milvus_collections.drop_collections(settings.index_url, names)
