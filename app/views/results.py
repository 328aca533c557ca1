"""Results of uploads: their pages, their pictures, and their deletion.

All that is here is for whoever has the address, and no cache may keep it.
"""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, abort, redirect, render_template, url_for
from werkzeug.wrappers import Response as Redirect

from app import context
from app.database.images import find_images
from app.database.new_home import needs_first_tables
from app.database.tables import UploadBatch, UploadResult
from app.inference.classified_files import format_csv
from app.inference.classify import classify_image
from app.inference.classify_files import ClassifiedFile, Outcome, UnclassifiedFile
from app.inference.state import LabelsOnly, NotReady, Ready
from app.uploads.receive import Upload, describe_upload_limits
from app.uploads.results import (
    delete_batch,
    delete_result,
    find_batch,
    find_own_results,
    find_result,
    find_results,
    find_true_label,
    locate_result_picture,
    store_result,
)
from app.views.format import describe_provenance, format_day
from app.views.ownership import is_own, read_owner
from app.views.pictures import serve_image_file
from app.views.setup import describe_index_step
from model.network.config import AlexNetConfig
from model.predict import LabelProbability, Predictor

blueprint = Blueprint("results", __name__, url_prefix="/results")


@blueprint.after_request
def keep_private(response: Response) -> Response:
    """Keep pages and pictures out of caches, and of search engines that come to know an address."""
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Robots-Tag"] = "noindex, nofollow, noarchive"
    return response


@blueprint.get("/<token>")
def show_result(token: str) -> str:
    """Show a stored result."""
    result, state = find_result_or_404(token), context.loader().get_state()
    serving = None if isinstance(state, NotReady) else state
    return render_template(
        "result.html",
        result=result,
        neighbours=list_existing_neighbours(result.neighbours),
        by_pixels=list_existing_neighbours(result.by_pixels),
        current=serving is not None and serving.predictor.identity == result.weights,
        outdated=serving is not None and is_outdated(result, serving),
        index_step=None if isinstance(serving, Ready) else describe_index_step(),
        correct=find_true_label(result, context.sessions()),
        known=list_known_labels(result),
        weights=describe_weights(result),
        config=find_network_config(result),
        until=format_deletion_day(result.created_at),
        picture=url_for(".serve_picture", token=token),
        own=is_own(result),
    )


@blueprint.get("/together/<token>")
def show_batch(token: str) -> str:
    """Show the results of images that were uploaded together."""
    batch = find_batch_or_404(token)
    return render_template(
        "batch.html",
        batch=batch,
        results=find_batch_results(batch),
        until=format_deletion_day(batch.created_at),
        own=is_own(batch),
    )


@blueprint.get("/together/<token>.csv")
def serve_batch_csv(token: str) -> Response:
    """Return the labels of images that were uploaded together, as `flask classify` writes them."""
    batch = find_batch_or_404(token)
    found = find_batch_results(batch)
    outcomes = [
        describe_outcome(item, found.get(item.get("token", "")))
        for item in batch.items
        if "reason" in item or item["token"] in found
    ]
    most = max((len(result.top5) for result in found.values()), default=0)
    response = Response(format_csv(outcomes, most, 0), mimetype="text/csv")
    response.headers.set("Content-Disposition", "attachment", filename="classified.csv")
    return response


def describe_outcome(item: dict[str, str], result: UploadResult | None) -> Outcome:
    """Return one image of a batch as `flask classify` describes a file."""
    if result is None:
        return UnclassifiedFile(file=Path(item["filename"]), reason=item["reason"])
    top = [LabelProbability(**guess) for guess in result.top5]
    return ClassifiedFile(file=Path(result.filename), top=top)


@blueprint.get("/<token>/picture.jpg", endpoint="serve_picture", defaults={"whole": True})
@blueprint.get("/<token>/thumbnail.jpg", endpoint="serve_thumbnail", defaults={"whole": False})
def serve_result_image(token: str, whole: bool) -> Response:
    """Return the stored picture of a result, or its 256×256 square."""
    file = locate_result_picture(context.settings(), find_result_or_404(token).token)
    return serve_image_file(file.read_bytes, "", whole=whole, encoded_here=True)


@blueprint.post("/<token>/again")
def classify_again(token: str) -> Redirect:
    """Classify the kept picture with the network in service; it leads to a new result.

    Only for the browser that sent it: it stores a copy, which deleting the first does not delete.
    """
    result, serving = find_result_or_404(token), context.require_serving()
    check_own(result)
    if is_outdated(result, serving):
        settings, sessions = context.settings(), context.sessions()
        try:
            picture = locate_result_picture(settings, token).read_bytes()
        except FileNotFoundError:
            abort(404, explain_missing_result())
        with context.compute_slot():
            classification = classify_image(serving, sessions, picture)[0]
        context.metrics().observe_stages(classification.milliseconds)
        token = store_result(
            Upload(data=picture, filename=result.filename),
            classification,
            picture,
            settings,
            sessions,
            owner=read_owner(),
            original_sha256=result.sha256,
        )
        context.upload_cleaner().note_stored(len(picture))
    return redirect(url_for(".show_result", token=token), 303)


@blueprint.get("/<token>/delete")
def confirm_delete_result(token: str) -> str:
    """Ask whether to delete a result."""
    result = find_result_or_404(token)
    check_own(result)
    back = url_for(".show_result", token=token)
    return render_template("delete.html", results=[result], back=back)


@blueprint.post("/<token>/delete")
def submit_delete_result(token: str) -> Redirect:
    """Delete a result and its picture."""
    check_own(find_result_or_404(token))
    delete_result(token, context.settings(), context.sessions())
    return redirect(url_for(".show_deleted"), 303)


@blueprint.get("/together/<token>/delete")
def confirm_delete_batch(token: str) -> str:
    """Ask whether to delete all results of images that were uploaded together."""
    batch = find_batch_or_404(token)
    check_own(batch)
    results = list(find_batch_results(batch).values())
    back = url_for(".show_batch", token=token)
    return render_template("delete.html", results=results, back=back, batch=batch)


@blueprint.post("/together/<token>/delete")
def submit_delete_batch(token: str) -> Redirect:
    """Delete all results of images that were uploaded together, and the page that lists them."""
    batch = find_batch_or_404(token)
    check_own(batch)
    delete_batch(batch, context.settings(), context.sessions())
    return redirect(url_for(".show_deleted"), 303)


@blueprint.get("/deleted")
def show_deleted() -> str:
    """Confirm a deletion, and take another image."""
    check_tables_exist()
    settings, sessions = context.settings(), context.sessions()
    own_results = find_own_results(read_owner(), settings, sessions)
    return render_template(
        "deleted.html", limits=describe_upload_limits(settings), own_results=own_results
    )


def find_result_or_404(token: str) -> UploadResult:
    """Find a result by its token; 404 if there is none."""
    check_tables_exist()
    found = find_result(token, context.settings(), context.sessions())
    return found or abort(404, explain_missing_result())


def find_batch_or_404(token: str) -> UploadBatch:
    """Find images that were uploaded together by their token; 404 if there are none."""
    check_tables_exist()
    found = find_batch(token, context.settings(), context.sessions())
    return found or abort(404, explain_missing_result())


def check_tables_exist() -> None:
    """Abort with 404 in a new home, which has no tables yet and no results either."""
    if needs_first_tables(context.settings(), context.sessions()):
        abort(404, explain_missing_result())


def find_batch_results(batch: UploadBatch) -> dict[str, UploadResult]:
    """Find the results of a batch that still exist, by token."""
    tokens = [item["token"] for item in batch.items if "token" in item]
    return find_results(tokens, context.settings(), context.sessions())


def explain_missing_result() -> str:
    """Explain why there may be no such result."""
    days = context.settings().upload_days
    if not days:
        return "This result does not exist or has been deleted."
    lifetime = f"{days} days" if days > 1 else "a day"
    return f"This result does not exist or has expired: results are deleted after {lifetime}."


def format_deletion_day(created: datetime) -> str | None:
    """Name the day on which a result is deleted, if ever."""
    days = context.settings().upload_days
    return format_day(created + timedelta(days=days)) if days else None


def is_outdated(result: UploadResult, serving: Ready | LabelsOnly) -> bool:
    """Whether classifying again gives another answer: by another network, or with neighbours."""
    if serving.predictor.identity != result.weights:
        return True
    return result.index_version_id is None and isinstance(serving, Ready)


def list_existing_neighbours(stored: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the stored neighbours whose images are still there."""
    known = find_images(context.sessions(), (row["id"] for row in stored))
    return [row for row in stored if row["id"] in known and known[row["id"]].file.is_file()]


def describe_weights(result: UploadResult) -> str:
    """Name the training run that made the weights, or the weights where they are no longer used."""
    network = find_network_in_use(result)
    return describe_provenance(network.provenance) if network else f"weights {result.weights[:8]}"


def list_known_labels(result: UploadResult) -> list[str]:
    """List what the network that made a result can recognise; empty if it is not in service."""
    network = find_network_in_use(result)
    return [name.label for name in network.classes] if network else []


def find_network_config(result: UploadResult) -> AlexNetConfig:
    """Return the network that a result is of; the paper's where another one is in service."""
    network = find_network_in_use(result)
    return network.config if network else AlexNetConfig()


def find_network_in_use(result: UploadResult) -> Predictor | None:
    """Return the network that a result was computed with, if it is in service."""
    state = context.loader().get_state()
    if isinstance(state, NotReady) or state.predictor.identity != result.weights:
        return None
    return state.predictor


def check_own(upload: UploadResult | UploadBatch) -> None:
    """Abort with 403 unless this browser sent it."""
    if not is_own(upload):
        abort(403, "Only the browser that uploaded an image can delete it or classify it again.")
