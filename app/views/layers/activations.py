"""What the pages that look inside the network share: its activations, and places on the image."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from flask import Response, abort, current_app, request, url_for
from PIL.Image import Image

from app import context
from app.database.images import CatalogueImage, find_examples
from app.http_cache import not_modified
from app.inference.loader import Ready
from app.inference.lru_cache import LruCache
from app.views.current_image import CurrentImage, get_current_image
from app.views.format import format_distance
from app.views.pictures import encode_png, picture_response
from model.activations import Activations, activations
from model.alexnet import AlexNetConfig
from model.predict import Floats
from model.preprocess import offsets
from model.receptive_field import Field

MAX_CACHED_ACTIVATIONS = 8
"""Images whose activations are in memory at a time; of the paper's network 4 MB each."""


@dataclass(frozen=True, kw_only=True)
class Rectangle:
    """A rectangle on the 256×256, in its pixels."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, kw_only=True)
class Peak:
    """The strongest place of a map: its value, and where it lies, rows and columns from 1.

    side: places of the map's side. map: where the whole map lies on the 256×256. cell: where this
    place does. sees: what of the image it sees, cut at the square's edges.
    """

    value: float
    row: int
    column: int
    side: int
    map: Rectangle
    cell: Rectangle
    sees: Rectangle


def compute_activations(subject: CurrentImage) -> Activations:
    """Give what the network computes of an image, waiting for a turn where it is not kept."""
    predictor = context.require_predictor()

    def compute() -> Activations:
        with context.compute_slot():
            return activations(predictor, subject.square())

    return activation_cache().get(("activations", predictor.identity, subject.key), compute)


def require_current_image() -> CurrentImage:
    """Give the image that the address of a picture names; 404 where it names none."""
    return get_current_image("none") or abort(404, "The address names no image.")


def activation_cache() -> LruCache:
    """Give what was computed last."""
    found: LruCache = current_app.extensions["kept"]
    return found


def find_peak(values: Floats, field: Field | None, config: AlexNetConfig) -> Peak:
    """Find the largest value of a map, float32 [side, side]."""
    assert field is not None, "neurons have no place"
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    into = offsets(config.side, config.crop)[4][0]
    first = into + field.centre - field.step / 2
    whole, step = field.step * len(values), field.step
    across, down = (
        [min(max(into + edge, 1), config.side - 1) for edge in field.span(int(place))]
        for place in (column, row)
    )
    return Peak(
        value=float(values[row, column]),
        row=int(row) + 1,
        column=int(column) + 1,
        side=len(values),
        map=Rectangle(left=first, top=first, width=whole, height=whole),
        cell=Rectangle(left=first + step * column, top=first + step * row, width=step, height=step),
        sees=Rectangle(
            left=across[0], top=down[0], width=across[1] - across[0], height=down[1] - down[0]
        ),
    )


def picture_version(subject: CurrentImage) -> str:
    """Name in an address what pictures are made of: the weights and the image."""
    return f"{context.require_predictor().identity[:12]}-{subject.key[:22]}"


def picture_not_modified(subject: CurrentImage, name: str) -> Response | None:
    """Give the 304 answer where the browser has this picture of the image already."""
    etag = f"{picture_version(subject)}-{name}"
    return not_modified(etag, version="" if subject.private else etag)


def send_picture(subject: CurrentImage, name: str, picture: Image) -> Response:
    """Answer with a picture of what the network computes of an image."""
    etag = f"{picture_version(subject)}-{name}"
    return picture_response(
        encode_png(picture), etag, "image/png", version="" if subject.private else etag
    )


def list_examples() -> list[CatalogueImage]:
    """Give a few validation images to look at, where an index knows some."""
    state = context.loader().state()
    if not isinstance(state, Ready):
        return []
    return find_examples(context.sessions(), state.version.dataset_id)


def same_image_url(endpoint: str, **values: Any) -> str:
    """Give the address of a page that looks at the same image as this one.

    Only an image that this page's own address names is named: an upload is shown to whoever has
    its name, and an address passed on must not give it away.
    """
    return url_for(endpoint, **values, of=request.args.get("of") or None)


def activation_picture_url(endpoint: str, subject: CurrentImage, **values: Any) -> str:
    """Give the address of a picture of what the network computes of an image."""
    return url_for(endpoint, **values, of=subject.of, v=picture_version(subject))


def format_response(value: float) -> str:
    """Write a response with three figures or one decimal, and a minus sign as it should be."""
    return f"{'−' if value < 0 else ''}{format_distance(abs(value))}"


def activation_name(config: AlexNetConfig) -> str:
    """Name the neurons' nonlinearity as people write it."""
    return "ReLU" if config.activation == "relu" else config.activation


def template_functions() -> dict[str, Callable[..., str]]:
    """Give what the templates of these pages make addresses and words by."""
    return {
        "onward": same_image_url,
        "picture_of": activation_picture_url,
        "activation": activation_name,
    }
