"""A training image's page, and the dataset's images by id."""

import hashlib

from flask import Blueprint, Response, abort, render_template, url_for

from app import context
from app.database.browse import ImageOrder, find_position
from app.database.images import CatalogueImage, find_image
from app.inference.classify import Classification, classify_image
from app.views.breadcrumb import read_breadcrumb
from app.views.explore import read_order
from app.views.format import describe_provenance
from app.views.pictures import serve_image_file
from model.image.decode import ImageError

blueprint = Blueprint("images", __name__, url_prefix="/images")
IMAGE_RULE = f"/<int(max={context.MAX_ID}):image_id>"
FILE_GONE = "The file of this image has been moved, changed or damaged since it was indexed."


@blueprint.get(IMAGE_RULE)
def show_image(image_id: int) -> str:
    """Show a training image, its classification and its nearest neighbours."""
    state = context.require_ready()
    image, order = find_image_or_404(image_id), read_order("images", ImageOrder.NAME)
    version = image.sha256[:12]
    return render_template(
        "image.html",
        image=image,
        order=None if order is ImageOrder.NAME else order.value,
        place=find_position(context.sessions(), state.version.id, image, order),
        page_size=context.settings().page_size,
        breadcrumb=read_breadcrumb(image),
        answer=classify_image_or_404(image),
        weights=describe_provenance(state.predictor.provenance),
        config=state.predictor.config,
        square=url_for("images.serve_thumbnail", image_id=image.id, v=version),
        picture=url_for("images.serve_picture", image_id=image.id, v=version),
    )


@blueprint.get(f"{IMAGE_RULE}/thumbnail.jpg", endpoint="serve_thumbnail", defaults={"whole": False})
@blueprint.get(f"{IMAGE_RULE}/picture.jpg", endpoint="serve_picture", defaults={"whole": True})
def serve_image(image_id: int, whole: bool) -> Response:
    """Return the whole image, at most 1024 pixels on its longer side, or its 256×256 square."""
    image = find_image_or_404(image_id)
    etag = f"{image.sha256[:32]}-{'whole' if whole else 'square'}"
    return serve_image_file(lambda: read_unchanged(image), etag, whole=whole, version=etag)


def find_image_or_404(image_id: int) -> CatalogueImage:
    """Find an image by its id; 404 if there is none."""
    return find_image(context.sessions(), image_id) or abort(404, "No image has this number.")


def classify_image_or_404(image: CatalogueImage) -> Classification:
    """Classify an image of the dataset, waiting for a turn; 404 if its file cannot be used."""
    try:
        with context.compute_slot():
            data = read_unchanged(image)
            classification, _ = classify_image(
                context.require_ready(),
                context.sessions(),
                data,
                decode=context.decoder().decode,
                without=image.id,
            )
            context.metrics().observe_stages(classification.milliseconds)
            return classification
    except (ImageError, OSError):
        # The error may name the file's path, which is not for visitors.
        abort(404, FILE_GONE)


def read_unchanged(image: CatalogueImage) -> bytes:
    """Read an image's file. Raises ImageError when it is not the file that was indexed."""
    data = image.file.read_bytes()
    if hashlib.sha256(data).hexdigest() != image.sha256:
        raise ImageError("The file has changed since it was indexed.")
    return data
