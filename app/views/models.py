"""The weights found on disk, and switching the ones in use, for whoever knows the token."""

import hmac
import math

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
from flask.blueprints import BlueprintSetupState
from werkzeug.wrappers import Response as Redirect

from app import context
from app.database.session import DatabaseError
from app.inference.loader import NotReady
from app.inference.switch_weights import Unindexed, switch
from app.inference.weights_files import fitting, read_models
from app.problems import KINDS
from app.tries import Tries
from app.views.format import origin

blueprint = Blueprint("models", __name__, url_prefix="/models")
blueprint.add_app_template_filter(origin)
SAID = "switched"
OFF = "Switching is off: this server was started without ALEXNET_ADMIN_TOKEN."
WRONG = "That is not the administrator's token. Nothing was switched."
TOO_OFTEN = "A wrong token was sent too often; nobody may switch for a minute."


@blueprint.record_once
def count_tries(state: BlueprintSetupState) -> None:
    """Count wrong tokens, as long as the application runs."""
    state.app.extensions["tries"] = Tries()


@blueprint.get("")
def show() -> str:
    """Show what is in use, and every weights file found."""
    models, state = read_models(context.settings().home), context.engine().state()
    return render_template(
        "models.html",
        models=models,
        active=next((model for model in models if model.active), None),
        serving=state,
        notice=KINDS[state.reason].meaning if isinstance(state, NotReady) else "",
        fits=versions(),
        may=bool(context.settings().admin_token),
        switched=session.pop(SAID, None),
    )


@blueprint.post("")
def choose() -> Redirect | Response:
    """Switch to a file, or ask first where no index fits it."""
    check_token(request.form.get("token", ""))
    done = switch(
        context.settings(),
        context.sessions(),
        request.form.get("file", ""),
        consent=request.form.get("consent") == "yes",
    )
    if isinstance(done, Unindexed):
        asking = render_template("models_ask.html", model=done.model, why=done.why)
        return make_response(asking, 409)
    current_app.logger.warning("switched to the weights of %s", done.model.key)
    # This process reads the new pair now; others when they are next asked.
    context.engine().settled()
    session[SAID] = {"key": done.model.key, "index": done.index}
    return redirect(url_for(".show"), 303)


def check_token(sent: str) -> None:
    """Answer 403 unless this is the token that was set; 429 after too many wrong ones."""
    token = context.settings().admin_token
    tries: Tries = current_app.extensions["tries"]
    if not token:
        abort(403, OFF)
    if (seconds := tries.wait()) > 0:
        abort(429, TOO_OFTEN, retry_after=math.ceil(seconds))
    if not hmac.compare_digest(sent.encode(), token.encode()):
        tries.failed()
        abort(403, WRONG)


def versions() -> dict[str, str] | None:
    """The index version that fits each weights, by identity; None when the database is away."""
    try:
        return fitting(context.settings().home, context.sessions())
    except DatabaseError:
        return None
