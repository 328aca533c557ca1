"""What evaluations found of a run's networks: errors, confusion matrix, most confident mistakes."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from flask import Blueprint, Response, abort, current_app
from flask.blueprints import BlueprintSetupState

from app.views.pictures import missing_picture, serve_image_file
from storage.evaluation_files import (
    EvaluationFiles,
    EvaluationSummary,
    StoredEvaluation,
    mistake_photograph,
)
from storage.evaluations import Result
from storage.tolerant_json import read_bounded

blueprint = Blueprint("judged", __name__, url_prefix="/evaluations")
MOST_CLASSES = 30
"""Of a confusion matrix: of more only the strongest confusions are listed."""
MOST_CONFUSIONS = 30
LEVELS = 5
MOST_BYTES = 200_000_000
MOST_PLACE = 10_000


@dataclass(frozen=True, kw_only=True)
class Cell:
    """How many images of a row's class were guessed to be of a column's; level: 0–5, how many."""

    guess: str
    count: int
    level: int
    right: bool


@dataclass(frozen=True, kw_only=True)
class Row:
    """The images of a class."""

    label: str
    images: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """A class taken for another: so many of its images."""

    true: str
    guess: str
    count: int
    images: int


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """An evaluation as a page shows it.

    results: of the networks asked for. closest: the one looked at more closely, place its number
    in the verdict. rows: the confusion matrix, or nothing where it has too many classes.
    """

    verdict: StoredEvaluation
    others: tuple[EvaluationSummary, ...]
    results: tuple[Result, ...]
    closest: Result
    place: int
    rows: tuple[Row, ...]
    confusions: tuple[Confusion, ...]


@blueprint.record_once
def remember(state: BlueprintSetupState) -> None:
    """Keep in mind what the verdicts are on, as long as the application runs."""
    home = state.app.extensions["settings"].home
    state.app.extensions["evaluations"] = EvaluationFiles(home)


def kept() -> EvaluationFiles:
    """Give the verdicts found on disk."""
    found: EvaluationFiles = current_app.extensions["evaluations"]
    return found


def judgement(identities: Collection[str], name: str) -> Judgement | None:
    """The verdict of that name on one of these networks, else the newest; None without any."""
    known = kept().summaries_for(identities)
    chosen = next((k for k in known if k.name == name), known[0] if known else None)
    verdict = kept().open(chosen.name) if chosen else None
    if chosen is None or verdict is None:
        return None
    results = [result for one in identities for result in verdict.results_for(one)]
    if not results:
        return None
    closest = max(results, key=lambda result: result.crops == "ten")
    return Judgement(
        verdict=verdict,
        others=tuple(k for k in known if k is not chosen),
        results=tuple(results),
        closest=closest,
        place=verdict.results.index(closest),
        rows=tuple(matrix(closest, verdict)),
        confusions=tuple(strongest(closest, verdict)),
    )


def matrix(result: Result, verdict: StoredEvaluation) -> list[Row]:
    """The confusion matrix in the order of the classes; empty where it has too many."""
    shown = classes_of(result, verdict)
    if len(shown) > MOST_CLASSES:
        return []
    return [row(true, result.confusion.get(true, {}), shown, verdict) for true in shown]


def classes_of(result: Result, verdict: StoredEvaluation) -> list[str]:
    """The classes that have images or were guessed."""
    met = set(result.confusion) | {g for row in result.confusion.values() for g in row}
    return [*(c for c in verdict.labels if c in met), *sorted(met - set(verdict.labels))]


def row(true: str, counts: dict[str, int], shown: Sequence[str], verdict: StoredEvaluation) -> Row:
    """A line of the matrix."""
    images = sum(counts.values())
    return Row(
        label=verdict.labels.get(true, true),
        images=images,
        cells=tuple(
            Cell(
                guess=verdict.labels.get(guess, guess),
                count=counts.get(guess, 0),
                level=-(-LEVELS * counts.get(guess, 0) // max(images, 1)),
                right=guess == true,
            )
            for guess in shown
        ),
    )


def strongest(result: Result, verdict: StoredEvaluation) -> list[Confusion]:
    """The most frequent wrong guesses, falling."""
    found = [
        Confusion(
            true=verdict.labels.get(true, true),
            guess=verdict.labels.get(guess, guess),
            count=count,
            images=sum(counts.values()),
        )
        for true, counts in result.confusion.items()
        for guess, count in counts.items()
        if guess != true
    ]
    return sorted(found, key=lambda c: (-c.count, c.true, c.guess))[:MOST_CONFUSIONS]


@blueprint.get(
    f"/<name>/<int(max={MOST_PLACE}):place>/<int(max={MOST_PLACE}):number>/thumbnail.jpg",
    defaults={"whole": False},
)
@blueprint.get(
    f"/<name>/<int(max={MOST_PLACE}):place>/<int(max={MOST_PLACE}):number>/picture.jpg",
    defaults={"whole": True},
)
def picture(name: str, place: int, number: int, whole: bool) -> Response:
    """Give the photograph of a mistake: only one that a verdict names, inside its folder."""
    verdict = kept().open(name)
    if verdict is None or place >= len(verdict.results):
        abort(404)
    mistakes = dict(enumerate(verdict.results[place].mistakes))
    if number not in mistakes:
        abort(404)
    try:
        file = mistake_photograph(verdict, mistakes[number])
        found = file.stat() if file else None
    except (OSError, RuntimeError):  # the latter where links go round in a circle
        return missing_picture()
    if file is None or found is None:
        return missing_picture()
    etag = f"{found.st_ino:x}-{found.st_size:x}-{found.st_mtime_ns:x}-{whole:d}"
    return serve_image_file(
        lambda: read_bounded(file, MOST_BYTES) or b"", etag, whole=whole, version=etag
    )
