"""What is promised after a kill, and after the next run of the same command."""

import re

from app.database.session import DatabaseError
from app.indexing.verify import verify_version
from experiments.commands import BrokenError, Command, Scene, contents
from experiments.photographs import Photographs
from index import store
from index.building.checkpoint import BuildCheckpoint
from index.building.file_list import FILE_LIST, FileEntry, read_file_list
from index.manifest import StoreError, read_manifest
from index.vectors import DTYPES


def check_served(command: Command, scene: Scene, photographs: Photographs) -> str:
    """See that what is served may be, and verifies: none, before or new. Raises BrokenError."""
    served, whole = scene.served, store.list_versions(scene.root)
    new = set(whole) - set(command.versions)
    if len(new) > command.makes:
        raise BrokenError(f"{command.label} left {len(new)} new versions")
    if served == command.before:
        name = "before" if served else "none"
    elif served in (new if command.makes else command.words[1:]) and command.name != "prune":
        name = "new"
    else:
        raise BrokenError(f"{command.label}: {served} is served, and before it {command.before}")
    for version in whole:
        try:
            store.check_version(scene.root, version)
        except StoreError as error:
            raise BrokenError(
                f"{command.label} left a version that is not whole: {error}"
            ) from error
    verify_served(scene, photographs)
    return name


def verify_served(scene: Scene, photographs: Photographs) -> None:
    """See that what is served verifies, the files too when they are those. Raises BrokenError."""
    if scene.served is None:
        return
    same = read_manifest(scene.root / scene.served).listing == photographs.listing
    try:
        found = verify_version(
            scene.settings, scene.sessions, lambda *_: lambda _: None, scene.served, files=same
        )
    except (StoreError, DatabaseError) as error:
        raise BrokenError(f"{scene.served} cannot be verified: {error}") from error
    if found.problems:
        raise BrokenError(f"{scene.served} does not verify: {'; '.join(found.problems)}")


def vectors_left(command: Command, scene: Scene) -> set[tuple[str, str]]:
    """Files, by path and content, that are new and whose vectors the dead process finished."""
    found: set[tuple[str, str]] = set()
    for folder in scene.root.glob(".work-*"):
        for dtype in DTYPES:
            pieces = BuildCheckpoint(folder, dtype).list_segments()
            pairs = [pair for p in pieces for pair in zip(p.files, p.rows, strict=True)]
            found |= {
                (e.path, e.sha256) for e, row in pairs if isinstance(e, FileEntry) and row >= 0
            }
    return found - list_files(scene, command.before) if command.name == "update" else found


def list_files(scene: Scene, version: str | None) -> set[tuple[str, str]]:
    """Files of a version, by path and content; none without a version."""
    if not version:
        return set()
    entries, _ = read_file_list(scene.root / version / FILE_LIST)
    return {(entry.path, entry.sha256) for entry in entries}


def read_count(said: str, what: str) -> int:
    """Read a number from what a command said, such as that of "30 unchanged"."""
    found = re.search(rf"([\d,]+) {what}", said)
    return int(found[1].replace(",", "")) if found else 0


def check_next(
    command: Command, scene: Scene, photographs: Photographs, said: str, finished: int
) -> int:
    """See that the same command did its work; the vectors it saved. Raises BrokenError."""
    whole, names = store.list_versions(scene.root), contents(scene.root)
    hidden = [name for name in names if name.startswith(".") and name != store.LOCK_FILE]
    if hidden:
        raise BrokenError(f"{command.label}, done again, leaves {', '.join(hidden)}")
    if len(whole) > command.kept:
        raise BrokenError(f"{command.label}, done again, leaves {len(whole)} versions")
    if scene.listed() != set(whole):
        raise BrokenError(f"The database lists {sorted(scene.listed())}, and there are {whole}")
    if command.name == "rollback" and scene.served != command.words[1]:
        raise BrokenError(f"{scene.served} is served after a rollback to {command.words[1]}")
    if command.name == "prune" and scene.served != command.before:
        raise BrokenError(f"{scene.served} is served after a prune, {command.before} was")
    verify_served(scene, photographs)
    if not command.makes:
        return 0
    manifest = read_manifest(scene.root / str(scene.served))
    if (manifest.listing, manifest.images) != (photographs.listing, photographs.count):
        raise BrokenError(
            f"{manifest.name} holds {manifest.images} images, not those of the folder"
        )
    # A version that was whole but not yet served has them, too: its images are unchanged then.
    kept = list_files(scene, command.before) & list_files(scene, scene.served)
    saved = read_count(said, "vectors reused")
    saved += max(0, read_count(said, "unchanged") - len(kept))
    if saved < finished:
        raise BrokenError(
            f"{command.label}, done again, took {saved} of {finished} finished vectors"
        )
    return saved
