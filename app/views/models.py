"""The weights files found on disk, and switching between them with the administrator's token."""

import hmac

from flask import (
    Blueprint,
    Response,
    abort,
    current_app,
    make_response,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from werkzeug.wrappers import Response as Redirect

from app import context
from app.database.session import DatabaseError
from app.inference.state import LabelsOnly, NotReady, Ready
from app.inference.switch_weights import UnindexedWeights, switch_weights
from app.inference.weights_files import (
    WeightsFile,
    find_index_versions_by_weights,
    find_served_key,
    list_weights_files,
)
from app.problems import PROBLEM_KINDS
from app.serving.limits import report_wrong_token
from app.serving.loopback import is_open_switching

blueprint = Blueprint("models", __name__, url_prefix="/models")
SWITCHED_KEY = "switched"
"""Where the session keeps what was switched to, for the next page."""


@blueprint.get("")
def show_models() -> str:
    """Show the weights in service, and every weights file found."""
    settings, state = context.settings(), context.loader().get_state()
    models = list_weights_files(settings.home)
    missing = state if isinstance(state, NotReady) else None
    if isinstance(state, LabelsOnly):
        missing = state.missing
    return render_template(
        "models.html",
        models=models,
        selected=next((model for model in models if model.selected), None),
        predictor=None if isinstance(state, NotReady) else state.predictor,
        version=state.version if isinstance(state, Ready) else None,
        served_key=find_served_key_now(models),
        notice=PROBLEM_KINDS[missing.reason].meaning if missing else "",
        command=missing.command if missing else "",
        indexes=find_fitting_indexes(),
        can_switch=bool(settings.admin_token) or is_open_switching(settings, request.host),
        token_needed=bool(settings.admin_token),
        being_indexed=context.background_index().is_running,
        switched=session.pop(SWITCHED_KEY, None),
    )


@blueprint.post("")
def switch_model() -> Redirect | Response:
    """Switch to a weights file; ask first if no index was built with it."""
    check_admin_token(request.form.get("token", ""))
    done = switch_weights(
        context.settings(),
        context.sessions(),
        request.form.get("file", ""),
        unindexed="serve" if request.form.get("consent") == "yes" else "ask",
    )
    if isinstance(done, UnindexedWeights):
        question = render_template(
            "models_confirm.html",
            model=done.model,
            why=done.why,
            token_needed=bool(context.settings().admin_token),
        )
        return make_response(question, 409)
    current_app.logger.warning("switched to the weights %s", done.model.key)
    # This process reads the new pair now; others do so at their next request.
    context.loader().get_latest_state()
    session[SWITCHED_KEY] = {"key": done.model.key, "index": done.index}
    return redirect(url_for(".show_models"), 303)


def find_served_key_now(models: list[WeightsFile]) -> str | None:
    """Return which of the weights files is in service; None if none of them is."""
    state = context.loader().get_state()
    return (
        None if isinstance(state, NotReady) else find_served_key(models, state.predictor.identity)
    )


def check_admin_token(sent: str) -> None:
    """Abort with 403 unless this is the administrator's token.

    No token is needed where app/serving/loopback.py says so. An address that has sent too many
    wrong ones does not get here (app/serving/limits.py).
    """
    token = context.settings().admin_token
    if is_open_switching(context.settings(), request.host):
        return
    if not token:
        abort(403, "Switching is off: this server was started without ALEXNET_ADMIN_TOKEN.")
    if not hmac.compare_digest(sent.encode(), token.encode()):
        report_wrong_token("administrator")
        abort(403, "Wrong token. Nothing was changed.")


def find_fitting_indexes() -> dict[str, str] | None:
    """Return the index version built with each weights, by identity; None without a database."""
    try:
        return find_index_versions_by_weights(context.settings().home, context.sessions())
    except DatabaseError:
        return None
