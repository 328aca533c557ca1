"""Applies a list of corrections: makes a new folder of links, and the first one back from it.

Nothing in the photographs' own folder is changed. The new folder holds a symbolic link for each
photograph, and the file `corrections.json`, which says what was moved and what was left out.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from app.review.corrections import CorrectionError, ListedCorrection
from index.vectors import compute_file_sha256
from model.dataset.folder import CLASSES_FILE, scan_photographs
from storage.files import make_links, temporary_path

RECORD_FILE = "corrections.json"
SPLITS = ("train", "val")
Links = dict[str, Path]
"""The photograph that each path of a folder leads to."""


@dataclass(frozen=True, kw_only=True)
class AppliedCorrections:
    """What was applied: photographs in the new folder, moved and left out, and emptied classes.

    moved: new path by old. dropped: the photograph by its old path.
    """

    photographs: int
    moved: dict[str, str]
    dropped: dict[str, str]
    emptied: list[str]


def apply_corrections(
    corrections: Sequence[ListedCorrection], data: Path, target: Path
) -> AppliedCorrections:
    """Make `target` a folder of links to the photographs in `data`, corrected.

    Raises CorrectionError if a photograph of the list is gone or has changed since it was reviewed,
    or `target` exists or cannot be written; FolderError if `data` holds no photographs.
    """
    links = list_links(data)
    before = {str(PurePosixPath(path).parent) for path in links}
    moved: dict[str, str] = {}
    dropped: dict[str, str] = {}
    wanted = [one for one in corrections if one.action != "note"]
    for one in wanted:
        check_unchanged(one, links, data)
    taken = {one.file: links.pop(one.file) for one in wanted}
    for one in wanted:
        photograph = taken[one.file]
        if one.action == "drop":
            dropped[one.file] = str(photograph)
        else:
            path = choose_free_path(move_to_class(one.file, one.label, one.to), links)
            moved[one.file], links[path] = path, photograph
    emptied = sorted(before - {str(PurePosixPath(path).parent) for path in links})
    applied = AppliedCorrections(
        photographs=len(links), moved=moved, dropped=dropped, emptied=emptied
    )
    write_links(links, data, target, json.dumps(asdict(applied), indent=2, ensure_ascii=False))
    return applied


def revert_corrections(corrected: Path, target: Path) -> int:
    """Make `target` the folder of links that `corrected` was before its corrections.

    Returns the number of photographs. Raises CorrectionError and FolderError.
    """
    record = corrected / RECORD_FILE
    try:
        stored = json.loads(record.read_text(encoding="utf-8"))
        moved, dropped = dict(stored["moved"]), dict(stored["dropped"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorrectionError(
            f"{corrected} was not made by `flask data apply`: {record} cannot be read ({error})"
        ) from error
    links = list_links(corrected)
    missing = [path for path in moved.values() if path not in links]
    if missing:
        raise CorrectionError(f"{corrected / missing[0]} is gone, so it cannot be moved back")
    back = {old: links.pop(new) for old, new in moved.items()}
    links |= back | {old: Path(photograph) for old, photograph in dropped.items()}
    write_links(links, corrected, target, None)
    return len(links)


def list_links(data: Path) -> Links:
    """List the photographs of a folder by their paths in it. Raises FolderError."""
    folder = scan_photographs(data)
    return {p.path: (folder.root / p.path).resolve() for p in (*folder.train, *folder.val)}


def check_unchanged(one: ListedCorrection, links: Links, data: Path) -> None:
    """Raise CorrectionError unless a correction's photograph is what was reviewed."""
    if one.file not in links:
        raise CorrectionError(f"{data / one.file} is on the list, but not in the folder")
    try:
        sha256 = compute_file_sha256(links[one.file])
    except OSError as error:
        raise CorrectionError(f"{data / one.file} cannot be read: {error.strerror}") from error
    if sha256 != one.sha256:
        raise CorrectionError(
            f"{data / one.file} has changed since it was reviewed; build the index again, review "
            "it, and export the list anew"
        )


def move_to_class(path: str, label: str, to: str) -> str:
    """Return a photograph's path in the folder of another class.

    In train/<class>/… and val/<class>/… the class's folder is replaced; in any other arrangement
    the photograph moves into the folder of that name.
    """
    for split in SPLITS:
        start = f"{split}/{label}/"
        if path.startswith(start):
            return f"{split}/{to}/{path.removeprefix(start)}"
    return f"{to}/{PurePosixPath(path).name}"


def choose_free_path(path: str, links: Links) -> str:
    """Return the path, with a number before its suffix if it is taken."""
    where, number, free = PurePosixPath(path), 1, path
    while free in links:
        number += 1
        free = str(where.with_name(f"{where.stem}-{number}{where.suffix}"))
    return free


def write_links(links: Links, data: Path, target: Path, record: str | None) -> None:
    """Make a folder of links, complete or not at all. Raises CorrectionError."""
    target = target.absolute()
    if target.exists():
        raise CorrectionError(f"{target} exists; name a folder that does not")
    if target.resolve().is_relative_to(data.resolve()):
        raise CorrectionError(f"{target} lies in {data}, which must stay as it is; name another")
    part = temporary_path(target)
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        make_links(part, links)
        if (data / CLASSES_FILE).exists():
            (part / CLASSES_FILE).symlink_to((data / CLASSES_FILE).resolve())
        if record is not None:
            (part / RECORD_FILE).write_text(record + "\n", encoding="utf-8")
        part.rename(target)
    except OSError as error:
        raise CorrectionError(f"{target} cannot be made: {error.strerror or error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
