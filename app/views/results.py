"""Results that are kept: their pages, their pictures, and their end."""

from datetime import datetime, timedelta

from flask import Blueprint, Response, abort, redirect, render_template, url_for
from werkzeug.wrappers import Response as Redirect

from app import context
from app.database.tables import Result, Together
from app.uploads.receive import limits
from app.uploads.results import (
    correct_label,
    erase,
    erase_together,
    find,
    find_several,
    find_together,
    picture_file,
)
from app.views.browser_results import RESULTS, TOGETHER, forget, mine
from app.views.format import day, origin
from app.views.pictures import serve_image_file

blueprint = Blueprint("results", __name__, url_prefix="/results")
GONE = "This result does not exist, or its time is up: results are deleted after {days}."
DELETED = "This result does not exist, or it has been deleted."
ANOTHERS = "Only the browser in which a result was made can delete it."


@blueprint.after_request
def unlisted(response: Response) -> Response:
    """Keep pages and pictures out of search engines, should one come to know an address."""
    response.headers["X-Robots-Tag"] = "noindex, nofollow, noarchive"
    return response


@blueprint.get("/<token>")
def show(token: str) -> str:
    """Show a kept answer."""
    found = known(token)
    return render_template(
        "result.html",
        result=found,
        correct=correct_label(found, context.sessions()),
        origin=origin_of(found),
        until=until(found.created_at),
        picture=url_for(".serve_picture", token=token),
        own=token in mine(),
    )


@blueprint.get("/together/<token>")
def together(token: str) -> str:
    """Show what was answered for images that were sent together."""
    found = known_together(token)
    tokens = [item["token"] for item in found.items if "token" in item]
    results = find_several(tokens, context.settings(), context.sessions())
    return render_template(
        "together.html",
        together=found,
        results=results,
        until=until(found.created_at),
        own=token in mine(TOGETHER),
    )


@blueprint.get("/<token>/picture.jpg", endpoint="serve_picture", defaults={"whole": True})
@blueprint.get("/<token>/thumbnail.jpg", endpoint="serve_thumbnail", defaults={"whole": False})
def serve_result_image(token: str, whole: bool) -> Response:
    """Return the stored picture of a result, or its 256×256 square."""
    file = picture_file(context.settings(), known(token).token)
    # Without a version: a browser that kept it for a year would show it after its deletion here.
    etag = token if whole else f"{token}-square"
    return serve_image_file(file.read_bytes, etag, whole=whole, encoded_here=True)


@blueprint.get("/<token>/delete")
def ask(token: str) -> str:
    """Ask whether a result shall be deleted."""
    found = known(token)
    check_own(token, RESULTS)
    return render_template("delete.html", results=[found], back=url_for(".show", token=token))


@blueprint.post("/<token>/delete")
def delete(token: str) -> Redirect:
    """Delete a result and its picture."""
    known(token)
    check_own(token, RESULTS)
    erase(token, context.settings(), context.sessions())
    forget(token, RESULTS)
    return redirect(url_for(".deleted"), 303)


@blueprint.get("/together/<token>/delete")
def ask_together(token: str) -> str:
    """Ask whether all that was sent together shall be deleted."""
    found = known_together(token)
    check_own(token, TOGETHER)
    tokens = [item["token"] for item in found.items if "token" in item]
    results = find_several(tokens, context.settings(), context.sessions())
    back = url_for(".together", token=token)
    return render_template("delete.html", results=list(results.values()), back=back, all=True)


@blueprint.post("/together/<token>/delete")
def delete_together(token: str) -> Redirect:
    """Delete all that was sent together, and the page that lists it."""
    found = known_together(token)
    check_own(token, TOGETHER)
    erase_together(found, context.settings(), context.sessions())
    for item in found.items:
        forget(item.get("token", ""), RESULTS)
    forget(token, TOGETHER)
    return redirect(url_for(".deleted"), 303)


@blueprint.get("/deleted")
def deleted() -> str:
    """Say that something was deleted, and take another image."""
    settings, sessions = context.settings(), context.sessions()
    own = find_several(mine(), settings, sessions).values()
    return render_template("deleted.html", limits=limits(settings), mine=own)


def known(token: str) -> Result:
    """Find a result by its token, or answer 404."""
    return find(token, context.settings(), context.sessions()) or abort(404, gone())


def known_together(token: str) -> Together:
    """Find what was sent together by its token, or answer 404."""
    return find_together(token, context.settings(), context.sessions()) or abort(404, gone())


def gone() -> str:
    """Say why there may be no such result."""
    days = context.settings().upload_days
    return GONE.format(days=f"{days} days" if days > 1 else "a day") if days else DELETED


def check_own(token: str, kind: str) -> None:
    """Answer 403 unless this browser made it."""
    if token not in mine(kind):
        abort(403, ANOTHERS)


def until(made: datetime) -> str | None:
    """Say on which day something is deleted, if ever."""
    days = context.settings().upload_days
    return day(made + timedelta(days=days)) if days else None


def origin_of(found: Result) -> str:
    """Say which training made the weights that answered."""
    state = context.engine().state()
    weights = getattr(state, "predictor", None)
    if weights is not None and weights.identity == found.weights:
        return origin(weights.weights.provenance)
    return f"weights {found.weights[:8]}"
