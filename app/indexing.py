"""The build of an index from beginning to end: weights → files → features → a version served."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app.catalogue import version
from app.config import Settings
from app.db import Sessions, upgrade
from app.engine import servable
from app.registration import (
    Registration,
    Unreadable,
    forget_versions,
    record_version,
    register,
    shown,
)
from index import store
from index.build import Features, compute_features
from index.store import Manifest, StoreError
from model.checkpoint import Weights, load
from model.photographs import Folder, FolderError, digest, scan
from model.predict import Predictor

Step = Callable[[str, int], Callable[[int], None]]
"""Begins a step, by its name and how many files it has; what it gives is told how many are done."""


@dataclass(frozen=True, kw_only=True)
class Built:
    """An index version that is served now, or was before when `fresh` is false."""

    manifest: Manifest
    unreadable: list[Unreadable]
    seconds: float
    """Time the features took, decoding included."""
    fresh: bool


def build(settings: Settings, sessions: Sessions, step: Step, *, if_needed: bool = False) -> Built:
    """Index the training set of the weights in use, and serve that from now on.

    With `if_needed` nothing is done when the index served was made by these weights from the
    files as they are. Whatever happens before the switch, what was served before still is.

    Raises WeightsError, FolderError, StoreError and DatabaseError.
    """
    weights = servable(load(settings.home.weights))
    folder = training_folder(weights)
    listing = digest(folder.root, folder.train)
    upgrade(settings)
    with store.building(settings.home.index):
        served = manifest_in_use(settings, sessions)
        if if_needed and served and fits(served, weights, folder, listing):
            return Built(manifest=served, unreadable=[], seconds=0, fresh=False)
        registration = register(
            sessions, folder, step("Reading the training images", len(folder.train))
        )
        began = time.perf_counter()
        computed = compute_features(
            Predictor.from_weights(weights, settings.device),
            registration.items,
            on_progress=step("Computing their features", len(registration.items)),
        )
        seconds = time.perf_counter() - began
        unreadable = registration.unreadable + left_out(computed, folder)
        manifest = serve(settings, sessions, weights, folder, listing, registration, computed)
        return Built(manifest=manifest, unreadable=unreadable, seconds=seconds, fresh=True)


def training_folder(weights: Weights) -> Folder:
    """The photographs the weights were trained on. Raises FolderError."""
    try:
        return scan(Path(weights.provenance.data))
    except FolderError as error:
        raise FolderError(
            f"The weights were trained on a folder that cannot be indexed: {error}. Put it back, "
            "or train on another with `python training/run.py --data DIR`"
        ) from error


def manifest_in_use(settings: Settings, sessions: Sessions) -> Manifest | None:
    """The manifest of what is served, when that is whole and the database knows it."""
    root = settings.home.index
    try:
        name = store.current_name(root)
        manifest = store.check_version(root, name) if name else None
    except StoreError:
        return None
    return manifest if manifest and version(sessions, manifest.name) else None


def fits(manifest: Manifest, weights: Weights, folder: Folder, listing: str) -> bool:
    """Whether an index was made by these weights from the files as they are."""
    wanted = (weights.identity, str(folder.root), listing)
    return (manifest.weights, manifest.data, manifest.listing) == wanted


def serve(
    settings: Settings,
    sessions: Sessions,
    weights: Weights,
    folder: Folder,
    listing: str,
    registration: Registration,
    computed: Features,
) -> Manifest:
    """Write the version, enter it in the database, switch to it, and delete what is too old.

    The database comes first, so that whoever sees the new version finds its images.
    """
    root = settings.home.index
    manifest = store.write_version(
        root,
        weights=weights.identity,
        data=str(folder.root),
        unreadable=len(registration.unreadable) + len(computed.unreadable),
        listing=listing,
        ids=computed.ids,
        features=computed.features,
    )
    try:
        record_version(sessions, manifest, registration.dataset_id, computed.ids.tolist())
        store.publish(root, manifest.name)
    finally:
        kept = store.prune(root)
    forget_versions(sessions, kept)
    return manifest


def left_out(computed: Features, folder: Folder) -> list[Unreadable]:
    """The files that could not be decoded, by their path from the root."""
    return [
        Unreadable(path=shown(path.relative_to(folder.root).as_posix()), reason=reason)
        for _, path, reason in computed.unreadable
    ]
