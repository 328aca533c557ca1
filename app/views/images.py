"""A training image's page, and the pictures of the data set, all found by id."""

import hashlib

from flask import Blueprint, Response, abort, render_template, url_for
from PIL.Image import Image

from app import context
from app.database import browse, images
from app.database.browse import ImageOrder
from app.database.images import Picture
from app.inference.loader import Answer
from app.views import pictures
from app.views.breadcrumb import trail_to
from app.views.explore import order_of
from app.views.format import origin
from model.preprocess import ImageError, central_square, decode

blueprint = Blueprint("images", __name__, url_prefix="/images")
ONE = f"/<int(max={context.MOST_ID}):image_id>"
GONE = "The file of this image has been moved, changed or damaged since it was indexed."


@blueprint.get(ONE)
def show(image_id: int) -> str:
    """Show what the network says of a training image, and its nearest others."""
    state = context.ready()
    image, order = known(image_id), order_of("images", ImageOrder.NAME)
    version = image.sha256[:12]
    return render_template(
        "image.html",
        image=image,
        order=None if order is ImageOrder.NAME else order.value,
        place=browse.place(context.sessions(), state.version.id, image, order),
        page_size=context.settings().page_size,
        trail=trail_to(image),
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
    image = images.picture(context.sessions(), image_id)
    if image is None:
        abort(404, "There is no image of this number.")
    return image


def answer_for(image: Picture) -> Answer:
    """Answer for an image, waiting for a turn, or 404 when its file no longer serves."""
    try:
        with context.turn():
            unchanged(image)
            return context.engine().answer_for(image.id)
    except (ImageError, OSError):
        # The message may name the file, which is nobody's business outside.
        abort(404, GONE)


def serve(image: Picture, *, whole: bool) -> Response:
    """Encode an image for the page; a drawing takes its place when the file no longer serves."""
    etag = f"{image.sha256[:32]}-{'whole' if whole else 'square'}"
    if fresh := pictures.not_modified(etag):
        return fresh
    try:
        with context.turn():
            data = encoded(decode(unchanged(image)), whole=whole)
    except (ImageError, OSError):
        return pictures.missing()
    return pictures.picture(data, etag)


def encoded(image: Image, *, whole: bool) -> bytes:
    """Encode the whole of an image, reduced, or the square that the network sees."""
    if whole:
        return pictures.encode_reduced(image)
    return pictures.encode_square(central_square(image))


def unchanged(image: Picture) -> bytes:
    """Read an image's file. Raises ImageError when it is not the one that was indexed."""
    data = image.file.read_bytes()
    if hashlib.sha256(data).hexdigest() != image.sha256:
        raise ImageError("The file has changed since it was indexed.")
    return data
