"""The classroom: data sets made in the browser, and how they are made."""

from dataclasses import dataclass

from flask import (
    Blueprint,
    Response,
    abort,
    current_app,
    make_response,
    redirect,
    render_template,
    request,
    url_for,
)
from werkzeug.wrappers import Response as Redirect

from app import context
from app.classroom.datasets import (
    MAX_CLASSES,
    MAX_PHOTOGRAPHS,
    NAME,
    NAME_RULE,
    Dataset,
    DatasetError,
    Incoming,
    delete_dataset,
    list_datasets,
    make_dataset,
    read_dataset,
)
from app.classroom.zip_file import read_zip
from app.uploads.receive import make_decode_request
from app.views.new.access import guard_classroom
from app.views.pictures import serve_image_file

blueprint = Blueprint("new", __name__, url_prefix="/new")
guard_classroom(blueprint)
MAX_NUMBER = MAX_PHOTOGRAPHS - 1
EXAMPLES_PER_CLASS = 6
MAX_CLASSES_WITH_EXAMPLES = 24


@dataclass(frozen=True, kw_only=True)
class ShownClass:
    """A class on the page. examples: the numbers of a few of its photographs."""

    label: str
    count: int
    examples: list[int]


@blueprint.get("")
def show_datasets() -> str:
    """Show the data sets, and the forms that make one."""
    return render_datasets()


def render_datasets(problem: str = "", name: str = "") -> str:
    """Render the page. problem: why nothing was made; name: what was typed as the name."""
    settings = context.settings()
    return render_template(
        "new.html",
        datasets=list_datasets(settings.home),
        problem=problem,
        typed_name=name,
        name_pattern=NAME.pattern,
        name_rule=NAME_RULE,
        max_zip=settings.dataset_bytes,
        max_photographs=MAX_PHOTOGRAPHS,
        max_classes=MAX_CLASSES,
    )


@blueprint.post("/from/zip")
def make_from_zip() -> Redirect | Response:
    """Make a data set of a zip."""
    sent, settings = request.files.get("zip"), context.settings()
    if sent is None or not sent.filename:
        return answer_problem(DatasetError("No zip was chosen."))
    try:
        incoming = read_zip(
            sent.stream,
            max_bytes=settings.dataset_bytes,
            max_file_bytes=settings.upload_bytes,
        )
        return answer_made(store_incoming(incoming))
    except DatasetError as error:
        return answer_problem(error)


def store_incoming(incoming: Incoming) -> Dataset:
    """Store what was sent as a data set of the name that was sent. Raises DatasetError, OSError."""
    settings = context.settings()
    limits = make_decode_request(settings)

    def check(data: bytes) -> None:
        with context.compute_slot():
            context.decoder().decode(data, limits)

    name = request.form.get("name", "")
    return make_dataset(settings.home, name, incoming, check, settings.dataset_quota)


def answer_made(dataset: Dataset) -> Redirect:
    """Lead to a data set that has been made."""
    current_app.logger.warning(
        "made the data set %s of %d photographs", dataset.name, len(dataset.photographs)
    )
    return redirect(url_for(".show_dataset", name=dataset.name), 303)


def answer_problem(error: DatasetError) -> Response:
    """Say on the page why nothing was made."""
    page = render_datasets(str(error), request.form.get("name", ""))
    return make_response(page, error.status)


@blueprint.get("/<name>")
def show_dataset(name: str) -> Response:
    """Show a data set, and what can be taught with it."""
    dataset = find_dataset(name)
    return make_response(render_template("new_dataset.html", **describe_dataset(dataset)))


def describe_dataset(dataset: Dataset) -> dict[str, object]:
    """Describe a data set for its page."""
    shown = []
    for index, (label, count) in enumerate(zip(dataset.classes, dataset.counts, strict=True)):
        numbers = [n for n, p in enumerate(dataset.photographs) if p.class_index == index]
        shown.append(ShownClass(label=label, count=count, examples=numbers[:EXAMPLES_PER_CLASS]))
    return {
        "dataset": dataset,
        "classes": shown,
        "with_examples": len(shown) <= MAX_CLASSES_WITH_EXAMPLES,
    }


@blueprint.post("/<name>/delete")
def remove_dataset(name: str) -> Redirect:
    """Delete a data set."""
    delete_dataset(find_dataset(name))
    current_app.logger.warning("deleted the data set %s", name)
    return redirect(url_for(".show_datasets"), 303)


@blueprint.get(f"/<name>/photographs/<int(max={MAX_NUMBER}):number>.jpg")
def serve_photograph(name: str, number: int) -> Response:
    """Return the central square of a photograph."""
    dataset = find_dataset(name)
    if number >= len(dataset.photographs):
        abort(404, "The data set has no such photograph.")
    file = dataset.folder / dataset.photographs[number].path
    made = dataset.created_at.timestamp() if dataset.created_at else 0
    return serve_image_file(file.read_bytes, f"{name}-{made:.0f}-{number}", whole=False)


def find_dataset(name: str) -> Dataset:
    """Find a data set; 404 if there is none of this name."""
    found = read_dataset(context.settings().home, name)
    return found or abort(404, "There is no data set of this name; it may have been deleted.")
