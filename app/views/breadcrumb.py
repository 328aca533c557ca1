"""The breadcrumb of an image's page: the images whose neighbours were followed to reach it.

The address carries it as `?via=12,34`, the first image first. Whatever in it names no image is
ignored.
"""

import re
from dataclasses import dataclass

from flask import request, url_for

from app import context
from app.database.images import CatalogueImage, find_images

MAX_STEPS = 12
"""Steps shown. An address carries one more, so that the page knows that there were earlier ones."""
IMAGE_ID = re.compile(r"[1-9]\d{0,9}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class BreadcrumbStep:
    """An image visited before, and the address of its page with the breadcrumb it had."""

    picture: CatalogueImage
    url: str


@dataclass(frozen=True, kw_only=True)
class Breadcrumb:
    """The steps to an image.

    truncated: whether there were earlier steps. via: what a link to a neighbour carries on.
    """

    steps: list[BreadcrumbStep]
    truncated: bool
    via: str


def read_breadcrumb(image: CatalogueImage) -> Breadcrumb:
    """Read the steps to an image from the address."""
    visited = find_visited_images()
    steps = [
        BreadcrumbStep(
            picture=picture,
            url=url_for(
                "images.show_image", image_id=picture.id, via=join_ids(visited[:n]) or None
            ),
        )
        for n, picture in enumerate(visited)
    ]
    return Breadcrumb(
        steps=steps[-MAX_STEPS:],
        truncated=len(steps) > MAX_STEPS,
        via=join_ids([*visited, image]),
    )


def find_visited_images() -> list[CatalogueImage]:
    """Find the images that the address names, at most one more than is shown."""
    ids = [int(word) for word in request.args.get("via", "").split(",") if IMAGE_ID.fullmatch(word)]
    ids = ids[-MAX_STEPS - 1 :]
    found = find_images(context.sessions(), ids) if ids else {}
    return [found[image] for image in ids if image in found]


def join_ids(visited: list[CatalogueImage]) -> str:
    """Write the breadcrumb as an address carries it."""
    return ",".join(str(picture.id) for picture in visited[-MAX_STEPS - 1 :])
