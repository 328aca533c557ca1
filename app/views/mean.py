"""The training images nearest to the mean of several that were picked."""

from flask import Blueprint, render_template, request

from app import context
from app.inference.mean_query import FOUND, LEAST, PickError, nearest_to_mean

blueprint = Blueprint("mean", __name__, url_prefix="/explore/mean")
FIELD = "image"


@blueprint.get("")
def show() -> str:
    """Search by the images that the address names."""
    state = context.ready()
    found = nearest_to_mean(state, context.sessions(), image_ids())
    ids = [picked.picture.id for picked in found.picked]
    return render_template(
        "mean.html",
        picked=found.picked,
        without={image: [other for other in ids if other != image] for image in ids},
        fewer=len(ids) > LEAST,
        neighbours=found.neighbours,
        whole=len(found.neighbours) < FOUND,
    )


def image_ids() -> list[int]:
    """Read the numbers of the images. Raises PickError for what is none."""
    texts = request.args.getlist(FIELD)
    for text in texts:
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(context.MOST_ID))):
            raise PickError("An image is named by its number.")
    return [int(text) for text in texts]
