"""The first page: it takes images, classifies them and stores the results."""

from contextlib import suppress

from flask import Blueprint, abort, redirect, render_template, request, url_for
from werkzeug.datastructures import FileStorage
from werkzeug.wrappers import Response as Redirect

from app import context
from app.database import images
from app.database.session import DatabaseError
from app.uploads import expiry
from app.uploads.receive import Upload, UploadError, limits, read_upload, sent_files, shown_name
from app.uploads.results import Item, erase, find_several, store, store_together
from app.views.pictures import encode_reduced
from app.views.results import BATCHES, RESULTS, own_tokens, remember_token
from model.preprocess import ImageError

blueprint = Blueprint("classify", __name__)


@blueprint.get("/")
def show_classify_form() -> str:
    """Show the upload form, a few examples to click, and this browser's earlier results."""
    state = context.ready()
    settings, sessions = context.settings(), context.sessions()
    return render_template(
        "classify.html",
        class_count=len(state.predictor.classes),
        examples=images.examples(sessions, state.version.dataset_id),
        limits=limits(settings),
        own_results=find_several(own_tokens(), settings, sessions).values(),
    )


@blueprint.post("/")
def classify_uploads() -> Redirect:
    """Classify the uploaded images: one leads to its result, several to a page of results."""
    context.ready()
    sent = sent_files(request, context.settings())
    expiry.clean(context.settings(), context.sessions())
    if len(sent) == 1:
        return redirect_to_result(classify_and_store(read_upload(sent[0], context.settings())))
    items = classify_batch(sent)
    token = store_together(items, context.sessions())
    for item in items:
        if "token" in item:
            remember_token(item["token"], RESULTS)
    remember_token(token, BATCHES)
    return redirect(url_for("results.show_batch", token=token), 303)


@blueprint.post(f"/examples/<int(max={context.MOST_ID}):image_id>")
def classify_example(image_id: int) -> Redirect:
    """Classify an example from the validation set as if it had been uploaded."""
    context.ready()
    found = images.picture(context.sessions(), image_id)
    if found is None or found.split != "val":
        abort(404, "There is no such example.")
    try:
        data = found.file.read_bytes()
    except OSError:
        abort(404, "The file of this example no longer exists.")
    expiry.clean(context.settings(), context.sessions())
    upload = Upload(data=data, filename=shown_name(found.file.name), own=True)
    return redirect_to_result(classify_and_store(upload))


def redirect_to_result(token: str) -> Redirect:
    """Remember that this browser made a result, and redirect to its page."""
    remember_token(token, RESULTS)
    return redirect(url_for("results.show_result", token=token), 303)


def classify_and_store(upload: Upload) -> str:
    """Classify an image and store the result with its picture; return its token."""
    with context.turn():
        found, picture = context.engine().answer_and(upload.data, encode_reduced, own=upload.own)
    return store(upload, found, picture, context.settings(), context.sessions())


def classify_batch(sent: list[FileStorage]) -> list[Item]:
    """Classify images one after another; if the server fails on one, none of them is stored."""
    items: list[Item] = []
    try:
        for file in sent:
            items.append(classify_batch_item(file))  # noqa: PERF401 - the partial list is needed
    except BaseException:
        for item in items:
            with suppress(DatabaseError, OSError):
                erase(item.get("token", ""), context.settings(), context.sessions())
        raise
    return items


def classify_batch_item(file: FileStorage) -> Item:
    """Classify an image, or note why it cannot be read."""
    try:
        return {"token": classify_and_store(read_upload(file, context.settings()))}
    except (UploadError, ImageError) as error:
        return {"filename": shown_name(file.filename), "reason": str(error)}
