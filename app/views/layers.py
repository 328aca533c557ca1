"""The page /layers."""

from flask import Blueprint, abort

blueprint = Blueprint("layers", __name__, url_prefix="/layers")


@blueprint.get("")
def show() -> str:
    """Show it."""
    abort(404)
