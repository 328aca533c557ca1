"""The page /map."""

from flask import Blueprint, abort

blueprint = Blueprint("map", __name__, url_prefix="/map")


@blueprint.get("")
def show() -> str:
    """Show it."""
    abort(404)
