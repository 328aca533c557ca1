"""The first page: an image is taken, classified, and its answer kept for a while."""

from datetime import timedelta

from flask import Blueprint, Response, abort, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as Redirect

from app import catalogue
from app.tables import Result
from app.uploads import (
    Upload,
    accepted,
    correct_label,
    find,
    picture_file,
    shown_name,
    store,
    take_upload,
)
from app.views import pictures, rooms
from app.views.wording import day, origin

blueprint = Blueprint("classify", __name__)
GONE = "This result does not exist, or its time is up: results are deleted after {days}."


@blueprint.get("/")
def form() -> str:
    """Show the area that takes an image, and a few examples to click."""
    state = rooms.ready()
    settings = rooms.settings()
    return render_template(
        "classify.html",
        class_count=len(state.predictor.classes),
        examples=catalogue.examples(rooms.sessions(), state.version.dataset_id),
        limits={"bytes": settings.upload_bytes, "accepted": accepted(settings)},
    )


@blueprint.post("/")
def answer() -> Redirect:
    """Classify the image that was sent, and lead to its answer."""
    rooms.ready()
    return answered(take_upload(request, rooms.settings()))


@blueprint.post(f"/examples/<int(max={rooms.MOST_ID}):image_id>")
def example(image_id: int) -> Redirect:
    """Classify an example as if it had been sent."""
    rooms.ready()
    found = catalogue.picture(rooms.sessions(), image_id)
    if found is None or found.split != "val":
        abort(404, "There is no such example.")
    try:
        data = found.file.read_bytes()
    except OSError:
        abort(404, "The file of this example is no longer there.")
    return answered(Upload(data=data, filename=shown_name(found.file.name)))


def answered(upload: Upload) -> Redirect:
    """Answer for an image, keep the answer, and lead to it."""
    found, kept_picture = rooms.answer_and_picture(upload)
    token = store(upload, found, kept_picture, rooms.settings(), rooms.sessions())
    return redirect(url_for("classify.result", token=token), 303)


@blueprint.get("/results/<token>")
def result(token: str) -> str:
    """Show a kept answer."""
    found = kept(token)
    days = rooms.settings().upload_days
    until = found.created_at + timedelta(days=days) if days else None
    return render_template(
        "result.html",
        result=found,
        correct=correct_label(found, rooms.sessions()),
        origin=origin_of(found),
        until=day(until) if until else None,
        picture=url_for("classify.picture", token=token),
    )


@blueprint.get("/results/<token>/picture.jpg")
def picture(token: str) -> Response:
    """Give the image of a kept answer, as it was encoded here."""
    found = kept(token)
    if fresh := pictures.not_modified(found.token, for_long=False):
        return fresh
    try:
        data = picture_file(rooms.settings(), found.token).read_bytes()
    except OSError:
        return pictures.missing()
    # A browser that kept it for long would show it after it has been deleted here.
    return pictures.picture(data, found.token, for_long=False)


def kept(token: str) -> Result:
    """Find a result by its token, or answer 404."""
    found = find(token, rooms.settings(), rooms.sessions())
    if found is None:
        days = rooms.settings().upload_days
        abort(404, GONE.format(days=f"{days} days" if days > 1 else "a day"))
    return found


def origin_of(found: Result) -> str:
    """Say which training made the weights that answered."""
    state = rooms.engine().state()
    weights = getattr(state, "predictor", None)
    if weights is not None and weights.identity == found.weights:
        return origin(weights.weights.provenance)
    return f"weights {found.weights[:8]}"
