"""The training images by class, page by page."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from flask import Blueprint, Response, abort, render_template, request, url_for

from app import context
from app.database import browse
from app.database.browse import ClassCount, ClassOrder, ImageOrder, in_order, matches

blueprint = Blueprint("explore", __name__, url_prefix="/explore")
SHELVES = 10
ON_A_SHELF = 6
LONGEST_QUERY = 100
"""Characters of a class's name that are looked for."""
PART = "X-Part"
"""The header by which a script that appends pages asks for the images alone: the list of classes,
which it has already, is long."""
Order = TypeVar("Order", bound=StrEnum)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What an address asks for beside the page: a part of a class's name, and two orders."""

    query: str
    classes: ClassOrder
    images: ImageOrder

    def but(self, **changes: str) -> dict[str, Any]:
        """Give the arguments of an address that asks for the same but for some changes."""
        told = {"q": self.query, "classes": self.classes, "images": self.images} | changes
        usual = {"q": "", "classes": ClassOrder.NAME, "images": ImageOrder.NAME}
        return {name: None if value == usual[name] else str(value) for name, value in told.items()}

    def here(self, **changes: str) -> str:
        """Give the address of the first page of what is shown, but for some changes."""
        return url_for(request.endpoint or "", **(request.view_args or {}), **self.but(**changes))


@dataclass(frozen=True, kw_only=True)
class Pages:
    """Links to the pages around the one that is shown. Pages count from 1."""

    number: int
    last: int
    url: Callable[[int], str]

    @property
    def shown(self) -> list[int | None]:
        """The first, the last and those nearby; None where some are left out."""
        near = {1, self.last, *range(self.number - 2, self.number + 3)}
        numbers = sorted(n for n in near if 1 <= n <= self.last)
        shown: list[int | None] = []
        for before, n in zip([0, *numbers], numbers, strict=False):
            shown += [None] * (n > before + 1) + [n]
        return shown


@blueprint.get("")
def overview() -> str:
    """Show a row of images from each class, some classes to a page."""
    (state, classes), number, asked = context.listed(), page_number(), what_is_asked()
    found = [c for c in in_order(classes, asked.classes) if matches(c.label, asked.query)]
    chosen = found[(number - 1) * SHELVES : number * SHELVES]
    if not chosen and number > 1:
        abort(404, "There are fewer pages of classes than that.")
    rows = browse.shelves(context.sessions(), state.version.id, [c.id for c in chosen], ON_A_SHELF)
    return render_template(
        "explore.html",
        **side(classes, asked),
        total=state.version.count,
        found=len(found),
        shelves=[(c, rows[c.id]) for c in chosen],
        pages=Pages(
            number=number,
            last=max(1, -(-len(found) // SHELVES)),
            url=lambda n: url_for(".overview", **asked.but(), page=n),
        ),
    )


@blueprint.get(f"/<int(max={context.MOST_ID}):class_id>")
def of_class(class_id: int) -> str:
    """Show one page of a class's images."""
    (state, classes), number, asked = context.listed(), page_number(), what_is_asked()
    page = browse.class_page(
        context.sessions(),
        state.version.id,
        class_id,
        number,
        context.settings().page_size,
        asked.images,
    )
    if page is None:
        abort(404, "The index holds no such page of images.")
    return render_template(
        "explore.html",
        **side(classes, asked),
        total=state.version.count,
        chosen=page.class_,
        images=page.pictures,
        pages=Pages(
            number=page.number,
            last=page.pages,
            url=lambda n: url_for(".of_class", class_id=class_id, **asked.but(), page=n),
        ),
    )


@blueprint.after_request
def told_apart(response: Response) -> Response:
    """Keep a browser from taking the images alone for the page."""
    response.vary.add(PART)
    return response


def side(classes: list[ClassCount], asked: Asked) -> dict[str, object]:
    """Give what the list of classes is made of; those that do not match are there, but hidden."""
    listed = [] if request.headers.get(PART) else in_order(classes, asked.classes)
    return {
        "asked": asked,
        "class_count": len(classes),
        "classes": [(c, matches(c.label, asked.query)) for c in listed],
        "class_orders": {ClassOrder.NAME: "name", ClassOrder.IMAGES: "most images"},
        "image_orders": {
            ImageOrder.NAME: "file name",
            ImageOrder.LARGEST: "largest",
            ImageOrder.SMALLEST: "smallest",
            ImageOrder.NEWEST: "newest",
        },
    }


def what_is_asked() -> Asked:
    """Read the query and the orders; an unknown order is the usual one."""
    return Asked(
        query=" ".join(request.args.get("q", "").split())[:LONGEST_QUERY],
        classes=order_of("classes", ClassOrder.NAME),
        images=order_of("images", ImageOrder.NAME),
    )


def order_of(name: str, usual: Order) -> Order:
    """Read an order from the address."""
    known = {order.value: order for order in type(usual)}
    return known.get(request.args.get(name, ""), usual)


def page_number() -> int:
    """Read the number of the page asked for, or answer 404."""
    text = request.args.get("page", "1")
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 8 and int(text) > 0):
        abort(404, "Pages are counted 1, 2, 3 and so on.")
    return int(text)
