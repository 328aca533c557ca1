"""Read the evaluations in ALEXNET_HOME, to show them."""

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path, PurePosixPath
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from storage.evaluations import EVALUATION_FORMAT, Evaluation, Mistake, Result
from storage.home import Home
from storage.tolerant_json import (
    bounded_text,
    dict_or_empty,
    finite_number,
    is_encodable,
    list_entries,
    list_of_dicts,
    natural_number,
    parse_json_object,
    read_bounded,
)

MAX_BYTES = 16 * 1024 * 1024
"""Size of a file; an evaluation on a thousand classes has about three megabytes."""
MAX_FILES = 100
"""The newest evaluations, which are listed."""
MAX_MISTAKES = 100
"""Mistakes of each result that are kept."""
MAX_CACHED = 4
"""Evaluations kept in memory."""
Stamp = tuple[str, int, int]
"""A file's name, size in bytes and modification time in ns."""
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class StoredEvaluation(Evaluation):
    """An evaluation with its file's name, time and folder of photographs."""

    name: str
    """The file's name without its suffix."""
    created: datetime | None
    root: Path | None
    """The folder of the photographs, absolute."""

    @property
    def data_name(self) -> str:
        """The name of the folder of photographs."""
        return Path(self.root or self.data.folder).name

    def results_for(self, identity: str) -> list[Result]:
        """Return the results of the network with this identity."""
        names = {model.name for model in self.models if model.identity == identity}
        return [result for result in self.results if result.name in names]


@dataclass(frozen=True, kw_only=True)
class EvaluationSummary:
    """What is needed to list an evaluation."""

    name: str
    created: datetime | None
    data: str
    """The name of the folder of photographs."""
    split: str
    identities: frozenset[str]
    """The identities of the networks evaluated."""


class EvaluationFiles:
    """The evaluations in ALEXNET_HOME. A file is read again only if its size or time changes."""

    def __init__(self, home: Home) -> None:
        self.folder = home.evaluations
        self.summaries: dict[Stamp, EvaluationSummary | None] = {}
        self.opened: dict[Stamp, StoredEvaluation] = {}

    def summaries_for(self, identities: Collection[str]) -> list[EvaluationSummary]:
        """Return the evaluations of networks with these identities, newest first."""
        # Replaced rather than changed, since other threads may be reading it.
        self.summaries = {
            stamp: self.summaries[stamp] if stamp in self.summaries else read_summary(file)
            for stamp, file in self.list_newest_files()
        }
        summaries = (summary for summary in self.summaries.values() if summary)
        return [summary for summary in summaries if summary.identities & set(identities)]

    def open(self, name: str) -> StoredEvaluation | None:
        """Return the evaluation of this name; None if it does not exist or is damaged."""
        for stamp, file in self.list_newest_files():
            if file.stem == name:
                return self.opened.get(stamp) or self.read(stamp, file)
        return None

    def read(self, stamp: Stamp, file: Path) -> StoredEvaluation | None:
        """Read an evaluation; the last few stay cached for the requests for their pictures."""
        evaluation = parse_evaluation(file.stem, read_bounded(file, MAX_BYTES))
        if evaluation:
            self.opened = dict([*self.opened.items(), (stamp, evaluation)][-MAX_CACHED:])
        return evaluation

    def list_newest_files(self) -> Iterator[tuple[Stamp, Path]]:
        """Yield the files with their stamps, newest first by name."""
        files = (file for file in list_entries(self.folder) if file.suffix == ".json")
        named = [file for file in files if is_encodable(file.name)]
        for file in sorted(named, key=lambda file: file.stem, reverse=True)[:MAX_FILES]:
            if stamp := stamp_file(file):
                yield stamp, file


def stamp_file(file: Path) -> Stamp | None:
    """Return a file's stamp; None if it has been removed."""
    try:
        status = file.stat()
    except OSError:
        return None
    return file.name, status.st_size, status.st_mtime_ns


def read_summary(file: Path) -> EvaluationSummary | None:
    """Read the summary of an evaluation; None if the file is not one of this format."""
    content = parse_json_object(read_bounded(file, MAX_BYTES))
    if content.get("format") != EVALUATION_FORMAT:
        return None
    data = dict_or_empty(content.get("data"))
    models = list_of_dicts(content.get("models"))
    return EvaluationSummary(
        name=file.stem,
        created=parse_time(bounded_text(content.get("created"))),
        data=Path(parse_root(content) or bounded_text(data.get("folder"))).name,
        split=bounded_text(data.get("split")),
        identities=frozenset(bounded_text(model.get("identity")) for model in models),
    )


def parse_evaluation(name: str, content: bytes | None) -> StoredEvaluation | None:
    """Parse an evaluation; None unless it is complete and valid."""
    values = parse_json_object(content)
    if values.get("format") != EVALUATION_FORMAT:
        return None
    try:
        evaluation = decode_dataclass(Evaluation, values)
    except ValueError:
        return None
    results = (replace(r, mistakes=r.mistakes[:MAX_MISTAKES]) for r in evaluation.results)
    return StoredEvaluation(
        **vars(replace(evaluation, results=tuple(results))),
        name=name,
        created=parse_time(bounded_text(values.get("created"))),
        root=parse_root(values),
    )


def parse_time(iso: str) -> datetime | None:
    """Parse a time in ISO 8601, in UTC if it names no zone; None if it is invalid."""
    try:
        time = datetime.fromisoformat(iso)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def parse_root(values: Mapping[str, Any]) -> Path | None:
    """Return the folder of the photographs; None unless its path is absolute."""
    root = bounded_text(values.get("root"))
    return Path(root) if root.startswith("/") and "\0" not in root else None


def decode_dataclass(kind: type[T], values: object) -> T:
    """Build a dataclass from a JSON object. Raises ValueError if it does not fit the fields."""
    if not isinstance(values, dict):
        raise ValueError(f"{kind.__name__} must be an object")
    decoded = {}
    for name, hint in field_types(kind).items():  # type: ignore[arg-type]
        decoded[name] = decode_value(hint, values.get(name))
    return kind(**decoded)


@lru_cache(maxsize=64)
def field_types(kind: Hashable) -> dict[str, Any]:
    """Return the types of a dataclass's fields, by name."""
    return get_type_hints(kind)


SCALARS: dict[Any, Callable[[object], object]] = {
    str: lambda value: bounded_text(value) if isinstance(value, str) else None,
    bool: lambda value: value if isinstance(value, bool) else None,
    int: natural_number,
    float: finite_number,
}
"""How a value of each type is read; None if it is of another."""


def decode_value(hint: Any, value: object) -> Any:
    """Convert a JSON value to a field's type. Raises ValueError if it does not fit."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is UnionType:  # only `X | None` is used
        return None if value is None else decode_value(parts[0], value)
    if origin is tuple and isinstance(value, list):
        return tuple(decode_value(parts[0], item) for item in value)
    if origin is dict and isinstance(value, dict):
        return {bounded_text(key): decode_value(parts[1], item) for key, item in value.items()}
    if isinstance(hint, type) and is_dataclass(hint):
        return decode_dataclass(hint, value)
    decoded: object = None
    if origin is Literal:
        decoded = value if value in parts else None
    elif hint in SCALARS:
        decoded = SCALARS[hint](value)
    if decoded is None:
        raise ValueError(f"not {hint}: {value!r:.50}")
    return decoded


def find_mistake_photograph(evaluation: StoredEvaluation, mistake: Mistake) -> Path | None:
    """Return the path of a mistake's photograph; None unless it is in the evaluation's folder.

    Raises OSError if the path cannot be resolved.
    """
    path = PurePosixPath(mistake.path)
    if evaluation.root is None or path.is_absolute() or ".." in path.parts or "\0" in mistake.path:
        return None
    # Resolved first, so that no symbolic link leads out of the folder.
    root = evaluation.root.resolve()
    file = (root / path).resolve()
    return file if file.is_relative_to(root) else None
