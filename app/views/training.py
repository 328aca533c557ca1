"""The page /training."""

from flask import Blueprint, abort

blueprint = Blueprint("training", __name__, url_prefix="/training")


@blueprint.get("")
def overview() -> str:
    """Show it."""
    abort(404)
