"""The classroom: data sets made in the browser, and how they are made."""

from flask import (
    Blueprint,
    Response,
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
    ClassroomDataset,
    DatasetError,
    Incoming,
    list_datasets,
    make_dataset,
)
from app.classroom.pictures import MAX_PICTURES, read_pictures
from app.classroom.zip_file import read_zip
from app.uploads.receive import make_decode_request
from app.views.new import dataset, training
from app.views.new.access import guard_classroom

blueprint = Blueprint("new", __name__, url_prefix="/new")
FORM_ROWS = 3
"""Classes in the form; a script adds more."""
guard_classroom(blueprint)
dataset.add_pages(blueprint)
training.add_training_actions(blueprint)


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
        max_pictures=MAX_PICTURES,
        max_pictures_bytes=settings.upload_files * settings.upload_bytes,
        rows=FORM_ROWS,
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


@blueprint.post("/from/pictures")
def make_from_pictures() -> Redirect | Response:
    """Make a data set of pictures that were taken or chosen by class."""
    files, settings = request.files.items(multi=True), context.settings()
    try:
        return answer_made(
            store_incoming(read_pictures(request.form, files, settings.upload_bytes))
        )
    except DatasetError as error:
        return answer_problem(error)


def store_incoming(incoming: Incoming) -> ClassroomDataset:
    """Store what was sent as a data set of the name that was sent. Raises DatasetError, OSError."""
    settings = context.settings()
    limits = make_decode_request(settings)

    def check(data: bytes) -> None:
        with context.compute_slot():
            context.decoder().decode(data, limits)

    name = request.form.get("name", "")
    return make_dataset(settings.home, name, incoming, check, settings.dataset_quota)


def answer_made(dataset: ClassroomDataset) -> Redirect:
    """Lead to a data set that has been made."""
    current_app.logger.warning(
        "made the data set %s of %d photographs", dataset.name, len(dataset.photographs)
    )
    return redirect(url_for(".show_dataset", name=dataset.name), 303)


def answer_problem(error: DatasetError) -> Response:
    """Say on the page why nothing was made."""
    page = render_datasets(str(error), request.form.get("name", ""))
    return make_response(page, error.status)
