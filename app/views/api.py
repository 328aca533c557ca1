"""The API: what the page answers, as JSON. Nothing that is sent here is kept."""

from dataclasses import asdict

from flask import Blueprint, Response, jsonify, request

from app.uploads import take_upload
from app.views import rooms

blueprint = Blueprint("api", __name__, url_prefix="/api")


@blueprint.post("/classify")
def classify() -> Response:
    """Answer for the image in the multipart field `image`."""
    rooms.ready()
    found = rooms.answer(take_upload(request, rooms.settings()))
    return jsonify(
        top5=[asdict(guess) for guess in found.top5],
        neighbours=[asdict(neighbour) for neighbour in found.neighbours],
    )
