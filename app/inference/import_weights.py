"""Imports others' weights into the home: fetched or read, converted, stored under `imported`."""

from dataclasses import dataclass, replace
from pathlib import Path

from app.config import Settings
from model.formats.importing import ImportOptions, import_weights
from model.formats.network import ILSVRC
from model.formats.published import PUBLISHED_WEIGHTS, fetch_published
from model.weights.checkpoint import load_weights, save_weights
from model.weights.header import WeightsError, WeightsHeader, read_weights_header
from storage.progress import Report


@dataclass(frozen=True, kw_only=True)
class ImportedFile:
    """A weights file under `imported`.

    key: its path from the home, which names it on the page Models. is_new: whether it was imported
    now. assumptions: what was taken for granted, in sentences.
    """

    file: Path
    key: str
    header: WeightsHeader
    is_new: bool
    assumptions: tuple[str, ...] = ()


def import_file(
    settings: Settings,
    source: str,
    options: ImportOptions,
    report: Report,
    *,
    name: str | None = None,
    if_needed: bool = False,
) -> ImportedFile:
    """Import a file, or published weights by their name, as `imported/<name>.safetensors`.

    name: by default that of the file. if_needed: whether to take what was imported under this name
    before. Raises WeightsError, DownloadError and OSError.
    """
    home = settings.home
    file = home.imported / f"{name or name_weights(source)}.safetensors"
    key = file.relative_to(home.root).as_posix()
    if if_needed and file.exists():
        return ImportedFile(file=file, key=key, header=read_weights_header(file), is_new=False)
    if source in PUBLISHED_WEIGHTS:
        path = fetch_published(source, home.downloads, report)
        options = replace(options, data=ILSVRC)
    else:
        path = Path(source)
    imported = import_weights(path, options)
    if file.exists():
        check_same_weights(file, imported.weights.identity)
    save_weights(imported.weights, file, compressed=imported.few_values)
    header = read_weights_header(file)
    return ImportedFile(
        file=file, key=key, header=header, is_new=True, assumptions=imported.assumptions
    )


def name_weights(source: str) -> str:
    """Name imported weights after their file, or as published."""
    return source if source in PUBLISHED_WEIGHTS else Path(source).stem.lstrip(".") or "weights"


def check_same_weights(target: Path, identity: str) -> None:
    """Raise WeightsError if a file holds other weights, which an index may have been built with."""
    if load_weights(target).identity != identity:
        raise WeightsError(f"{target} holds other weights; give these another name with --name")
