"""The review: contested labels, leaks, duplicates and outliers, and the list of corrections."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from flask import Blueprint, Response, abort, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as Redirect

from app import context
from app.database.images import CatalogueImage, find_images
from app.inference.state import Ready
from app.review import corrections as listed
from app.review.correction_list import format_corrections_csv, format_corrections_json
from app.review.corrections import (
    ACTIONS,
    MAX_NOTE_LENGTH,
    CorrectionError,
    WantedCorrection,
)
from app.review.zip_export import plan_zip, stream_zip
from app.serving.loopback import is_open_switching
from app.views.administrator import find_token_problem, is_administrator
from app.views.explore import MAX_QUERY_LENGTH, PageLinks, read_order, read_page_number
from app.views.review.findings import (
    Findings,
    PairFinding,
    ReviewQuery,
    Show,
    Sort,
    count_findings,
    find_findings,
)
from index.review.stored import Review

blueprint = Blueprint("review", __name__, url_prefix="/review")
ITEMS_PER_PAGE = 24
MAX_LISTED = 1000
"""Images that can be listed at once: more than a page has, since the map sends whole regions."""
FILTERS = ("show", "sort", "split", "label", "guess", "q", "page")
TITLES = {
    Show.LABELS: "Doubtful labels",
    Show.LEAKS: "Leaks",
    Show.DUPLICATES: "Duplicates",
    Show.OUTLIERS: "Outliers",
    Show.ALL: "All images",
}
SORTS = {Sort.DOUBT: "doubt", Sort.LOSS: "loss", Sort.DISTANCE: "distance"}


@dataclass(frozen=True, kw_only=True)
class ReviewedImage:
    """An image as the page shows it.

    guess: the network's label; empty for a class that the data set does not have. doubt, loss,
    distance: as stored; distance is None for the only image of a class. action: what is listed.
    """

    picture: CatalogueImage
    proposed: str
    guess: str
    doubt: float
    loss: float
    distance: float | None
    contested: bool
    action: str


@blueprint.get("")
def show_review() -> str:
    """Show a page of a part of the review."""
    state = context.require_ready()
    if state.review is None:
        return render_template("review_missing.html", command="flask index look")
    labels = listed.read_labels(context.sessions(), state.version.dataset_id)
    text, number = read_file_query(), read_page_number()
    query = read_review_query(state, text, labels)
    found = find_findings(state.review, query)
    last = max(1, -(-len(found) // ITEMS_PER_PAGE))
    if number > last:
        abort(404, "The review does not have that many pages.")
    shown = describe_findings(state, state.review, found, number, labels)
    return render_template(
        "review.html",
        query=query,
        text=text,
        titles=TITLES,
        sorts=SORTS,
        counts=count_findings(state.review),
        found=len(found),
        sampled=state.sample is not None and not state.sample.whole,
        total=len(state.review.ids),
        images=shown if query.show not in (Show.LEAKS, Show.DUPLICATES) else [],
        pairs=shown if query.show in (Show.LEAKS, Show.DUPLICATES) else [],
        listed=len(listed.list_corrections(context.sessions(), state.version.dataset_id)),
        url_with=make_url,
        pages=PageLinks(number=number, last=last, url=lambda n: make_url(page=n)),
        **describe_correcting(state),
    )


@blueprint.post("")
def add_corrections() -> Redirect:
    """List what is to be done about the selected images.

    They come as a field `image` each or, from the map, as one field `images` of numbers with commas
    between, and lead on to the list.
    """
    check_write_access()
    state = context.require_ready()
    action = next((one for one in ACTIONS if one == request.form.get("action")), None)
    many = [text for text in request.form.get("images", "").split(",") if text]
    texts = [*request.form.getlist("image"), *many]
    if action is None or not texts:
        abort(400, "Select images, and what is to be done about them.")
    if len(texts) > MAX_LISTED or not all(is_id(text) for text in texts):
        abort(400, f"Select at most {MAX_LISTED:,} images, by their numbers.")
    ids = check_known(state, [int(text) for text in texts])
    classes = read_new_classes(state, ids) if action == "relabel" else [None] * len(ids)
    listed.enter_corrections(
        context.sessions(),
        [
            WantedCorrection(
                image_id=image,
                action=action,
                class_id=class_id,
                note=" ".join(request.form.get("note", "").split()),
            )
            for image, class_id in zip(ids, classes, strict=True)
        ],
    )
    return redirect(url_for(".show_corrections") if many else make_url(), 303)


@blueprint.get("/corrections")
def show_corrections() -> str:
    """Show the list of corrections."""
    version = context.require_ready().version
    found = listed.list_corrections(context.sessions(), version.dataset_id)
    return render_template(
        "corrections.html",
        corrections=found,
        can_write=can_write(),
        token_needed=bool(context.settings().admin_token) and not is_administrator(),
    )


@blueprint.post("/corrections")
def remove_correction() -> Redirect:
    """Take an image off the list."""
    check_write_access()
    text = request.form.get("image", "")
    if not is_id(text):
        abort(400, "Images are identified by their numbers.")
    listed.delete_correction(context.sessions(), int(text))
    return redirect(url_for(".show_corrections"), 303)


@blueprint.get("/corrections.csv", endpoint="export_csv", defaults={"form": "csv"})
@blueprint.get("/corrections.json", endpoint="export_json", defaults={"form": "json"})
def export_corrections(form: str) -> Response:
    """Export the list of corrections, for `flask data apply`."""
    found = listed.list_corrections(context.sessions(), context.require_ready().version.dataset_id)
    text = format_corrections_csv(found) if form == "csv" else format_corrections_json(found)
    response = Response(text, mimetype="text/csv" if form == "csv" else "application/json")
    response.headers["Content-Disposition"] = f"attachment; filename=corrections.{form}"
    return response


@blueprint.post("/corrections.zip")
def export_zip() -> Response:
    """Export the list with its photographs, byte for byte; only for who may write it.

    Others are shown the photographs re-encoded, without what their files say about their makers.
    """
    check_write_access()
    found = listed.list_corrections(context.sessions(), context.require_ready().version.dataset_id)
    images = find_images(context.sessions(), [one.image_id for one in found])
    try:
        photographs = plan_zip(found, {image: one.file for image, one in images.items()})
    except CorrectionError as error:
        abort(413, str(error))
    response = Response(stream_zip(found, photographs), mimetype="application/zip")
    response.headers["Content-Disposition"] = "attachment; filename=corrections.zip"
    response.cache_control.no_store = True
    return response


def describe_correcting(state: Ready) -> dict[str, Any]:
    """Return what a form for corrections needs: the labels, and who may send it."""
    return {
        "labels": listed.read_labels(context.sessions(), state.version.dataset_id),
        "can_write": can_write(),
        "token_needed": bool(context.settings().admin_token) and not is_administrator(),
        "max_note": MAX_NOTE_LENGTH,
    }


def can_write() -> bool:
    """Whether this server takes corrections for this request."""
    settings = context.settings()
    return bool(settings.admin_token) or is_open_switching(settings, request.host)


def check_write_access() -> None:
    """Abort with 403 unless corrections are on and the administrator's token was sent."""
    if not can_write():
        abort(403, "Corrections are off: this server was started without ALEXNET_ADMIN_TOKEN.")
    if problem := find_token_problem(request.form.get("token", "")):
        abort(403, problem)


def require_review(state: Ready) -> Review:
    """Return the review of the index in service; 404 if it has none."""
    return state.review or abort(404, "This index has not been reviewed.")


def check_known(state: Ready, ids: list[int]) -> list[int]:
    """Return the ids; 400 unless all are of images that were reviewed."""
    known = set(require_review(state).ids.tolist())
    if not known.issuperset(ids):
        abort(400, "One of these images is not part of the review.")
    return ids


def read_new_classes(state: Ready, images: list[int]) -> list[int]:
    """Read the class to give each image: the chosen one, or the one proposed for it."""
    text, review = request.form.get("to", ""), require_review(state)
    if not text:
        proposed: list[int] = review.proposed[review.find_places(np.array(images))].tolist()
        return proposed
    if not is_id(text) or int(text) not in listed.read_labels(
        context.sessions(), state.version.dataset_id
    ):
        abort(400, "The data set has no such class.")
    return [int(text)] * len(images)


def is_id(text: str) -> bool:
    """Whether a text is the number of a row."""
    return text.isascii() and text.isdigit() and 0 < int(text[:11]) <= context.MAX_ID


def read_file_query() -> str:
    """Read what the file names are searched for."""
    return " ".join(request.args.get("q", "").split())[:MAX_QUERY_LENGTH]


def read_review_query(state: Ready, text: str, labels: dict[int, str]) -> ReviewQuery:
    """Read what the address asks for; what is unknown counts as the default."""
    show = read_order("show", Show.LABELS)
    default = Sort.DISTANCE if show is Show.OUTLIERS else Sort.DOUBT
    classes = {
        name: int(value) if is_id(value) and int(value) in labels else 0
        for name in ("label", "guess")
        for value in [request.args.get(name, "")]
    }
    split = request.args.get("split", "")
    sessions, dataset = context.sessions(), state.version.dataset_id
    return ReviewQuery(
        show=show,
        sort=read_order("sort", default),
        split=split if split in ("train", "val") else "",
        named=listed.find_ids_by_file_name(sessions, dataset, text) if text else None,
        **classes,
    )


def make_url(**changes: Any) -> str:
    """Return the address of this view with some changes, on its first page unless one is named."""
    asked = {name: request.args[name] for name in FILTERS if request.args.get(name)}
    if changes:
        asked.pop("page", None)
    return url_for("review.show_review", **asked | changes)


def describe_findings(
    state: Ready, review: Review, found: Findings, number: int, labels: dict[int, str]
) -> list[Any]:
    """Describe one page of what was found: images, or pairs of them with how near they are."""
    start = (number - 1) * ITEMS_PER_PAGE
    places = found.places[start : start + ITEMS_PER_PAGE].tolist()
    pairs = found.pairs[start : start + ITEMS_PER_PAGE]
    every = [*places, *(place for pair in pairs for place in pair.places)]
    ids = [int(review.ids[place]) for place in every]
    pictures = find_images(context.sessions(), ids)
    actions = listed.find_actions(context.sessions(), ids)
    known = {
        place: describe_image(review, place, pictures[image], labels, actions.get(image, ""))
        for place, image in zip(every, ids, strict=True)
        if image in pictures
    }
    if pairs:
        return [(known[p.places[0]], known[p.places[1]], p) for p in pairs if is_known(p, known)]
    return [known[place] for place in places if place in known]


def is_known(pair: PairFinding, known: dict[int, ReviewedImage]) -> bool:
    """Whether the database has both images of a pair."""
    return set(pair.places) <= known.keys()


def describe_image(
    review: Review, place: int, picture: CatalogueImage, labels: dict[int, str], action: str
) -> ReviewedImage:
    """Describe the image at a place of the review."""
    distance = float(review.distances[place])
    return ReviewedImage(
        picture=picture,
        proposed=labels.get(int(review.proposed[place]), ""),
        guess=labels.get(int(review.guesses[place]), ""),
        doubt=float(review.doubts[place]),
        loss=float(review.losses[place]),
        distance=distance if distance < float("inf") else None,
        contested=bool(review.contested[place]),
        action=action,
    )
