"""HTTP details shared by pages and API: headers, ETags, JSON, the session cookie."""

import hashlib
import math
from pathlib import Path
from typing import Any

from flask import Flask, Response, current_app, request, url_for
from flask.json.provider import DefaultJSONProvider
from flask.sessions import SecureCookieSessionInterface

from app.serving.log import make_discreet

SECONDS_PER_YEAR = 365 * 24 * 3600
COOKIE = "alexnet"
HSTS = "max-age=31536000"
"""Tells browsers that came over HTTPS not to come back without it for a year."""
MIN_VERSION_LENGTH = 8
"""Characters that `?v=` must give of a version to name it."""
CONTENT_SECURITY_POLICY = {
    "default-src": "'none'",
    "img-src": "'self' blob:",
    "style-src": "'self'",
    "script-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}
SWAGGER_UI_POLICY = CONTENT_SECURITY_POLICY | {"img-src": "'self' data:", "style-src": "'self'"}
"""For the API's documentation page: Swagger UI embeds its images as data."""
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    # Not "no-referrer": over HTTPS the CSRF check of the forms also looks at the referrer.
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

CAMERA_BLUEPRINT = "new"
"""The pages on which photographs are taken by webcam."""


def configure_web(app: Flask) -> None:
    """Set up cookies, JSON, response headers, versioned static files and log redaction."""
    app.session_interface = SessionCookie()
    app.json = FiniteJSONProvider(app)
    app.after_request(add_response_headers)
    app.logger.addFilter(make_discreet)
    versions = hash_assets(Path(app.static_folder or ""))
    app.extensions["assets"] = versions
    app.jinja_env.globals["asset"] = lambda name: url_for("static", filename=name, v=versions[name])


class SessionCookie(SecureCookieSessionInterface):
    """The session's cookie: Secure, and of this host alone, if the page came over HTTPS.

    Always Secure would break the forms over plain HTTP on localhost.
    """

    def get_cookie_secure(self, app: Flask) -> bool:
        """Return whether this request came over HTTPS."""
        return request.is_secure

    def get_cookie_name(self, app: Flask) -> str:
        """Return a name with which browsers take no cookie of a neighbouring host."""
        return f"__Host-{COOKIE}" if request.is_secure else COOKIE


def add_response_headers(response: Response) -> Response:
    """Add the security headers, and Cache-Control where the view has not set it."""
    documentation = request.endpoint == "api-docs.show_api"
    content = SWAGGER_UI_POLICY if documentation else CONTENT_SECURITY_POLICY
    response.headers["Content-Security-Policy"] = "; ".join(f"{k} {v}" for k, v in content.items())
    response.headers.update(SECURITY_HEADERS)
    if request.blueprint == CAMERA_BLUEPRINT:
        policy = SECURITY_HEADERS["Permissions-Policy"].replace("camera=()", "camera=(self)")
        response.headers["Permissions-Policy"] = policy
    if "Access-Control-Allow-Origin" in response.headers:
        response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    if request.is_secure:
        response.headers["Strict-Transport-Security"] = HSTS
    if request.endpoint == "static" and names_current_asset() and response.status_code < 400:
        response.headers["Cache-Control"] = f"public, max-age={SECONDS_PER_YEAR}, immutable"
    elif "Cache-Control" not in response.headers:
        response.headers["Cache-Control"] = "private, no-cache"
    return response


def names_current_asset() -> bool:
    """Whether a static file is asked for by its present content."""
    versions: dict[str, str] = current_app.extensions["assets"]
    name = (request.view_args or {}).get("filename", "")
    return bool(name in versions and request.args.get("v") == versions[name])


def hash_assets(folder: Path) -> dict[str, str]:
    """Hash each static file, so that its address changes with its content."""
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()[:12]
        for file in folder.rglob("*")
        if file.is_file()
    }


def check_not_modified(etag: str, *, version: str = "", weak: bool = False) -> Response | None:
    """Return a 304 response if the client has this ETag already; call it before any work."""
    if not request.if_none_match.contains_weak(etag):
        return None
    return set_cache_headers(Response(status=304), etag, version=version, weak=weak)


def set_cache_headers(
    response: Response, etag: str, *, version: str = "", weak: bool = False
) -> Response:
    """Set a response's ETag and how long the client may keep it; caches on the way may not.

    version: what the response was made from. Under an address whose `?v=` is the beginning of it,
    the response is kept for a year; under any other, and without a version, the client asks again
    each time.
    """
    response.set_etag(etag, weak=weak)
    response.cache_control.private = True
    asked = request.args.get("v", "")
    if len(asked) >= MIN_VERSION_LENGTH and version.startswith(asked):
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


class FiniteJSONProvider(DefaultJSONProvider):
    """Writes JSON with NaN and infinity as null, and members in the order given."""

    sort_keys = False

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        """As Flask's, but NaN and infinity become null."""
        kwargs["allow_nan"] = False
        try:
            return super().dumps(obj, **kwargs)
        except ValueError:
            return super().dumps(replace_non_finite(obj), **kwargs)


def replace_non_finite(value: Any) -> Any:
    """Return a copy in which NaN and infinity are None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: replace_non_finite(inner) for name, inner in value.items()}
    return (
        [replace_non_finite(inner) for inner in value] if isinstance(value, list | tuple) else value
    )
