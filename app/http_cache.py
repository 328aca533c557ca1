"""ETags and Cache-Control: what a client already has is neither computed nor sent again.

Responses are `private`: the client may keep them, caches between it and the server may not.
"""

from flask import Response, request

SECONDS_PER_YEAR = 365 * 24 * 3600
SHORTEST_VERSION = 8
"""Characters that `?v=` must give of a version to name it."""


def not_modified(etag: str, *, version: str = "", weak: bool = False) -> Response | None:
    """Return a 304 response if the client has this ETag already; call it before any work."""
    if not request.if_none_match.contains_weak(etag):
        return None
    return set_cache_headers(Response(status=304), etag, version=version, weak=weak)


def set_cache_headers(
    response: Response, etag: str, *, version: str = "", weak: bool = False
) -> Response:
    """Set a response's ETag and how long the client may keep it.

    version: what the response was made from. Under an address whose `?v=` is the beginning of it,
    the response is kept for a year; under any other, and without a version, the client asks again
    each time.
    """
    response.set_etag(etag, weak=weak)
    response.cache_control.private = True
    asked = request.args.get("v", "")
    if len(asked) >= SHORTEST_VERSION and version.startswith(asked):
        response.cache_control.max_age = SECONDS_PER_YEAR
        response.cache_control.immutable = True
    else:
        response.cache_control.no_cache = True
    return response


def revalidate_by_content(response: Response, *, weak: bool = False) -> Response:
    """Use a hash of the body as the ETag; an unchanged body becomes a 304 response."""
    response.cache_control.private = response.cache_control.no_cache = True
    response.add_etag(weak=weak)
    response.make_conditional(request)
    return response
