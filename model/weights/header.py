"""What a weights file says about itself: the network, its classes, and where it comes from.

Needs no torch: a process that answers with a compiled network reads nothing else
(model/runtime/prepared.py). model/weights/checkpoint.py reads and writes whole files.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol, TypeVar

from safetensors import SafetensorError, safe_open

from model.dataset.folder import ClassName
from model.network.config import AlexNetConfig, ConfigError
from model.network.layer_list import dump_layers

T = TypeVar("T")
WEIGHTS_FORMAT = 1
"""Version of the file format."""
COMPRESSION = "compression"
"""Entry of a compressed file's header, as JSON: version and description of the coding, and the
tensors' shapes, for readers that do not know the network."""
COMPRESSION_FORMAT = 1
"""Version of the coding."""
UNKNOWN = "unknown"
"""What the header says where nobody knows."""
IMPORTED = "imported"
"""The preset of weights that were not trained here."""
LATER_FIELDS = (
    *("net", "activation", "lrn", "overlapping", "without", "conv6", "side", "crop"),
    *("lrn_alpha_factors", "resize", "channel_scales", "bottleneck", "layers", "test_crops"),
)
"""Configuration fields added after the first version: left out where they have the paper's value,
so that older weights keep their identity."""


class WeightsError(ValueError):
    """A weights file that is missing, damaged, or not one of this project's."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What weights were trained on, how, and with what validation errors."""

    data: str
    """Absolute path of the folder that they were trained on; of imported weights the name of the
    data set, or "unknown"."""
    images: int | None
    """Number of its training images; None if unknown."""
    epochs: int | None
    """Number of passes over them; None if unknown."""
    preset: str
    """Name of the training recipe; "imported" for weights that were not trained here."""
    top1_error: float | None
    """Share of validation images whose label is not the most probable one; centre crop."""
    top5_error: float | None
    """Share of validation images whose label is not among the five most probable; centre crop."""
    ten_crop_top1_error: float | None = None
    """The top-1 error with ten crops averaged; None if it was not measured."""
    ten_crop_top5_error: float | None = None
    """The top-5 error with ten crops averaged; None if it was not measured."""
    commit: str
    """Commit of this project, or "unknown"."""
    created: str
    """Time of creation, ISO 8601, UTC."""
    source: str = ""
    """What imported weights are, and who made them; empty for weights that were trained here."""
    source_sha256: str = ""
    """Of the file that they were imported from, in hex; empty for weights trained here."""

    @property
    def folder(self) -> Path | None:
        """The folder that they were trained on; None if it is none of this machine's."""
        return Path(self.data) if Path(self.data).is_absolute() else None


@dataclass(frozen=True, kw_only=True)
class WeightsHeader:
    """What a weights file says about itself, besides its tensors.

    identity:   that of the weights when the file was written; None in files from before it was
                recorded.
    compressed: whether the tensors are coded in fewer bytes.
    """

    config: AlexNetConfig
    classes: tuple[ClassName, ...]
    provenance: Provenance
    identity: str | None
    compressed: bool


class DescribedNetwork(Protocol):
    """What a header describes besides the provenance."""

    @property
    def config(self) -> AlexNetConfig: ...

    @property
    def classes(self) -> tuple[ClassName, ...]: ...


def read_weights_header(path: Path) -> WeightsHeader:
    """Read only a weights file's header, a few kilobytes.

    Does not check the tensors, as `load_weights` does. Raises WeightsError.
    """
    with open_safetensors(path) as file:
        metadata = file.metadata() or {}
    return parse_header(metadata, path)


@contextmanager
def open_safetensors(path: Path) -> Iterator[Any]:
    """Open a safetensors file for reading. Raises WeightsError."""
    if not path.exists():
        raise WeightsError(f"{path} does not exist; `python training/run.py` trains a network")
    try:
        with safe_open(path, framework="np") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read as a safetensors file: {error}") from error


def parse_header(metadata: Mapping[str, str], path: Path) -> WeightsHeader:
    """Parse a file's header. Raises WeightsError."""
    if metadata.get("format") != str(WEIGHTS_FORMAT):
        raise WeightsError(
            f"{path} has format {metadata.get('format', 'none')}, this version reads "
            f"{WEIGHTS_FORMAT}; train again with `python training/run.py`"
        )
    try:
        return WeightsHeader(
            config=parse_dataclass(AlexNetConfig, json.loads(metadata["config"])),
            classes=tuple(ClassName(*pair) for pair in json.loads(metadata["classes"])),
            provenance=parse_dataclass(Provenance, json.loads(metadata["provenance"])),
            identity=metadata.get("identity"),
            compressed=parse_compression(metadata),
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path} is not a weights file of this project: {error}") from error


def parse_compression(metadata: Mapping[str, str]) -> bool:
    """Return whether a file is compressed. Raises ValueError for another version's coding."""
    if COMPRESSION not in metadata:
        return False
    version = json.loads(metadata[COMPRESSION])["version"]
    if version != COMPRESSION_FORMAT:
        raise ValueError(
            f"it is compressed in version {version}, this version reads {COMPRESSION_FORMAT}"
        )
    return True


def describe_network(weights: DescribedNetwork) -> dict[str, Any]:
    """Describe what, besides tensors, the network's predictions depend on, as in the header."""
    config = asdict(weights.config)
    for name in LATER_FIELDS:
        if config[name] == getattr(AlexNetConfig, name):
            del config[name]
    if "layers" in config:
        config["layers"] = dump_layers(weights.config.layers)
    return {
        "config": config,
        "classes": [[c.folder, c.label] for c in weights.classes],
    }


def describe_provenance(provenance: Provenance) -> dict[str, Any]:
    """Describe the provenance as in the header, where only imported weights have a source."""
    values = asdict(provenance)
    return {k: v for k, v in values.items() if v or not k.startswith("source")}


def parse_dataclass(kind: type[T], values: dict[str, Any]) -> T:
    """Build a dataclass from its JSON. Raises ConfigError, naming any field it does not know."""
    unknown = set(values) - {f.name for f in fields(kind)}  # type: ignore[arg-type]
    if unknown:
        raise ConfigError(f"unknown fields {', '.join(sorted(unknown))}; from a newer version?")
    return kind(**values)
