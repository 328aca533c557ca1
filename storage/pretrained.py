"""The run that ships with the project, and its copy among the runs in ALEXNET_HOME.

`training/ship.py` makes the folder `SHIPPED` of a finished run. A copy of the project without it
works too: then `make demo` trains from random weights.
"""

import filecmp
import os
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from storage.evaluation_files import MAX_BYTES, parse_time
from storage.evaluations import write_json
from storage.files import fsync, lock_file, write_atomically
from storage.home import Home
from storage.moved_folders import find_moved_folder
from storage.runs import RunFolder
from storage.tolerant_json import bounded_text, read_json_object

PRETRAINED_DATA = "imagenette"
"""What its weights were trained on, as `--data` names it."""
SHIPPED = RunFolder(Path(__file__).resolve().parents[1] / "model/pretrained" / PRETRAINED_DATA)
"""Where it lies in the project."""
PRETRAINED_RUN = f"pretrained-{PRETRAINED_DATA}"
"""The name of its copy among the runs."""
EVALUATION_FILE, MEASUREMENTS_FILE = "evaluation.json", "measurements.json"
CONV1_FILE, CARD_FILE = "conv1.png", "README.md"
"""Files that it has beside those of any run: the evaluation of its weights, what was measured of
their file, the picture of their conv1, and the model card, which says all of this in words."""
MARKER_TEXT = f"""The run {PRETRAINED_RUN} was copied here once. If it is deleted, it stays deleted
until `make demo` asks for it; delete this file to get it back when the server starts.
"""


def install_pretrained(
    home: Home, *, shipped: RunFolder = SHIPPED, restore: bool = True
) -> RunFolder | None:
    """Copy the run that ships into the home, unless it is there already; return the copy.

    A copy that differs from what ships is replaced. restore: also copy it again if somebody has
    deleted it; otherwise it stays deleted. None if nothing ships with this copy of the project, or
    the run stays deleted. If several processes call this, one copies and the others wait. Raises
    OSError.
    """
    run = RunFolder(home.runs / PRETRAINED_RUN)
    if not shipped.weights.exists():
        return run if run.weights.exists() else None
    home.runs.mkdir(parents=True, exist_ok=True)
    hidden = home.runs / f".{PRETRAINED_RUN}"
    with lock_file(hidden.with_suffix(".lock")):
        marker = hidden.with_suffix(".txt")
        if marker.exists() and not run.path.exists() and not restore:
            return None
        if not (marker.exists() and is_same_folder(shipped.path, run.path)):
            copy_run(shipped, run, hidden)
            install_evaluation(shipped, home)
            # Last: without it, a copy that was interrupted is made again.
            write_atomically(marker, MARKER_TEXT)
    return run


def keep_uninstalled(home: Home) -> None:
    """Mark the run as deleted from a home, so that a server does not copy it there."""
    home.runs.mkdir(parents=True, exist_ok=True)
    write_atomically(home.runs / f".{PRETRAINED_RUN}.txt", MARKER_TEXT)


def find_training_folder(data: str, home: Home) -> Path | None:
    """Return the folder of photographs that weights were trained on, or None if it is not here.

    data: as a weights file names it: a folder of this machine, or a set of photographs.
    """
    if data == PRETRAINED_DATA and home.imagenette.is_dir():
        return home.imagenette
    return find_moved_folder(home, Path(data)) if Path(data).is_absolute() else None


def is_same_folder(source: Path, copy: Path) -> bool:
    """Return whether a folder holds every file of another one, with the same content."""
    files = [file.relative_to(source) for file in list_files(source)]
    return all(
        (copy / file).is_file() and filecmp.cmp(source / file, copy / file, shallow=False)
        for file in files
    )


def list_files(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and below."""
    return (path for path in folder.rglob("*") if path.is_file())


def copy_run(shipped: RunFolder, run: RunFolder, hidden: Path) -> None:
    """Copy a run to a hidden folder, then rename it into place. The caller holds the lock.

    Files and folders get the time at which the weights were made, so that pages do not call the run
    new.
    """
    part, old = hidden.with_suffix(".part"), hidden.with_suffix(".old")
    for rest in (part, old):
        shutil.rmtree(rest, ignore_errors=True)
    shutil.copytree(shipped.path, part, copy_function=shutil.copyfile)
    created = read_creation_time(shipped)
    for path in (*part.rglob("*"), part):
        if created:
            os.utime(path, (created.timestamp(),) * 2)
        fsync(path)
    hidden.with_suffix(".txt").unlink(missing_ok=True)
    if run.path.exists():
        run.path.rename(old)
    part.rename(run.path)
    fsync(run.path.parent)
    shutil.rmtree(old, ignore_errors=True)


def install_evaluation(shipped: RunFolder, home: Home) -> None:
    """Copy the evaluation of the run's weights to where the pages look for it."""
    content = read_json_object(shipped.path / EVALUATION_FILE, MAX_BYTES)
    created = parse_time(bounded_text(content.get("created")))
    if created is None:
        return
    home.evaluations.mkdir(exist_ok=True)
    file = home.evaluations / f"{created:%Y%m%d-%H%M%S}-{PRETRAINED_RUN}.json"
    # Where the photographs of its mistakes lie once they have been downloaded.
    write_json(file, content | {"root": str(home.imagenette)})


def read_creation_time(run: RunFolder) -> datetime | None:
    """Return when a shipped run's weights were made, in UTC; None if it does not say."""
    content = read_json_object(run.description, MAX_BYTES)
    return parse_time(bounded_text(content.get("created")))
