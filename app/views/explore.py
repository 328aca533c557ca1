"""The training images by class, page by page, and a search by the mean of several."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from flask import Blueprint, Response, abort, render_template, request, url_for

from app import context
from app.database.browse import (
    ClassCount,
    ClassOrder,
    ImageOrder,
    find_class_page,
    find_first_images_by_class,
    matches_query,
    sort_classes,
)
from app.inference.mean_query import MIN_PICKED, PickError, find_nearest_to_mean

blueprint = Blueprint("explore", __name__, url_prefix="/explore")
CLASSES_PER_PAGE = 10
IMAGES_PER_CLASS = 6
MAX_QUERY_LENGTH = 100
PART_HEADER = "X-Part"
"""The header by which scroll.js asks for the images without the long list of classes."""
Order = TypeVar("Order", bound=StrEnum)


@dataclass(frozen=True, kw_only=True)
class ExploreQuery:
    """What an address asks for beside the page number: part of a class's name, and two orders."""

    text: str
    classes: ClassOrder
    images: ImageOrder

    def args_with(self, **changes: str) -> dict[str, Any]:
        """Return the same query with some changes as an address's arguments, defaults as None."""
        values = {"q": self.text, "classes": self.classes, "images": self.images} | changes
        defaults = {"q": "", "classes": ClassOrder.NAME, "images": ImageOrder.NAME}
        return {
            name: None if value == defaults[name] else str(value) for name, value in values.items()
        }

    def url_with(self, **changes: str) -> str:
        """Return the address of the current view's first page, with some changes."""
        return url_for(
            request.endpoint or "", **(request.view_args or {}), **self.args_with(**changes)
        )


@dataclass(frozen=True, kw_only=True)
class PageLinks:
    """Links to the pages around the current one. Pages count from 1."""

    number: int
    last: int
    url: Callable[[int], str]

    @property
    def numbers(self) -> list[int | None]:
        """The first, the last and the nearby page numbers; None where some are left out."""
        near = {1, self.last, *range(self.number - 2, self.number + 3)}
        numbers = sorted(n for n in near if 1 <= n <= self.last)
        links: list[int | None] = []
        for before, n in zip([0, *numbers], numbers, strict=False):
            links += [None] * (n > before + 1) + [n]
        return links


@blueprint.get("")
def show_classes() -> str:
    """Show a row of images from each class, ten classes a page."""
    (state, classes), number, query = context.require_classes(), read_page_number(), read_query()
    found = [c for c in sort_classes(classes, query.classes) if matches_query(c.label, query.text)]
    chosen = found[(number - 1) * CLASSES_PER_PAGE : number * CLASSES_PER_PAGE]
    if not chosen and number > 1:
        abort(404, "The list of classes does not have that many pages.")
    rows = find_first_images_by_class(
        context.sessions(), state.version.id, [c.id for c in chosen], IMAGES_PER_CLASS
    )
    return render_template(
        "explore.html",
        **describe_class_list(classes, query),
        total=state.version.count,
        found=len(found),
        rows=[(c, rows[c.id]) for c in chosen],
        pages=PageLinks(
            number=number,
            last=max(1, -(-len(found) // CLASSES_PER_PAGE)),
            url=lambda n: url_for(".show_classes", **query.args_with(), page=n),
        ),
    )


@blueprint.get(f"/<int(max={context.MAX_ID}):class_id>")
def show_class(class_id: int) -> str:
    """Show one page of a class's images."""
    (state, classes), number, query = context.require_classes(), read_page_number(), read_query()
    page = find_class_page(
        context.sessions(),
        state.version.id,
        class_id,
        number,
        context.settings().page_size,
        query.images,
    )
    if page is None:
        abort(404, "There is no such class, or it does not have that many pages.")
    return render_template(
        "explore.html",
        **describe_class_list(classes, query),
        total=state.version.count,
        chosen=page.class_,
        images=page.pictures,
        pages=PageLinks(
            number=page.number,
            last=page.pages,
            url=lambda n: url_for(".show_class", class_id=class_id, **query.args_with(), page=n),
        ),
    )


@blueprint.get("/mean")
def show_mean_search() -> str:
    """Show the training images nearest to the mean of those that the address names."""
    state = context.require_ready()
    found = find_nearest_to_mean(state, context.sessions(), read_image_ids())
    ids = [picked.picture.id for picked in found.picked]
    return render_template(
        "mean.html",
        picked=found.picked,
        others={image: [other for other in ids if other != image] for image in ids},
        removable=len(ids) > MIN_PICKED,
        neighbours=found.neighbours,
    )


@blueprint.after_request
def vary_on_part_header(response: Response) -> Response:
    """Keep browsers from reusing a response without the list of classes as the whole page."""
    response.vary.add(PART_HEADER)
    return response


def describe_class_list(classes: list[ClassCount], query: ExploreQuery) -> dict[str, object]:
    """Return what the list of classes shows; classes that do not match are in it, but hidden."""
    listed = [] if request.headers.get(PART_HEADER) else sort_classes(classes, query.classes)
    return {
        "query": query,
        "class_count": len(classes),
        "classes": [(c, matches_query(c.label, query.text)) for c in listed],
        "class_orders": {ClassOrder.NAME: "name", ClassOrder.IMAGES: "most images"},
        "image_orders": {
            ImageOrder.NAME: "file name",
            ImageOrder.LARGEST: "largest",
            ImageOrder.SMALLEST: "smallest",
            ImageOrder.NEWEST: "newest",
        },
    }


def read_query() -> ExploreQuery:
    """Read what the address asks for; an unknown order counts as the default."""
    return ExploreQuery(
        text=" ".join(request.args.get("q", "").split())[:MAX_QUERY_LENGTH],
        classes=read_order("classes", ClassOrder.NAME),
        images=read_order("images", ImageOrder.NAME),
    )


def read_order(name: str, default: Order) -> Order:
    """Read an order from the address."""
    known = {order.value: order for order in type(default)}
    return known.get(request.args.get(name, ""), default)


def read_page_number() -> int:
    """Read the page number from the address; 404 if it is not a number from 1 on."""
    text = request.args.get("page", "1")
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 8 and int(text) > 0):
        abort(404, "Page numbers are 1, 2, 3 and so on.")
    return int(text)


def read_image_ids() -> list[int]:
    """Read the image numbers from the address. Raises PickError for anything but a number."""
    texts = request.args.getlist("image")
    for text in texts:
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(context.MAX_ID))):
            raise PickError("Images are identified by their numbers.")
    return [int(text) for text in texts]
