"""The first page: images are taken, classified, and their answers kept for a while."""

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
from app.views import pictures
from app.views.browser_results import RESULTS, TOGETHER, mine, remember
from model.preprocess import ImageError

blueprint = Blueprint("classify", __name__)


@blueprint.get("/")
def form() -> str:
    """Show the area that takes images, a few examples to click, and what was answered before."""
    state = context.ready()
    settings, sessions = context.settings(), context.sessions()
    return render_template(
        "classify.html",
        class_count=len(state.predictor.classes),
        examples=images.examples(sessions, state.version.dataset_id),
        limits=limits(settings),
        mine=find_several(mine(), settings, sessions).values(),
    )


@blueprint.post("/")
def answer() -> Redirect:
    """Classify what was sent: one image leads to its answer, several to a page of theirs."""
    context.ready()
    sent = sent_files(request, context.settings())
    expiry.clean(context.settings(), context.sessions())
    if len(sent) == 1:
        return led_to(kept(read_upload(sent[0], context.settings())))
    items = kept_together(sent)
    token = store_together(items, context.sessions())
    for item in items:
        if "token" in item:
            remember(item["token"], RESULTS)
    remember(token, TOGETHER)
    return redirect(url_for("results.together", token=token), 303)


@blueprint.post(f"/examples/<int(max={context.MOST_ID}):image_id>")
def example(image_id: int) -> Redirect:
    """Classify an example as if it had been sent."""
    context.ready()
    found = images.picture(context.sessions(), image_id)
    if found is None or found.split != "val":
        abort(404, "There is no such example.")
    try:
        data = found.file.read_bytes()
    except OSError:
        abort(404, "The file of this example is no longer there.")
    expiry.clean(context.settings(), context.sessions())
    return led_to(kept(Upload(data=data, filename=shown_name(found.file.name), own=True)))


def led_to(token: str) -> Redirect:
    """Note that this browser made a result, and lead to it."""
    remember(token, RESULTS)
    return redirect(url_for("results.show", token=token), 303)


def kept(upload: Upload) -> str:
    """Answer for an image and keep the answer; give its token."""
    with context.turn():
        found, picture = context.engine().answer_and(
            upload.data, pictures.encode_reduced, own=upload.own
        )
    return store(upload, found, picture, context.settings(), context.sessions())


def kept_together(sent: list[FileStorage]) -> list[Item]:
    """Answer for each image, one after another; when the server fails on one, none is kept."""
    items: list[Item] = []
    try:
        for file in sent:
            items.append(kept_or_refused(file))  # noqa: PERF401 - what is there counts when it fails
    except BaseException:
        for item in items:
            with suppress(DatabaseError, OSError):
                erase(item.get("token", ""), context.settings(), context.sessions())
        raise
    return items


def kept_or_refused(file: FileStorage) -> Item:
    """Answer for an image, or say what is wrong with it."""
    try:
        return {"token": kept(read_upload(file, context.settings()))}
    except (UploadError, ImageError) as error:
        return {"filename": shown_name(file.filename), "reason": str(error)}
