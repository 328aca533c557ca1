"""The weights files found on disk: what each says of itself, and which is in use."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from app.database import images as catalogue
from app.database.session import Sessions
from index import store
from index.manifest import StoreError, read_manifest
from model.checkpoint import Header, WeightsError, read_header
from model.preprocess import SIDE
from storage.home import Home
from storage.runs import Run, RunFolder, datetime_from_timestamp, read_run_folder, recency
from storage.tolerant_json import (
    bounded_text,
    file_size,
    fraction,
    list_folders,
    modification_time,
    natural_number,
)

ELSEWHERE = "elsewhere"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a file's header says; None where it does not say.

    data: the name of the folder trained on. images: of its training set. top1, top5, ten1, ten5:
    errors on its validation images, from the centre crop and from ten, 0–1.
    """

    identity: str
    preset: str
    data: str
    images: int | None
    epochs: int | None
    classes: int
    top1: float | None
    top5: float | None
    ten1: float | None
    ten5: float | None


@dataclass(frozen=True, kw_only=True)
class Model:
    """A weights file.

    key: names it in forms, its path from the home. run: the name of its run, or empty. kind:
    "result", "best epoch", or "elsewhere" for a file outside the runs that the link points to.
    active: whether the link points to it. bytes: of the file. unfinished: whether its run has not
    ended, and may exchange it. facts: None where the file is damaged; then wrong says how.
    """

    key: str
    file: Path
    run: str
    kind: str
    active: bool
    bytes: int
    written: datetime | None
    unfinished: bool
    facts: Facts | None
    wrong: str


def read_models(home: Home) -> list[Model]:
    """Every weights file found, those of the newest runs first; at most one is active."""
    found, active = list(in_runs(home)), target(home)
    if active is None:
        return found
    # Two folders may be links to one.
    used = next((model.key for model in found if resolved(model.file) == active), None)
    if used is None:
        return [replace(read(home.weights.name, active, ELSEWHERE, "", None), active=True), *found]
    return [replace(model, active=model.key == used) for model in found]


def find(home: Home, key: str) -> Model | None:
    """The file of that key, or None where none of those found has it."""
    return next((model for model in read_models(home) if model.key == key), None)


def fitting(home: Home, sessions: Sessions) -> dict[str, str]:
    """The newest index version made by each weights: its name by their identity.

    Of those on disk that the database knows. Raises DatabaseError.
    """
    found: dict[str, str] = {}
    names = store.list_versions(home.index)
    known = catalogue.version_names(sessions) if names else set()
    for name in names:
        try:
            manifest = read_manifest(home.index / name)
        except StoreError:
            continue
        if name in known:
            found[manifest.weights] = name
    return found


def target(home: Home) -> Path | None:
    """The file that the link to the weights in use leads to; None where it leads nowhere."""
    file = resolved(home.weights)
    return file if file and file_size(file) is not None else None


def resolved(path: Path) -> Path | None:
    """Where a path leads, all links followed."""
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError):
        return None


def in_runs(home: Home) -> Iterator[Model]:
    """The files in the folders of runs; folders of which nothing else is known come last."""
    known = [
        (name, folder, read_run_folder(name, folder))
        for name, folder in list_folders(home.runs).items()
    ]
    known.sort(key=lambda one: recency(one[2]) if one[2] else (0.0, one[0]), reverse=True)
    for name, folder, run in known:
        files = RunFolder(folder)
        for file, kind in ((files.weights, "result"), (files.best, "best epoch")):
            if file_size(file) is not None:
                yield read(f"{home.runs.name}/{name}/{file.name}", file, kind, name, run)


def read(key: str, file: Path, kind: str, name: str, run: Run | None) -> Model:
    """Read what a file says of itself, as one that is not active."""
    facts, wrong = understood(file, run)
    return Model(
        key=key,
        file=file,
        run=name,
        kind=kind,
        active=False,
        bytes=file_size(file) or 0,
        written=datetime_from_timestamp(modification_time(file)),
        unfinished=run is not None and not run.finished,
        facts=facts,
        wrong=wrong,
    )


def understood(file: Path, run: Run | None) -> tuple[Facts | None, str]:
    """Read a file's header; give its facts, or what is wrong with it."""
    try:
        header = read_header(file)
    except WeightsError as error:
        # Where it lies on the server is nobody's business.
        return None, f"{str(error).replace(str(file), 'This file')}."
    except OSError as error:
        return None, f"This file cannot be read: {error.strerror or type(error).__name__}."
    facts, side = facts_of(header), header.config.side
    if side != SIDE:
        return facts, f"Its net sees {side} × {side} pixels; the pages need {SIDE} × {SIDE}."
    if not facts.identity and run and file == run.folder.weights:
        return replace(facts, identity=run.weights), ""
    return facts, ""


def facts_of(header: Header) -> Facts:
    """Take from a header what can be shown."""
    told = header.provenance
    return Facts(
        identity=bounded_text(header.identity),
        preset=bounded_text(told.preset),
        data=Path(bounded_text(told.data)).name,
        images=natural_number(told.images),
        epochs=natural_number(told.epochs),
        classes=len(header.classes),
        top1=fraction(told.top1_error),
        top5=fraction(told.top5_error),
        ten1=fraction(told.ten_crop_top1_error),
        ten5=fraction(told.ten_crop_top5_error),
    )
