"""Pagination: the query parameters, the page's description, and the Link header."""

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
        metadata={"description": "from 1"},
    )
    size = fields.Integer(
        validate=validate.Range(min=1, max=MAX_PAGE_SIZE),
        metadata={"description": "entries per page; default ALEXNET_PAGE_SIZE"},
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


def get_page_size(query: dict[str, Any]) -> int:
    """Return the number of entries per page."""
    return int(query.get("size") or context.settings().page_size)


def paginate(query: dict[str, Any], total: int) -> dict[str, int]:
    """Describe the requested page and add the Link header; 404 beyond the last page."""
    page, size = query["page"], get_page_size(query)
    pages = max(1, -(-total // size))
    if page > pages:
        abort(404, f"There is no page {page}; the last is {pages}.")
    after_this_request(lambda response: add_link_header(response, page, pages))
    return {"page": page, "pages": pages, "size": size, "total": total}


def slice_page(entries: Sequence[Any], query: dict[str, Any]) -> list[Any]:
    """Return the entries of the requested page."""
    size = get_page_size(query)
    return list(entries[(query["page"] - 1) * size : query["page"] * size])


def add_link_header(response: Response, page: int, pages: int) -> Response:
    """Add links to the pages around this one."""
    links = {"first": 1, "prev": page - 1, "next": page + 1, "last": pages}
    response.headers["Link"] = ", ".join(
        f'<{make_page_url(number)}>; rel="{name}"'
        for name, number in links.items()
        if 1 <= number <= pages
    )
    return response


def make_page_url(number: int) -> str:
    """Return the requested URL with another page."""
    values = {**(request.view_args or {}), **request.args.to_dict(flat=False), "page": number}
    return url_for(request.endpoint or "", **values)
