"""The weights files on disk: what the header of each says, and which is selected."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from app.database.images import list_version_names
from app.database.session import Sessions
from index import store
from index.manifest import StoreError, read_manifest
from model.network.config import SQUARE_SIDE
from model.weights.header import IMPORTED, WeightsError, WeightsHeader, read_weights_header
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
class WeightsInfo:
    """What a file's header says; None for what it does not say.

    data: the name of the folder trained on. images: of its training set. top1, top5, ten1, ten5:
    error rates on its validation images, with the centre crop and with ten crops, 0–1.
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
class WeightsFile:
    """A weights file.

    key: its path from the home, which names it in forms. run: the name of its run, or empty. kind:
    "result", "best epoch", "imported", or "elsewhere" for any other file that the link points to.
    selected: whether the link points to it: then the next `flask index build` indexes it. bytes:
    its size. unfinished: whether its run is still going and may replace it. pretrained: whether it
    ships with the project. info: None for a damaged file; problem: why it cannot be used, or empty.
    """

    key: str
    file: Path
    run: str
    kind: str
    selected: bool
    bytes: int
    written: datetime | None
    unfinished: bool
    pretrained: bool
    info: WeightsInfo | None
    problem: str


def list_weights_files(home: Home) -> list[WeightsFile]:
    """Return every weights file, those of the newest runs first; at most one is selected."""
    found = [*list_run_weights(home), *list_imported_weights(home)]
    selected = find_selected_file(home)
    if selected is None:
        return found
    # Two folders may be links to the same one.
    key = next((file.key for file in found if resolve_path(file.file) == selected), None)
    if key is None:
        outside = describe_weights_file(home.weights.name, selected, ELSEWHERE, "", None)
        return [replace(outside, selected=True), *found]
    return [replace(file, selected=file.key == key) for file in found]


def find_weights_file(home: Home, key: str) -> WeightsFile | None:
    """Return the weights file with that key, or None."""
    return next((file for file in list_weights_files(home) if file.key == key), None)


def find_index_versions_by_weights(home: Home, sessions: Sessions) -> dict[str, str]:
    """Return the newest index version built with each weights: its name by their identity.

    Only versions that are both on disk and in the database count. Raises DatabaseError.
    """
    found: dict[str, str] = {}
    names = store.list_versions(home.index)
    known = list_version_names(sessions) if names else set()
    for name in names:
        try:
            manifest = read_manifest(home.index / name)
        except StoreError:
            continue
        if name in known:
            found[manifest.weights] = name
    return found


def find_served_key(models: list[WeightsFile], identity: str) -> str | None:
    """Return which of the files is in service, by the identity of the weights that are.

    Several files may hold these weights: then it is the selected one, or the first.
    """
    same = [model for model in models if model.info and model.info.identity == identity]
    same.sort(key=lambda model: not model.selected)
    return same[0].key if same else None


def find_selected_file(home: Home) -> Path | None:
    """Return the file that the link to the selected weights leads to, or None."""
    file = resolve_path(home.weights)
    return file if file and file_size(file) is not None else None


def resolve_path(path: Path) -> Path | None:
    """Follow all links; None for a broken or circular one."""
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError):
        return None


def list_run_weights(home: Home) -> Iterator[WeightsFile]:
    """Yield the files in the run folders; folders without a readable run come last."""
    runs = [
        (name, folder, read_run_folder(name, folder))
        for name, folder in list_folders(home.runs).items()
    ]
    runs.sort(key=lambda one: recency(one[2]) if one[2] else (0.0, one[0]), reverse=True)
    for name, folder, run in runs:
        files = RunFolder(folder)
        for file, kind in ((files.weights, "result"), (files.best, "best epoch")):
            if file_size(file) is not None:
                key = f"{home.runs.name}/{name}/{file.name}"
                yield describe_weights_file(key, file, kind, name, run)


def list_imported_weights(home: Home) -> Iterator[WeightsFile]:
    """Yield the files that were imported from elsewhere, by name."""
    for file in sorted(home.imported.glob("[!.]*.safetensors")):
        if file_size(file) is not None:
            yield describe_weights_file(
                f"{home.imported.name}/{file.name}", file, IMPORTED, "", None
            )


def describe_weights_file(
    key: str, file: Path, kind: str, name: str, run: Run | None
) -> WeightsFile:
    """Read a file's header and describe the file, as one that is not selected."""
    info, problem = read_weights_info(file, run)
    return WeightsFile(
        key=key,
        file=file,
        run=name,
        kind=kind,
        selected=False,
        bytes=file_size(file) or 0,
        written=datetime_from_timestamp(modification_time(file)),
        unfinished=run is not None and not run.finished,
        pretrained=run is not None and run.pretrained,
        info=info,
        problem=problem,
    )


def read_weights_info(file: Path, run: Run | None) -> tuple[WeightsInfo | None, str]:
    """Read a file's header; return what it says and why the file cannot be used, or ""."""
    try:
        header = read_weights_header(file)
    except WeightsError as error:
        # The file's path on the server is not for visitors.
        return None, f"{str(error).replace(str(file), 'This file')}."
    except OSError as error:
        return None, f"This file cannot be read: {error.strerror or type(error).__name__}."
    info, side = make_weights_info(header), header.config.side
    if side != SQUARE_SIDE:
        needed = f"{SQUARE_SIDE} × {SQUARE_SIDE}"
        return info, f"Its network sees {side} × {side} pixels; the pages need {needed}."
    if not info.identity and run and file == run.folder.weights:
        return replace(info, identity=run.weights), ""
    return info, ""


def make_weights_info(header: WeightsHeader) -> WeightsInfo:
    """Take from a header what the pages show."""
    provenance = header.provenance
    return WeightsInfo(
        identity=bounded_text(header.identity),
        preset=bounded_text(provenance.preset),
        data=Path(bounded_text(provenance.data)).name,
        images=natural_number(provenance.images),
        epochs=natural_number(provenance.epochs),
        classes=len(header.classes),
        top1=fraction(provenance.top1_error),
        top5=fraction(provenance.top5_error),
        ten1=fraction(provenance.ten_crop_top1_error),
        ten5=fraction(provenance.ten_crop_top5_error),
    )
