"""The page /models."""

from flask import Blueprint, abort

blueprint = Blueprint("models", __name__, url_prefix="/models")


@blueprint.get("")
def show() -> str:
    """Show it."""
    abort(404)
