"""What `training/evaluate.py` found of networks, as it keeps it for the application."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from storage.home import Home
from storage.tolerant_json import (
    bounded_text,
    dict_or_empty,
    finite_number,
    fraction,
    is_encodable,
    list_entries,
    list_of_dicts,
    natural_number,
    parse_json_object,
    read_bounded,
)

FORMAT = 1
MOST_BYTES = 16 * 1024 * 1024
"""A verdict on a thousand classes has some three megabytes."""
MOST_FILES = 100
"""Verdicts that are looked into, the newest."""
MOST_MISTAKES = 100
MOST_OPEN = 4
Stamp = tuple[str, int, int]


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A share of images that were answered wrongly, and its 95 % interval, all 0–1."""

    wrong: int
    images: int
    error: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A photograph whose guess is wrong. path: from the data folder; probabilities 0–1.

    number: its place among the mistakes of its result, from 0.
    """

    number: int
    path: str
    true_label: str
    true_probability: float
    guess_label: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class Result:
    """How one network answered. crops: "centre" or "ten".

    confusion: how many images of the class named first were guessed to be of the second.
    """

    name: str
    crops: str
    top1: Rate | None
    top5: Rate | None
    confusion: dict[str, dict[str, int]]
    mistakes: tuple[Mistake, ...]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A verdict. name: its file's. root: where the photographs are, or None where unknown.

    networks: the identity of each network judged, by the name it has here. labels: what people
    read, by class.
    """

    name: str
    created: datetime | None
    root: Path | None
    data: str
    split: str
    images: int
    classes: int
    precision: str
    networks: dict[str, str]
    labels: dict[str, str]
    results: tuple[Result, ...]

    def of(self, identity: str) -> list[Result]:
        """The results of the network of that identity."""
        names = {name for name, known in self.networks.items() if known == identity}
        return [result for result in self.results if result.name in names]


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is remembered of a verdict. identities: of the networks that it judges."""

    name: str
    created: datetime | None
    data: str
    split: str
    identities: frozenset[str]


class Evaluations:
    """The verdicts kept under a home. A file is read once, as long as it stays as it is."""

    def __init__(self, home: Home) -> None:
        self.folder = home.evaluations
        self.known: dict[Stamp, Known | None] = {}
        self.opened: dict[Stamp, Evaluation] = {}

    def of(self, identities: Collection[str]) -> list[Known]:
        """The verdicts on networks of these identities, newest first."""
        # Put in place whole: other threads may be reading it.
        self.known = {stamp: self.look(stamp, file) for stamp, file in self.stamped()}
        known = (found for found in self.known.values() if found)
        return [found for found in known if found.identities & set(identities)]

    def open(self, name: str) -> Evaluation | None:
        """The verdict of that name; None where no such file can be read."""
        for stamp, file in self.stamped():
            if file.stem == name:
                return self.opened.get(stamp) or self.read(stamp, file)
        return None

    def stamped(self) -> Iterator[tuple[Stamp, Path]]:
        """The files and what changes with each, newest first by their names."""
        named = [
            f for f in list_entries(self.folder) if f.suffix == ".json" and is_encodable(f.name)
        ]
        for file in sorted(named, key=lambda f: f.stem, reverse=True)[:MOST_FILES]:
            if stamp := stamp_of(file):
                yield stamp, file

    def look(self, stamp: Stamp, file: Path) -> Known | None:
        """What a verdict is on."""
        if stamp in self.known:
            return self.known[stamp]
        verdict = self.read(stamp, file)
        if verdict is None:
            return None
        return Known(
            name=verdict.name,
            created=verdict.created,
            data=verdict.data,
            split=verdict.split,
            identities=frozenset(verdict.networks.values()),
        )

    def read(self, stamp: Stamp, file: Path) -> Evaluation | None:
        """Read a verdict, keeping the last few: their pictures are asked for next."""
        verdict = understood(file.stem, read_bounded(file, MOST_BYTES))
        if verdict:
            self.opened = dict([*self.opened.items(), (stamp, verdict)][-MOST_OPEN:])
        return verdict


def stamp_of(file: Path) -> Stamp | None:
    """A file's name, size and time; None when it has gone."""
    try:
        found = file.stat()
    except OSError:
        return None
    return file.name, found.st_size, found.st_mtime_ns


def understood(name: str, data: bytes | None) -> Evaluation | None:
    """Read a verdict; None when it is none of this format."""
    told = parse_json_object(data)
    if told.get("format") != FORMAT:
        return None
    data_, root = dict_or_empty(told.get("data")), bounded_text(told.get("root"))
    return Evaluation(
        name=name,
        created=moment(bounded_text(told.get("created"))),
        root=Path(root) if root.startswith("/") and "\0" not in root else None,
        data=Path(root or bounded_text(data_.get("folder"))).name,
        split=bounded_text(data_.get("split")),
        images=natural_number(data_.get("images")) or 0,
        classes=natural_number(data_.get("classes")) or 0,
        precision=bounded_text(told.get("precision")),
        networks={
            bounded_text(m.get("name")): bounded_text(m.get("identity"))
            for m in list_of_dicts(told.get("models"))
        },
        labels={
            bounded_text(k): bounded_text(v) for k, v in dict_or_empty(told.get("labels")).items()
        },
        results=tuple(result(row) for row in list_of_dicts(told.get("results"))),
    )


def moment(iso: str) -> datetime | None:
    """Read a time of ISO 8601."""
    try:
        found = datetime.fromisoformat(iso)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def result(row: dict[str, Any]) -> Result:
    """Read a result."""
    return Result(
        name=bounded_text(row.get("name")),
        crops=bounded_text(row.get("crops")),
        top1=rate(dict_or_empty(row.get("top1"))),
        top5=rate(dict_or_empty(row.get("top5"))),
        confusion={
            bounded_text(true): {
                bounded_text(g): n
                for g, count in dict_or_empty(guesses).items()
                if (n := natural_number(count))
            }
            for true, guesses in dict_or_empty(row.get("confusion")).items()
        },
        mistakes=tuple(mistakes(list_of_dicts(row.get("mistakes"))[:MOST_MISTAKES])),
    )


def rate(row: dict[str, Any]) -> Rate | None:
    """Read an error and its interval."""
    wrong, images = natural_number(row.get("wrong")), natural_number(row.get("images"))
    error, low, high = (fraction(row.get(name)) for name in ("error", "low", "high"))
    if wrong is None or not images or error is None or low is None or high is None:
        return None
    return Rate(wrong=wrong, images=images, error=error, low=low, high=high)


def mistakes(found: list[dict[str, Any]]) -> Iterator[Mistake]:
    """Read the mistakes that are whole."""
    for place, row in enumerate(found):
        given, own = (
            finite_number(row.get("probability")),
            finite_number(row.get("true_probability")),
        )
        path = bounded_text(row.get("path"))
        if path and given is not None and own is not None:
            yield Mistake(
                number=place,
                path=path,
                true_label=bounded_text(row.get("true_label")),
                true_probability=own,
                guess_label=bounded_text(row.get("guess_label")),
                probability=given,
            )


def photograph(verdict: Evaluation, mistake: Mistake) -> Path | None:
    """Where a mistake's photograph is; None unless it lies inside the verdict's folder.

    Raises OSError where the file system refuses.
    """
    path = PurePosixPath(mistake.path)
    if verdict.root is None or path.is_absolute() or ".." in path.parts or "\0" in mistake.path:
        return None
    # Links are followed first, so that none leads out of the folder.
    root = verdict.root.resolve()
    file = (root / path).resolve()
    return file if file.is_relative_to(root) else None
