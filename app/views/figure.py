"""The page /figure-4."""

from flask import Blueprint, abort

blueprint = Blueprint("figure", __name__, url_prefix="/figure-4")


@blueprint.get("")
def show() -> str:
    """Show it."""
    abort(404)
