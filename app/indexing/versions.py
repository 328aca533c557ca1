"""Versions of the index: which is in service, rolling back, deleting old ones.

Files and database change together: a version that the database does not list is never kept, and
a deleted version's list of images is removed from the database.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from app.config import Settings
from app.database.images import find_version, list_version_names
from app.database.ingest import forget_versions
from app.database.session import DatabaseError, Sessions, upgrade_database
from app.inference.served_weights import (
    LostWeightsError,
    find_weights_of_version,
    load_servable,
)
from app.inference.switch_weights import publish_pair
from index import store
from index.building.distributed import is_first
from index.engines import milvus_collections
from index.engines.protocol import SearchError
from index.manifest import StoreError, read_manifest
from index.store import Manifest
from model.predict import Predictor
from model.runtime.prepared import open_predictor
from storage.home import Home


def prepare_database(settings: Settings) -> None:
    """Create or migrate the tables; of several processes only the first does."""
    if is_first():
        upgrade_database(settings)


def read_manifest_in_use(settings: Settings, sessions: Sessions) -> Manifest | None:
    """Return the manifest of the version in service if it is complete and the database lists it."""
    try:
        name = store.read_current_version(settings.home.index)
    except StoreError:
        return None
    return read_usable_manifest(name, lambda _: True, settings, sessions) if name else None


def find_version_built_as(
    is_wanted: Callable[[Manifest], bool], settings: Settings, sessions: Sessions
) -> Manifest | None:
    """Return the newest version for which `is_wanted`, if it is complete and in the database.

    The version in service comes before the others. Raises DatabaseError.
    """
    root = settings.home.index
    with suppress(StoreError):
        names = store.list_versions(root)
        names.sort(key=lambda name: (name == store.read_current_version(root), name))
        for name in reversed(names):
            if manifest := read_usable_manifest(name, is_wanted, settings, sessions):
                return manifest
    return None


def read_usable_manifest(
    name: str, is_wanted: Callable[[Manifest], bool], settings: Settings, sessions: Sessions
) -> Manifest | None:
    """Return a version's manifest if it is wanted, complete and in the database, else None."""
    root = settings.home.index
    try:
        if not is_wanted(read_manifest(root / name)):
            return None
        manifest = store.check_version(root, name)
        return manifest if find_version(sessions, name) else None
    except StoreError:
        return None
    except DatabaseError:
        # The first process creates the tables; there may be none yet.
        if is_first():
            raise
        return None


def publish_found_version(root: Path, manifest: Manifest) -> None:
    """Put a complete version into service unless it is. Raises StoreError if a build is running."""
    if is_first() and store.read_current_version(root) != manifest.name:
        with store.acquire_build_lock(root):
            store.publish_version(root, manifest.name)


def rollback_version(settings: Settings, sessions: Sessions, name: str | None) -> Manifest:
    """Put an earlier version into service again, with its weights: the named one, or the last.

    Its weights are selected too, so that the next build indexes them. Raises StoreError if there is
    none, if it is damaged or not in the database, or if its weights are lost; WeightsError and
    DatabaseError.
    """
    home = settings.home
    with store.acquire_build_lock(home.index):
        found = read_manifest(home.index / store.find_earlier_version(home.index, name))
        file = find_weights_or_fail(home, found)
        if load_servable(file).identity != found.weights:
            raise StoreError(f"{file} does not hold the weights that its header names")
        if find_version(sessions, found.name) is None:
            raise StoreError(f"The database no longer lists version {found.name}")
        try:
            publish_pair(home, file, found.name)
        except OSError as error:
            raise StoreError(f"{home.weights} cannot be switched: {error.strerror}") from error
    return found


def find_weights_or_fail(home: Home, manifest: Manifest) -> Path:
    """Find the file of the weights that a version was built with. Raises StoreError."""
    try:
        return find_weights_of_version(home, manifest)
    except LostWeightsError as error:
        raise StoreError(f"Version {manifest.name} has lost its weights: {error}") from error


def open_version_predictor(settings: Settings, manifest: Manifest) -> Predictor:
    """Open the network that a version was built with, as the server computes it.

    Raises StoreError if its weights are lost, and WeightsError.
    """
    file, folder = find_weights_or_fail(settings.home, manifest), settings.home.runtimes
    return open_predictor(file, settings.device, settings.runtime, folder, load_servable)


def prune_versions(
    settings: Settings, sessions: Sessions, keep: int
) -> tuple[list[str], list[str]]:
    """Delete all but `keep` versions, never the one in service; return those kept and deleted."""
    with store.acquire_build_lock(settings.home.index):
        return discard_versions(settings, sessions, keep, foreign=True)


def discard_versions(
    settings: Settings, sessions: Sessions, keep: int, *, foreign: bool = False
) -> tuple[list[str], list[str]]:
    """As `prune_versions`, for a caller that holds the build lock.

    foreign: whether versions go too that were in service and that the database does not list.
    """
    known = list_version_names(sessions)
    kept, gone = store.delete_old_versions(settings.home.index, keep, known)
    if foreign:
        unlisted = set(store.list_versions(settings.home.index)) - set(kept)
        for name in sorted(unlisted):
            store.delete_version(settings.home.index, name)
        gone = sorted([*gone, *unlisted])
    forget_versions(sessions, kept)
    drop_milvus_collections(settings, gone)
    return kept, gone


def drop_milvus_collections(settings: Settings, names: Iterable[str]) -> None:
    """Drop the versions' collections in Milvus; one that cannot be dropped now stays unused."""
    if settings.index_url:
        with suppress(SearchError):
            milvus_collections.drop_collections(settings.index_url, names)
