"""The evaluation of a run's networks: errors, confusion matrix, most confident mistakes."""

from collections.abc import Sequence
from dataclasses import dataclass

from flask import Blueprint, Response, abort, current_app, url_for
from flask.blueprints import BlueprintSetupState

from app import context
from app.database.images import read_class_ids
from app.database.session import DatabaseError
from app.inference.state import Ready
from app.views.pictures import make_missing_picture_response, serve_image_file
from model.weights.header import WeightsError, read_weights_header
from storage.evaluation_files import (
    EvaluationFiles,
    EvaluationSummary,
    StoredEvaluation,
    find_mistake_photograph,
)
from storage.evaluations import Result
from storage.runs import Run
from storage.tolerant_json import read_bounded

blueprint = Blueprint("evaluations", __name__, url_prefix="/evaluations")
MAX_MATRIX_CLASSES = 30
"""With more classes the most frequent confusions are listed instead of the matrix."""
MAX_CONFUSIONS = 30
SHADES = 5
MAX_PHOTOGRAPH_BYTES = 200_000_000
MAX_NUMBER = 10_000
MISTAKE_RULE = f"/<name>/<int(max={MAX_NUMBER}):result>/<int(max={MAX_NUMBER}):number>"


@dataclass(frozen=True, kw_only=True)
class MatrixCell:
    """How many images of a row's class were classified as this one; shade: 0–5, how many.

    url: where the review shows them; empty if it does not have them.
    """

    label: str
    count: int
    shade: int
    correct: bool
    url: str


@dataclass(frozen=True, kw_only=True)
class MatrixRow:
    """The images of a class."""

    label: str
    images: int
    cells: tuple[MatrixCell, ...]


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """How many of a class's images were classified as another. url: as of a cell."""

    true: str
    guess: str
    count: int
    images: int
    url: str


@dataclass(frozen=True, kw_only=True)
class EvaluatedRun:
    """An evaluation of a run's networks.

    results: of those networks. detailed: the one shown in detail, number its place in the
    evaluation. matrix: empty where there are too many classes. others: earlier evaluations.
    reviewed: whether the review has the images that were evaluated.
    """

    evaluation: StoredEvaluation
    others: tuple[EvaluationSummary, ...]
    results: tuple[Result, ...]
    detailed: Result
    number: int
    matrix: tuple[MatrixRow, ...]
    confusions: tuple[Confusion, ...]
    reviewed: bool


@blueprint.record_once
def add_evaluations(state: BlueprintSetupState) -> None:
    """Keep what the evaluations on disk are of for as long as the application runs."""
    home = state.app.extensions["settings"].home
    state.app.extensions["evaluations"] = EvaluationFiles(home)


def get_evaluation_files() -> EvaluationFiles:
    """Return the evaluations found on disk."""
    found: EvaluationFiles = current_app.extensions["evaluations"]
    return found


def find_run_evaluation(run: Run, name: str = "") -> EvaluatedRun | None:
    """Return the evaluation of that name of a run's networks, else the newest; None without any."""
    identities = list_network_identities(run)
    known = get_evaluation_files().summaries_for(identities)
    chosen = next((k for k in known if k.name == name), known[0] if known else None)
    evaluation = get_evaluation_files().open(chosen.name) if chosen else None
    if chosen is None or evaluation is None:
        return None
    results = [result for identity in identities for result in evaluation.results_for(identity)]
    if not results:
        return None
    detailed = max(results, key=lambda result: result.crops == "ten")
    class_ids = find_reviewed_classes(evaluation, detailed)
    return EvaluatedRun(
        evaluation=evaluation,
        others=tuple(k for k in known if k is not chosen),
        results=tuple(results),
        detailed=detailed,
        number=evaluation.results.index(detailed),
        matrix=tuple(make_matrix_rows(detailed, evaluation, class_ids)),
        confusions=tuple(list_frequent_confusions(detailed, evaluation, class_ids)),
        reviewed=bool(class_ids),
    )


def find_reviewed_classes(evaluation: StoredEvaluation, result: Result) -> dict[str, int]:
    """Return the class ids by folder if the review has these photographs, seen by these weights.

    Empty if it has not, or the database does not respond.
    """
    state = context.loader().get_state()
    if not isinstance(state, Ready) or state.review is None or evaluation.data.split != "val":
        return {}
    identities = {model.identity for model in evaluation.models if model.name == result.name}
    if state.predictor.identity not in identities or str(evaluation.root) != state.manifest.data:
        return {}
    try:
        return read_class_ids(context.sessions(), state.version.dataset_id)
    except DatabaseError:
        return {}


def make_cell_url(class_ids: dict[str, int], true: str, guess: str) -> str:
    """Return where the review shows the validation images of a class with a guess, or nothing."""
    if true not in class_ids or guess not in class_ids:
        return ""
    return url_for(
        "review.show_review",
        show="all",
        split="val",
        label=class_ids[true],
        guess=class_ids[guess],
    )


def list_network_identities(run: Run) -> list[str]:
    """Return the identities of the weights that a run has made: its result and its best epoch."""
    try:
        best = read_weights_header(run.folder.best).identity
    except (WeightsError, OSError):
        best = None
    return list(dict.fromkeys(identity for identity in (run.weights, best) if identity))


def make_matrix_rows(
    result: Result, evaluation: StoredEvaluation, class_ids: dict[str, int]
) -> list[MatrixRow]:
    """Return the confusion matrix in the order of the classes; empty if it has too many."""
    seen = set(result.confusion) | {g for counts in result.confusion.values() for g in counts}
    classes = [c for c in evaluation.labels if c in seen]
    classes += sorted(seen - set(evaluation.labels))
    if len(classes) > MAX_MATRIX_CLASSES:
        return []
    return [
        make_matrix_row(c, result.confusion.get(c, {}), classes, evaluation, class_ids)
        for c in classes
    ]


def make_matrix_row(
    true: str,
    counts: dict[str, int],
    classes: Sequence[str],
    evaluation: StoredEvaluation,
    class_ids: dict[str, int],
) -> MatrixRow:
    """Return a row of the matrix."""
    images = sum(counts.values())
    return MatrixRow(
        label=evaluation.labels.get(true, true),
        images=images,
        cells=tuple(
            MatrixCell(
                label=evaluation.labels.get(guess, guess),
                count=counts.get(guess, 0),
                shade=-(-SHADES * counts.get(guess, 0) // max(images, 1)),
                correct=guess == true,
                url=make_cell_url(class_ids, true, guess),
            )
            for guess in classes
        ),
    )


def list_frequent_confusions(
    result: Result, evaluation: StoredEvaluation, class_ids: dict[str, int]
) -> list[Confusion]:
    """Return the most frequent wrong guesses, in descending order."""
    confusions = [
        Confusion(
            true=evaluation.labels.get(true, true),
            guess=evaluation.labels.get(guess, guess),
            count=count,
            images=sum(counts.values()),
            url=make_cell_url(class_ids, true, guess),
        )
        for true, counts in result.confusion.items()
        for guess, count in counts.items()
        if guess != true
    ]
    return sorted(confusions, key=lambda c: (-c.count, c.true, c.guess))[:MAX_CONFUSIONS]


@blueprint.get(f"{MISTAKE_RULE}/thumbnail.jpg", defaults={"whole": False})
@blueprint.get(f"{MISTAKE_RULE}/picture.jpg", defaults={"whole": True})
def serve_mistake(name: str, result: int, number: int, whole: bool) -> Response:
    """Return the photograph of a mistake: only one that an evaluation lists, inside its folder."""
    evaluation = get_evaluation_files().open(name)
    if evaluation is None or result >= len(evaluation.results):
        abort(404)
    mistakes = dict(enumerate(evaluation.results[result].mistakes))
    if number not in mistakes:
        abort(404)
    try:
        file = find_mistake_photograph(evaluation, mistakes[number])
        stat = file.stat() if file else None
    except (OSError, RuntimeError):  # RuntimeError: symbolic links in a circle
        return make_missing_picture_response()
    if file is None or stat is None:
        return make_missing_picture_response()
    etag = f"{stat.st_ino:x}-{stat.st_size:x}-{stat.st_mtime_ns:x}-{whole:d}"
    return serve_image_file(
        lambda: read_bounded(file, MAX_PHOTOGRAPH_BYTES) or b"", etag, whole=whole, version=etag
    )
