"""The weights files found on disk, and switching between them with the administrator's token."""

from dataclasses import dataclass

from flask import (
    Blueprint,
    Response,
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
from app.serving.loopback import is_open_switching
from app.views.administrator import find_token_problem, is_administrator
from app.views.setup import describe_missing_step

blueprint = Blueprint("models", __name__, url_prefix="/models")
SWITCHED_KEY = "switched"
"""Where the session keeps what was switched to, for the next page."""


@dataclass(frozen=True, kw_only=True)
class ListedWeights:
    """Weights in the list: one file, and the others that hold the same weights."""

    file: WeightsFile
    others: tuple[WeightsFile, ...]


@blueprint.get("")
def show_models() -> str:
    """Show the weights in service, and every weights file found."""
    return render_models()


def render_models(problem: str = "") -> str:
    """Render the page. problem: why nothing was switched; empty if nothing was to be."""
    settings, state = context.settings(), context.loader().get_state()
    models = list_weights_files(settings.home)
    served_key = find_served_key_now(models)
    missing = state if isinstance(state, NotReady) else None
    if isinstance(state, LabelsOnly):
        missing = state.missing
    return render_template(
        "models.html",
        models=group_same_weights(models, served_key),
        problem=problem,
        selected=next((model for model in models if model.selected), None),
        predictor=None if isinstance(state, NotReady) else state.predictor,
        version=state.version if isinstance(state, Ready) else None,
        served_key=served_key,
        notice=PROBLEM_KINDS[missing.reason].meaning if missing else "",
        command=missing.command if missing else "",
        setup_step=describe_missing_step(missing),
        indexes=find_fitting_indexes(),
        can_switch=bool(settings.admin_token) or is_open_switching(settings, request.host),
        token_needed=bool(settings.admin_token) and not is_administrator(),
        by_radio=bool(settings.admin_token),
        is_administrator=is_administrator(),
        being_indexed=context.background_index().is_running,
        switched=session.pop(SWITCHED_KEY, None),
    )


@blueprint.post("")
def switch_model() -> Redirect | Response:
    """Switch to a weights file; ask first if no index was built with it."""
    if problem := find_token_problem(request.form.get("token", "")):
        return make_response(render_models(problem), 403)
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
            token_needed=bool(context.settings().admin_token) and not is_administrator(),
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


def group_same_weights(models: list[WeightsFile], served_key: str | None) -> list[ListedWeights]:
    """Return each weights once, in order: files with the same identity are one entry.

    Of several it is the one in service that is named, else the selected, else the first.
    """
    groups: dict[str, list[WeightsFile]] = {}
    for model in models:
        identity = model.info.identity if model.info and not model.problem else ""
        groups.setdefault(identity or model.key, []).append(model)
    listed = []
    for same in groups.values():
        ranked = sorted(same, key=lambda one: (one.key != served_key, not one.selected))
        listed.append(ListedWeights(file=ranked[0], others=tuple(one for one in ranked[1:])))
    return listed


def find_fitting_indexes() -> dict[str, str] | None:
    """Return the index version built with each weights, by identity; None without a database."""
    try:
        return find_index_versions_by_weights(context.settings().home, context.sessions())
    except DatabaseError:
        return None
