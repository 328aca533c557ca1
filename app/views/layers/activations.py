"""Shared by the pages Filters and Layers: an image's activations, and where they are strongest."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from flask import Response, abort, current_app, request, url_for
from PIL.Image import Image

from app import context
from app.database.images import CatalogueImage, find_examples
from app.inference.lru_cache import LruCache
from app.inference.state import Ready
from app.views.current_image import CurrentImage, get_current_image
from app.views.format import format_distance
from app.views.pictures import encode_png, make_picture_response
from app.web import check_not_modified
from model.image.preprocess import CENTRE_CROP, crop_offsets
from model.network.config import AlexNetConfig
from model.predict import Floats, Predictor
from model.visualization.activations import Activations, trace_activations
from model.visualization.receptive_field import ReceptiveField

OTHER_NETWORK = (
    "The image was classified by another network than the one in service, and its activations are "
    "those of that network. Classify it again to see those of the current one."
)
MAX_CACHED_ACTIVATIONS = 8
"""Images whose activations are in memory at a time: 4 MB each for the paper's network."""


@dataclass(frozen=True, kw_only=True)
class Rectangle:
    """A rectangle in pixels of the 256 × 256 image."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, kw_only=True)
class Peak:
    """The maximum of a feature map: its value and its row and column, from 1.

    side: rows and columns of the map. map: the area that the whole map covers on the image.
    cell: the part of it that belongs to the maximum. sees: the maximum's receptive field, clipped
    to the image.
    """

    value: float
    row: int
    column: int
    side: int
    map: Rectangle
    cell: Rectangle
    sees: Rectangle


def compute_activations(image: CurrentImage) -> Activations:
    """Return the activations for an image, cached; waits for a free slot to compute them.

    409 for an upload that another network classified.
    """
    predictor = context.require_predictor()
    check_network(image, predictor)

    def compute() -> Activations:
        with context.compute_slot():
            return trace_activations(predictor, image.read_square(predictor))

    return get_activation_cache().get(("activations", predictor.identity, image.key), compute)


def require_current_image() -> CurrentImage:
    """Return the image named by the URL of a picture; 404 if it names none, 409 as above."""
    image = get_current_image(or_last=False) or abort(
        404, "The URL does not say which image to show (`?of=`)."
    )
    check_network(image, context.require_predictor())
    return image


def check_network(image: CurrentImage, predictor: Predictor) -> None:
    """Abort with 409 if an upload was classified by another network."""
    if not image.is_of(predictor):
        abort(409, OTHER_NETWORK)


def get_activation_cache() -> LruCache:
    """Return the cache of activations."""
    cache: LruCache = current_app.extensions["activations"]
    return cache


def find_peak(values: Floats, field: ReceptiveField | None, config: AlexNetConfig) -> Peak:
    """Find the maximum of a feature map, float32 [side, side], and its place on the image."""
    assert field is not None, "neurons have no position"
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    place, step = locate_map(field, len(values), config), field.stride
    return Peak(
        value=float(values[row, column]),
        row=int(row) + 1,
        column=int(column) + 1,
        side=len(values),
        map=place,
        cell=Rectangle(
            left=place.left + step * column, top=place.top + step * row, width=step, height=step
        ),
        sees=locate_receptive_field(field, int(row), int(column), config),
    )


def locate_receptive_field(
    field: ReceptiveField, row: int, column: int, config: AlexNetConfig
) -> Rectangle:
    """Return what a position of a map sees of the image, clipped to the image."""
    crop_offset = crop_offsets(config.side, config.crop)[CENTRE_CROP][0]
    columns, rows = (
        [min(max(crop_offset + edge, 1), config.side - 1) for edge in field.extent(along)]
        for along in (column, row)
    )
    return Rectangle(
        left=columns[0], top=rows[0], width=columns[1] - columns[0], height=rows[1] - rows[0]
    )


def locate_map(field: ReceptiveField, side: int, config: AlexNetConfig) -> Rectangle:
    """Return the area of the image that a map of side × side covers, of the centre crop."""
    first = crop_offsets(config.side, config.crop)[CENTRE_CROP][0] + field.start - field.stride / 2
    return Rectangle(left=first, top=first, width=field.stride * side, height=field.stride * side)


def make_picture_version(image: CurrentImage) -> str:
    """Return what a picture depends on, for its URL and ETag: the weights and the image."""
    return f"{context.require_predictor().identity[:12]}-{image.key[:22]}"


def check_picture_not_modified(image: CurrentImage, name: str) -> Response | None:
    """Return a 304 response if the browser already has this picture."""
    etag = f"{make_picture_version(image)}-{name}"
    return check_not_modified(etag, version="" if image.private else etag)


def send_picture(image: CurrentImage, name: str, picture: Image) -> Response:
    """Return a picture of an image's activations as a PNG response."""
    etag = f"{make_picture_version(image)}-{name}"
    return make_picture_response(
        encode_png(picture), etag, "image/png", version="" if image.private else etag
    )


def list_examples() -> list[CatalogueImage]:
    """List a few validation images to choose from, if there is an index."""
    state = context.loader().get_state()
    if not isinstance(state, Ready):
        return []
    return find_examples(context.sessions(), state.version.dataset_id)


def make_same_image_url(endpoint: str, **values: Any) -> str:
    """Return the URL of another page for the same image.

    It names the image only if this page's own URL does: an upload is visible to anyone who has
    its token, so a URL that is passed on must not reveal it.
    """
    return url_for(endpoint, **values, of=request.args.get("of") or None)


def make_activation_picture_url(endpoint: str, image: CurrentImage, **values: Any) -> str:
    """Return the URL of a picture of an image's activations."""
    return url_for(endpoint, **values, of=image.of, v=make_picture_version(image))


def format_response(value: float) -> str:
    """Format a response with three significant digits or one decimal, and a true minus sign."""
    return f"{'−' if value < 0 else ''}{format_distance(abs(value))}"


def name_activation(config: AlexNetConfig) -> str:
    """Return the display name of the activation function."""
    return "ReLU" if config.activation == "relu" else config.activation


def list_template_functions() -> dict[str, Callable[..., str]]:
    """Return the functions that the templates of these pages use."""
    return {
        "onward": make_same_image_url,
        "picture_of": make_activation_picture_url,
        "activation": name_activation,
    }
