"""The manifest of an index version: the file `manifest.json` beside its vectors."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_origin

from model.network.config import Resize
from model.runtime.names import TORCH
from storage.files import write_atomically

FORMAT = 2
MANIFEST_FILE = "manifest.json"
CHECKSUM_KEY = "sha256"
"""The key of the manifest's own checksum."""
REBUILD_HINT = "rebuild it with `flask index build`"
SQUARES: dict[Resize, str] = {
    "bicubic": "short side 256, central 256×256",
    "bilinear": "short side 256 with the bilinear filter, central 256×256",
    "warp": "both sides scaled to 256",
}
PREPROCESSINGS: dict[Resize, str] = {
    resize: f"{square}, minus the mean image, central crop; "
    "fc7 after its ReLU, without the factor ½ of test time"
    for resize, square in SQUARES.items()
}
"""How an image becomes a vector, by how the network's images become squares; an index built in
any other way is rejected."""


class StoreError(Exception):
    """An index that cannot be written, found or trusted; the message says how to fix it."""


@dataclass(frozen=True, kw_only=True)
class FileChecksum:
    """A file's size and SHA-256 in hex."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A file of vectors: its name, number of rows, largest squared norm, size and SHA-256."""

    file: str
    rows: int
    largest: float
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What an index version consists of, and what it was built from."""

    format: int = FORMAT
    """Format of the folder; only `FORMAT` can be read."""
    name: str
    """The folder's name. Names sort by time."""
    weights: str
    """Identity of the weights that computed its features."""
    weights_file: str = ""
    """Their file: a path relative to `ALEXNET_HOME` if it lies below it, else absolute; empty in
    manifests from before it was recorded."""
    runtime: str = TORCH
    """What computed its features; torch in manifests from before it was recorded. Queries may come
    from another: model/runtime/agreement.py bounds the difference."""
    preprocessing: str = PREPROCESSINGS["bicubic"]
    data: str
    """The absolute path of the training set."""
    created: str
    """Creation time, ISO 8601, UTC."""
    made_by: str
    """Versions of this project and of FAISS."""
    images: int
    """The number of images."""
    vectors: int
    """Rows that an image points to: images with equal pixels share one."""
    unreadable: int
    """The number of files left out because they could not be read."""
    listing: str
    """Digest of the training files' names, sizes and times; shows whether a build is due."""
    dtype: str
    """The vectors' dtype: float32 or float16."""
    kind: str
    """exact, ivf, hnsw, pq, binary or milvus."""
    target: float
    """The target recall@6, 0–1."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """The kind's parameters: numbers and strings."""
    recall: dict[str, float] = field(default_factory=dict)
    """Measured by the build: recall@6 and recall@100, 0–1, and queries; {} for `exact`."""
    near: float = 0.0
    """The distance up to which two images count as near-duplicates."""
    shards: list[Shard]
    files: dict[str, FileChecksum]
    """The folder's other files, without the manifest."""

    @property
    def rows(self) -> int:
        """Rows in the shards, including those that no image points to any more."""
        return sum(shard.rows for shard in self.shards)

    @property
    def checksums(self) -> dict[str, FileChecksum]:
        """Checksums of every file in the folder except the manifest."""
        shards = {s.file: FileChecksum(bytes=s.bytes, sha256=s.sha256) for s in self.shards}
        return shards | self.files


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write the manifest into its version's folder, in place of any other. Raises OSError."""
    values = asdict(manifest)
    text = (
        json.dumps(
            {CHECKSUM_KEY: compute_manifest_checksum(values), **values},
            indent=2,
            ensure_ascii=False,
        )
        + "\n"
    )
    write_atomically(folder / MANIFEST_FILE, text)


def compute_manifest_checksum(values: dict[str, Any]) -> str:
    """Compute the checksum of a manifest's values: SHA-256 in hex."""
    own = {name: value for name, value in values.items() if name != CHECKSUM_KEY}
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a version's folder. Raises StoreError."""
    file = folder / MANIFEST_FILE
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"{file} cannot be read ({error.strerror}); {REBUILD_HINT}") from error
    except ValueError as error:
        raise StoreError(f"{file} is damaged ({error}); {REBUILD_HINT}") from error
    return parse_manifest(values, file)


def parse_manifest(values: Any, file: Path) -> Manifest:
    """Check and convert the JSON of a manifest. Raises StoreError."""
    found = values.get("format") if isinstance(values, dict) else None
    if type(found) is not int:
        raise StoreError(f"{file} is not the manifest of an index; {REBUILD_HINT}")
    if found != FORMAT:
        age = "a newer" if found > FORMAT else "an older"
        raise StoreError(
            f"{file} has format {found}, of {age} version of this project; this one reads "
            f"{FORMAT}; {REBUILD_HINT}"
        )
    if values.get(CHECKSUM_KEY) != compute_manifest_checksum(values):
        raise StoreError(f"{file} is damaged: its checksum does not match; {REBUILD_HINT}")
    values = {"weights_file": "", "runtime": TORCH} | values
    for known in fields(Manifest):
        if type(values.get(known.name)) is not (get_origin(known.type) or known.type):
            raise StoreError(
                f"{file} is damaged: {known.name} is missing or has the wrong type; {REBUILD_HINT}"
            )
    try:
        shards = [Shard(**shard) for shard in values["shards"]]
        files = {name: FileChecksum(**sealed) for name, sealed in values["files"].items()}
    except TypeError as error:
        raise StoreError(f"{file} is damaged ({error}); {REBUILD_HINT}") from error
    if values["preprocessing"] not in PREPROCESSINGS.values():
        raise StoreError(
            f"{file} is of an index whose images were preprocessed otherwise; {REBUILD_HINT}"
        )
    known_values = {known.name: values[known.name] for known in fields(Manifest)}
    return Manifest(**known_values | {"shards": shards, "files": files})
