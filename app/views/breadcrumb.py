"""The way that led to an image's page: from one to another that is like it, again and again.

An address carries it as `?via=12,34`, the first step first. Whatever in it is no image is ignored.
"""

import re
from dataclasses import dataclass

from flask import request, url_for

from app import context
from app.database import images
from app.database.images import Picture

STEPS = 12
"""Steps that are shown. An address carries one more, which tells that there were earlier ones."""
NUMBER = re.compile(r"[1-9]\d{0,9}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Step:
    """An image on the way, and the address of its page with the way to it."""

    picture: Picture
    url: str


@dataclass(frozen=True, kw_only=True)
class Trail:
    """The way to an image: its steps, whether it began earlier, and, as `via`, what leads on."""

    steps: list[Step]
    dropped: bool
    onward: str


def trail_to(image: Picture) -> Trail:
    """Read the way to an image from the address."""
    via = walked()
    steps = [Step(picture=p, url=page_of(p, as_text(via[:n]))) for n, p in enumerate(via)]
    return Trail(
        steps=steps[-STEPS:],
        dropped=len(steps) > STEPS,
        onward=as_text([*via, image]),
    )


def page_of(image: Picture, way: str) -> str:
    """Give the address of an image's page with the way to it."""
    return url_for("images.show_image", image_id=image.id, via=way or None)


def walked() -> list[Picture]:
    """Find the images that the address names, at most thirteen."""
    ids = [int(word) for word in request.args.get("via", "").split(",") if NUMBER.fullmatch(word)]
    found = images.pictures_by_id(context.sessions(), ids[-STEPS - 1 :]) if ids else {}
    return [found[image] for image in ids[-STEPS - 1 :] if image in found]


def as_text(way: list[Picture]) -> str:
    """Write a way as an address carries it."""
    return ",".join(str(picture.id) for picture in way[-STEPS - 1 :])
