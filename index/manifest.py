"""What an index version says of itself: the file `manifest.json` beside its vectors."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

FORMAT = 1
FILE = "manifest.json"
MEND = "`flask index build` makes it anew"


class StoreError(Exception):
    """An index that cannot be written, found or trusted; the message says what mends it."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What an index version is made of."""

    format: int
    """Of the folder; this version of the project reads `FORMAT`."""
    name: str
    """The folder's name. Names sort by time."""
    weights: str
    """Identity of the weights whose features it holds."""
    data: str
    """The folder of the training set, absolute."""
    created: str
    """Time, ISO 8601, UTC."""
    count: int
    """Images in it."""
    unreadable: int
    """Files left out because they could not be read."""
    listing: str
    """Digest of the training files' names, sizes and times: whether a build is due."""
    sha256: str
    """Of the FAISS file, in hex."""
    largest: float
    """The largest squared norm of a feature vector: bounds the rounding of FAISS's distances."""


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write the manifest into its version's folder."""
    (folder / FILE).write_text(json.dumps(asdict(manifest), indent=2) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a version's folder. Raises StoreError."""
    file = folder / FILE
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"{file} cannot be read ({error.strerror}); {MEND}") from error
    except ValueError as error:
        raise StoreError(f"{file} is damaged ({error}); {MEND}") from error
    return manifest_from(values, file)


def manifest_from(values: Any, file: Path) -> Manifest:
    """Check what a manifest's JSON holds. Raises StoreError."""
    found = values.get("format") if isinstance(values, dict) else None
    if type(found) is not int:
        raise StoreError(f"{file} is not the manifest of an index; {MEND}")
    if found != FORMAT:
        age = "a newer" if found > FORMAT else "an older"
        raise StoreError(
            f"{file} has format {found}, of {age} version of this project, which reads {FORMAT}; "
            f"{MEND}"
        )
    for known in fields(Manifest):
        if type(values.get(known.name)) is not known.type:
            raise StoreError(f"{file} is damaged: {known.name} is missing or odd; {MEND}")
    return Manifest(**{known.name: values[known.name] for known in fields(Manifest)})
