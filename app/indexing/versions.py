"""Versions of the index: which is in service, rolling back, deleting old ones.

Files and database change together: a version that the database does not list is never kept, and
a deleted version's list of images is removed from the database.
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
    """Create or migrate the tables; of several processes only the first does."""
    if is_first():
        upgrade_database(settings)


def read_manifest_in_use(settings: Settings, sessions: Sessions) -> Manifest | None:
    """Return the manifest of the version in service if it is complete and the database lists it."""
    root = settings.home.index
    try:
        name = store.read_current_version(root)
        manifest = store.check_version(root, name) if name else None
        return manifest if manifest and find_version(sessions, manifest.name) else None
    except StoreError:
        return None
    except DatabaseError:
        # The first process creates the tables; there may be none yet.
        if is_first():
            raise
        return None


def rollback_version(settings: Settings, sessions: Sessions, name: str | None) -> Manifest:
    """Publish an earlier version again: the named one, or the one before the version in service.

    Raises StoreError if there is none, if it is damaged, was built with different weights than
    those in use, or is not in the database; WeightsError and DatabaseError.
    """
    root = settings.home.index
    with store.acquire_build_lock(root):
        found = read_manifest(root / store.find_earlier_version(root, name))
        if found.weights != load_weights(settings.home.weights).identity:
            raise StoreError(
                f"Version {found.name} was built with different weights than those in use and "
                f"could not be served; point {settings.home.weights} to the weights "
                f"{found.weights[:8]} first"
            )
        if find_version(sessions, found.name) is None:
            raise StoreError(f"The database no longer lists version {found.name}")
        store.publish_version(root, found.name)
    return found


def prune_versions(
    settings: Settings, sessions: Sessions, keep: int
) -> tuple[list[str], list[str]]:
    """Delete all but `keep` versions, never the one in service; return those kept and deleted."""
    with store.acquire_build_lock(settings.home.index):
        return discard_versions(settings, sessions, keep)


def discard_versions(
    settings: Settings, sessions: Sessions, keep: int
) -> tuple[list[str], list[str]]:
    """As `prune_versions`, for a caller that holds the build lock."""
    kept, gone = store.delete_old_versions(settings.home.index, keep, list_version_names(sessions))
    forget_versions(sessions, kept)
    drop_milvus_collections(settings, gone)
    return kept, gone


def drop_milvus_collections(settings: Settings, names: Iterable[str]) -> None:
    """Drop the versions' collections in Milvus; one that cannot be dropped now stays unused."""
    if settings.index_url:
        with suppress(SearchError):
            milvus_collections.drop_collections(settings.index_url, names)
