"""Long lists in pages: what is asked for, and the links that lead from one to the next."""

from collections.abc import Sequence
from typing import Any

from flask import Response, abort, after_this_request, request, url_for
from marshmallow import Schema, fields, validate

from app import context

MAX_PAGE_SIZE = 1000


class PageQuerySchema(Schema):
    """Which page of a list."""

    page = fields.Integer(
        load_default=1,
        validate=validate.Range(min=1, max=context.MAX_ID),
        metadata={"description": "from 1 on"},
    )
    size = fields.Integer(
        validate=validate.Range(min=1, max=MAX_PAGE_SIZE),
        metadata={"description": "entries on a page; by default ALEXNET_PAGE_SIZE"},
    )


class PageSchema(Schema):
    """One page of a list."""

    page = fields.Integer(required=True)
    pages = fields.Integer(required=True, metadata={"description": "at least 1"})
    size = fields.Integer(required=True)
    total = fields.Integer(required=True, metadata={"description": "entries on all pages"})


LINK_HEADER = {
    "Link": {
        "description": "first, prev, next and last page (RFC 8288)",
        "schema": {"type": "string"},
    }
}


def page_size(asked: dict[str, Any]) -> int:
    """Give the entries that a page shall have."""
    return int(asked.get("size") or context.settings().page_size)


def paginate(asked: dict[str, Any], total: int) -> dict[str, int]:
    """Give what is told of a page, and put its links into the answer; 404 beyond the last."""
    page, size = asked["page"], page_size(asked)
    pages = max(1, -(-total // size))
    if page > pages:
        abort(404, f"There is no page {page}; the last is {pages}.")
    after_this_request(lambda response: add_link_header(response, page, pages))
    return {"page": page, "pages": pages, "size": size, "total": total}


def slice_page(entries: Sequence[Any], asked: dict[str, Any]) -> list[Any]:
    """Give the entries of a page out of them all."""
    size = page_size(asked)
    return list(entries[(asked["page"] - 1) * size : asked["page"] * size])


def add_link_header(response: Response, page: int, pages: int) -> Response:
    """Lead to the pages around this one."""
    around = {"first": 1, "prev": page - 1, "next": page + 1, "last": pages}
    there = {name: number for name, number in around.items() if 1 <= number <= pages}
    response.headers["Link"] = ", ".join(
        f'<{page_url(number)}>; rel="{name}"' for name, number in there.items()
    )
    return response


def page_url(number: int) -> str:
    """Give the address asked for, with another page."""
    same = {**(request.view_args or {}), **request.args.to_dict(flat=False), "page": number}
    return url_for(request.endpoint or "", **same)
