"""What the asker has already is not worked out again: ETags of answers, and how long they keep."""

import hashlib

from flask import Response, abort, after_this_request, current_app, request

from app.views.pictures import YEAR

SHORTEST = 8
"""Characters of a version's name that an address must give to name it."""


def named(version: str, *parts: object, for_long: bool = True) -> None:
    """Name the answer by what it is made from, before the work; 304 where the asker has it.

    version: of the weights or the index. parts: what else it depends on beside the address.
    for_long: whether it may be kept where the address names the version, as nothing may that is
    made of an upload: that may be deleted here.
    """
    described = current_app.extensions["api-digest"]
    asked = (request.full_path, request.headers.get("Accept", ""))
    etag = hashlib.sha256(repr((described, version, asked, parts)).encode()).hexdigest()[:32]
    if request.if_none_match.contains_weak(etag):
        abort(kept(Response(status=304), etag, version, for_long))
    after_this_request(lambda response: kept(response, etag, version, for_long))


def kept(response: Response, etag: str, version: str, for_long: bool) -> Response:
    """Let the asker, and nothing on the way, keep an answer; errors are not kept."""
    if response.status_code not in (200, 304):
        return response
    response.set_etag(etag, weak=True)
    response.cache_control.private = True
    asked = request.args.get("v", "")
    if for_long and len(asked) >= SHORTEST and version.startswith(asked):
        response.cache_control.max_age = YEAR
        response.cache_control.immutable = True
    else:
        response.cache_control.no_cache = True
    return response


def by_body() -> None:
    """Name the answer by its bytes, once they are there: it may change at any time."""
    after_this_request(compared)


def compared(response: Response) -> Response:
    """Answer 304 in place of what the asker has."""
    if response.status_code == 200:
        response.cache_control.private = response.cache_control.no_cache = True
        response.add_etag(weak=True)
        response.make_conditional(request)
    return response
