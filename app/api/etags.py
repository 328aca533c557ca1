"""ETags of the API's responses."""

import hashlib

from flask import Response, abort, after_this_request, current_app, request

from app.web import check_not_modified, revalidate_by_content, set_cache_headers


def set_version_etag(version: str, *parts: object, immutable: bool = True) -> None:
    """Set the response's ETag from what it will be made of; 304 at once if the client has it.

    version: of the weights or the index. parts: what else the response depends on besides its
    URL. immutable: whether it may be cached for a year under a URL that names the version;
    nothing made from an upload may, since uploads are deleted.
    """
    api_digest = current_app.extensions["api-digest"]
    requested = (request.full_path, request.headers.get("Accept", ""))
    etag = hashlib.sha256(repr((api_digest, version, requested, parts)).encode()).hexdigest()[:32]
    named = version if immutable else ""
    if fresh := check_not_modified(etag, version=named, weak=True):
        abort(fresh)

    def set_headers(response: Response) -> Response:
        if response.status_code == 200:
            set_cache_headers(response, etag, version=named, weak=True)
        return response

    after_this_request(set_headers)


def set_content_etag() -> None:
    """Set the response's ETag from its body, which may change at any time."""

    def set_headers(response: Response) -> Response:
        if response.status_code == 200:
            revalidate_by_content(response, weak=True)
        return response

    after_this_request(set_headers)
