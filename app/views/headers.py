"""What every response says to the browser: what it may load, send and guess. Nothing else."""

from flask import Response, request

from app.http_cache import SECONDS_PER_YEAR

POLICY = {
    "default-src": "'none'",
    "img-src": "'self' blob:",
    "style-src": "'self'",
    "script-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}
SWAGGER_UI = POLICY | {"img-src": "'self' data:", "style-src": "'self'"}
"""On the one page that shows the API: Swagger UI brings its own drawings and styles along."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    # Not "no-referrer": over HTTPS the forms are also checked by where they came from.
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def add_headers(response: Response) -> Response:
    """Add the headers of safety, and say how long this may be kept."""
    policy = SWAGGER_UI if request.endpoint == "api-docs.show_api" else POLICY
    response.headers["Content-Security-Policy"] = "; ".join(f"{k} {v}" for k, v in policy.items())
    response.headers.update(HEADERS)
    if "Access-Control-Allow-Origin" in response.headers:
        response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    if request.endpoint == "static" and request.args.get("v") and response.status_code < 400:
        response.headers["Cache-Control"] = f"public, max-age={SECONDS_PER_YEAR}, immutable"
    elif "Cache-Control" not in response.headers:
        response.headers["Cache-Control"] = "private, no-cache"
    return response
