"""A training image's page, and the pictures of the data set, all found by id."""

import hashlib

from flask import Blueprint, Response, abort, render_template, url_for

from app import catalogue
from app.catalogue import Picture
from app.engine import Answer
from app.views import pictures, rooms
from app.views.wording import origin
from model.images import ImageError, central_square, decode

blueprint = Blueprint("images", __name__, url_prefix="/images")
ONE = f"/<int(max={rooms.MOST_ID}):image_id>"
GONE = "The file of this image has been moved, changed or damaged since it was indexed."


@blueprint.get(ONE)
def show(image_id: int) -> str:
    """Show what the network says of a training image, and its nearest others."""
    state = rooms.ready()
    image = known(image_id)
    version = image.sha256[:12]
    return render_template(
        "image.html",
        image=image,
        answer=answer_for(image),
        origin=origin(state.predictor.weights.provenance),
        square=url_for("images.thumbnail", image_id=image.id, v=version),
        picture=url_for("images.picture", image_id=image.id, v=version),
    )


@blueprint.get(f"{ONE}/thumbnail.jpg")
def thumbnail(image_id: int) -> Response:
    """Give the 256×256 that the network sees."""
    return serve(known(image_id), whole=False)


@blueprint.get(f"{ONE}/picture.jpg")
def picture(image_id: int) -> Response:
    """Give the whole image, at most 1024 pixels on its longer side."""
    return serve(known(image_id), whole=True)


def known(image_id: int) -> Picture:
    """Find an image by its id, or answer 404."""
    image = catalogue.picture(rooms.sessions(), image_id)
    if image is None:
        abort(404, "There is no image of this number.")
    return image


def answer_for(image: Picture) -> Answer:
    """Answer for an image, or 404 when its file no longer serves."""
    try:
        unchanged(image)
        return rooms.engine().answer_for(image.id)
    except (ImageError, OSError):
        # The message may name the file, which is nobody's business outside.
        abort(404, GONE)


def serve(image: Picture, *, whole: bool) -> Response:
    """Encode an image for the page; a drawing takes its place when the file no longer serves."""
    etag = f"{image.sha256[:32]}-{'whole' if whole else 'square'}"
    if fresh := pictures.not_modified(etag):
        return fresh
    try:
        decoded = decode(unchanged(image))
    except (ImageError, OSError):
        return pictures.missing()
    if whole:
        return pictures.picture(pictures.encode_reduced(decoded), etag)
    return pictures.picture(pictures.encode_square(central_square(decoded)), etag)


def unchanged(image: Picture) -> bytes:
    """Read an image's file. Raises ImageError when it is not the one that was indexed."""
    data = image.file.read_bytes()
    if hashlib.sha256(data).hexdigest() != image.sha256:
        raise ImageError("The file has changed since it was indexed.")
    return data
