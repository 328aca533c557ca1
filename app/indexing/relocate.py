"""Points index versions to photographs that were moved: `flask index relocate DIR`."""

from dataclasses import dataclass, replace
from pathlib import Path

from app.config import Settings
from app.database.images import find_version
from app.database.ingest import move_dataset, refuse_known_folder
from app.database.session import Sessions
from app.indexing.verify import choose_version, find_changed_files
from index import store
from index.building.file_list import FILE_LIST, read_file_list
from index.manifest import StoreError, read_manifest, write_manifest
from model.dataset.folder import digest_listing, scan_photographs
from storage.moved_folders import record_moved_folder
from storage.progress import Report


@dataclass(frozen=True, kw_only=True)
class Relocation:
    """What was done. images: those found again; versions: that now point to the new folder."""

    old: Path
    new: Path
    images: int
    versions: list[str]


def relocate_index(
    settings: Settings, sessions: Sessions, report: Report, folder: Path
) -> Relocation:
    """Point the version in service, and those built from the same folder, to where it is now.

    Every indexed photograph must be there with the same content; nothing is computed again. Killed
    at any moment, it is completed by doing it again: the database, by which pictures are found,
    comes last.

    Raises StoreError if photographs are missing or changed, FolderError and DatabaseError.
    """
    home = settings.home
    with store.acquire_build_lock(home.index):
        name = choose_version(home.index, None)
        manifest = read_manifest(home.index / name)
        version = find_version(sessions, name)
        if version is None:
            raise StoreError(f"The database does not list {name}; run `flask index build`")
        moved = scan_photographs(folder)
        old, new = version.root, moved.root
        if old == new:
            raise StoreError(f"The index already points to {new}")
        refuse_known_folder(sessions, new)
        entries, _ = read_file_list(home.index / name / FILE_LIST)
        if wrong := find_changed_files(new, entries, report):
            more = f", and {len(wrong) - 1:,} more" if len(wrong) > 1 else ""
            raise StoreError(
                f"{new} does not hold the photographs of {old}, and nothing was changed: "
                f"{wrong[0]}{more}. If they are to be replaced, run `flask index build --data "
                f"{new}`"
            )
        if len(moved.train) == manifest.images + manifest.unreadable:
            # Times of files change with a move: without this, a build would seem to be due.
            manifest = replace(manifest, listing=digest_listing(new, moved.train))
        others = (read_manifest(home.index / each) for each in store.list_versions(home.index))
        changed = [manifest, *(m for m in others if m.name != name and m.data == str(old))]
        for each in changed:
            write_manifest(replace(each, data=str(new)), home.index / each.name)
        record_moved_folder(home, old, new)
        move_dataset(sessions, old, new)
    versions = sorted(each.name for each in changed)
    return Relocation(old=old, new=new, images=len(entries), versions=versions)
