"""The training images by class, page by page."""

from collections.abc import Callable
from dataclasses import dataclass

from flask import Blueprint, abort, render_template, request, url_for

from app import catalogue
from app.catalogue import ClassCount, Page, Picture
from app.engine import Ready
from app.views import rooms

blueprint = Blueprint("explore", __name__, url_prefix="/explore")
SHELVES = 10
ON_A_SHELF = 6


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
    (state, found), number = rooms.listed(), page_number()
    classes = in_order(found)
    chosen = classes[(number - 1) * SHELVES : number * SHELVES]
    if not chosen and number > 1:
        abort(404, "There are fewer pages of classes than that.")
    last = max(1, -(-len(classes) // SHELVES))
    return render_template(
        "explore.html",
        classes=classes,
        total=state.version.count,
        shelves=[(c, shelf(state, c)) for c in chosen],
        pages=Pages(number=number, last=last, url=lambda n: url_for(".overview", page=n)),
    )


@blueprint.get(f"/<int(max={rooms.MOST_ID}):class_id>")
def of_class(class_id: int) -> str:
    """Show one page of a class's images."""
    (state, classes), number = rooms.listed(), page_number()
    size = rooms.settings().page_size
    page = catalogue.class_page(rooms.sessions(), state.version.id, class_id, number, size)
    if page is None:
        abort(404, "The index holds no such page of images.")
    return render_template(
        "explore.html",
        classes=in_order(classes),
        total=state.version.count,
        chosen=page.class_,
        images=page.pictures,
        pages=pages_of(page),
    )


def in_order(classes: list[ClassCount]) -> list[ClassCount]:
    """Give the classes in the order of a dictionary, capitals or not."""
    return sorted(classes, key=lambda c: c.label.casefold())


def pages_of(page: Page) -> Pages:
    """Give the links around a page of a class."""

    def url(number: int) -> str:
        return url_for(".of_class", class_id=page.class_.id, page=number)

    return Pages(number=page.number, last=page.pages, url=url)


def shelf(state: Ready, of: ClassCount) -> list[Picture]:
    """Give the first images of a class."""
    page = catalogue.class_page(rooms.sessions(), state.version.id, of.id, 1, ON_A_SHELF)
    return page.pictures if page else []


def page_number() -> int:
    """Read the number of the page asked for, or answer 404."""
    text = request.args.get("page", "1")
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 8 and int(text) > 0):
        abort(404, "Pages are counted 1, 2, 3 and so on.")
    return int(text)
