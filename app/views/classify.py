"""The first page: it takes images, classifies them and stores the results."""

from contextlib import suppress
from dataclasses import replace

from flask import Blueprint, abort, redirect, render_template, request, url_for
from werkzeug.datastructures import FileStorage
from werkzeug.wrappers import Response as Redirect

from app import context
from app.database.images import find_examples, find_image
from app.database.new_home import make_first_tables
from app.database.session import DatabaseError, are_tables_current
from app.inference.classify import TRUSTED, classify_image
from app.inference.state import LabelsOnly, NotReadyError, Ready, describe_outdated_tables
from app.uploads.receive import (
    Upload,
    UploadError,
    describe_upload_limits,
    list_sent_files,
    make_decode_request,
    make_display_name,
)
from app.uploads.results import (
    BatchItem,
    delete_result,
    find_own_batches,
    find_own_results,
    store_batch,
    store_result,
)
from app.views.ownership import read_owner, remember_browser
from app.views.pictures import encode_picture
from app.views.setup import describe_index_step
from model.image.decode import ImageError

blueprint = Blueprint("classify", __name__)
blueprint.before_request(remember_browser)


@blueprint.get("/")
def show_classify_form() -> str:
    """Show the upload form, a few examples to click, and this browser's earlier results."""
    state = require_classifier()
    settings, sessions = context.settings(), context.sessions()
    version = state.version if isinstance(state, Ready) else None
    return render_template(
        "classify.html",
        class_count=len(state.predictor.classes),
        examples=find_examples(sessions, version.dataset_id) if version else [],
        index_step=describe_index_step() if isinstance(state, LabelsOnly) else None,
        limits=describe_upload_limits(settings),
        own_results=find_own_results(read_owner(), settings, sessions),
        own_batches=find_own_batches(read_owner(), settings, sessions),
    )


@blueprint.post("/")
def submit_classify_form() -> Redirect:
    """Classify the uploaded images: one leads to its result, several to a page of results."""
    require_classifier()
    sent = list_sent_files(request, context.settings())
    if len(sent) == 1:
        return redirect_to_result(classify_and_store(context.accept_upload(sent[0])))
    items = classify_batch(sent)
    token = store_batch(items, context.sessions(), owner=read_owner())
    return redirect(url_for("results.show_batch", token=token), 303)


@blueprint.post(f"/examples/<int(max={context.MAX_ID}):image_id>")
def classify_example(image_id: int) -> Redirect:
    """Classify an example from the validation set as if it had been uploaded."""
    require_classifier()
    found = find_image(context.sessions(), image_id)
    if found is None or found.split != "val":
        abort(404, "There is no such example.")
    try:
        data = found.file.read_bytes()
    except OSError:
        abort(404, "The file of this example no longer exists.")
    upload = Upload(data=data, filename=make_display_name(found.file.name), server_file=True)
    return redirect_to_result(classify_and_store(upload))


def require_classifier() -> Ready | LabelsOnly:
    """Return the network in service, when there are tables for its results.

    Makes them in a home that has weights but no index yet. Raises NotReadyError.
    """
    state = context.require_serving()
    if isinstance(state, LabelsOnly):
        make_first_tables(context.settings(), context.sessions())
        if not are_tables_current(context.sessions()):
            raise NotReadyError(describe_outdated_tables())
    return state


def redirect_to_result(token: str) -> Redirect:
    """Redirect to a result's page."""
    return redirect(url_for("results.show_result", token=token), 303)


def classify_and_store(upload: Upload) -> str:
    """Classify an image and store the result with its picture; return its token."""
    settings, sessions = context.settings(), context.sessions()
    # A file of the server may be larger than an upload.
    limits = TRUSTED if upload.server_file else make_decode_request(settings)
    with context.compute_slot():
        classification, image = classify_image(
            context.require_serving(),
            sessions,
            upload.data,
            decode=context.decoder().decode,
            request=replace(limits, picture=True),
        )
        context.metrics().observe_stages(classification.milliseconds)
        picture = encode_picture(image.picture)
    token = store_result(upload, classification, picture, settings, sessions, owner=read_owner())
    context.upload_cleaner().note_stored(len(picture))
    return token


def classify_batch(sent: list[FileStorage]) -> list[BatchItem]:
    """Classify images one after another; if the server fails on one, none of them is stored."""
    items: list[BatchItem] = []
    try:
        for file in sent:
            items.append(classify_batch_item(file))  # noqa: PERF401 - the partial list is needed
    except BaseException:
        for item in items:
            with suppress(DatabaseError, OSError):
                delete_result(item.get("token", ""), context.settings(), context.sessions())
        raise
    return items


def classify_batch_item(file: FileStorage) -> BatchItem:
    """Classify an image, or note why it cannot be read."""
    try:
        return {"token": classify_and_store(context.accept_upload(file))}
    except (UploadError, ImageError) as error:
        return {"filename": make_display_name(file.filename), "reason": str(error)}
