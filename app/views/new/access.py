"""Who may enter the classroom: the administrator, before a byte of what is sent is read."""

from flask import (
    Blueprint,
    Response,
    abort,
    make_response,
    redirect,
    render_template,
    request,
    url_for,
)
from werkzeug.wrappers import Response as Redirect

from app import context
from app.classroom.datasets import NAME
from app.classroom.pictures import MAX_FORM_PARTS
from app.serving.loopback import is_open_switching
from app.uploads.receive import FORM_OVERHEAD_BYTES
from app.views.administrator import find_token_problem, is_administrator

CLOSED = "Only the administrator may do this: open /new and enter the token there."


def guard_classroom(blueprint: Blueprint) -> None:
    """Let only the administrator enter a blueprint's pages; add the form that takes the token."""
    # For the whole application, since the check of forms, which reads what is sent, is one too.
    blueprint.before_app_request(check_entry)
    blueprint.post("/token")(enter_token)


def check_entry() -> Response | None:
    """Ask for the token, or refuse; let a zip be larger than what is sent elsewhere."""
    if request.blueprint != "new" or request.endpoint == "new.enter_token":
        return None
    if not may_enter():
        if request.method == "POST":
            abort(403, CLOSED)
        status = 200 if request.endpoint == "new.show_datasets" else 403
        return make_response(render_entry(), status)
    if request.endpoint == "new.make_from_zip":
        request.max_content_length = context.settings().dataset_bytes + FORM_OVERHEAD_BYTES
    if request.endpoint == "new.make_from_pictures":
        request.max_form_parts = MAX_FORM_PARTS
    return None


def may_enter() -> bool:
    """Whether this browser has sent the token, or needs none."""
    return is_administrator() or is_open_switching(context.settings(), request.host)


def enter_token() -> Redirect | Response:
    """Take the administrator's token; lead back to the data set that was asked for."""
    if problem := find_token_problem(request.form.get("token", "")):
        return make_response(render_entry(problem), 403)
    name = request.form.get("name", "")
    address = url_for("new.show_dataset", name=name) if NAME.fullmatch(name) else None
    return redirect(address or url_for("new.show_datasets"), 303)


def render_entry(problem: str = "") -> str:
    """Render the form that asks for the token."""
    return render_template(
        "new_token.html",
        problem=problem,
        can_enter=bool(context.settings().admin_token),
        name=(request.view_args or {}).get("name") or request.form.get("name", ""),
    )
