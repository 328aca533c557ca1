"""Who may change what a server serves or keeps: whoever knows the administrator's token."""

import hashlib
import hmac
import time

from flask import current_app, request, session

from app import context
from app.serving.limits import report_wrong_token
from app.serving.loopback import is_open_switching

ADMINISTRATOR_KEY = "administrator"
"""Where the session keeps that, and when, the administrator's token was sent."""
ADMINISTRATOR_SECONDS = 12 * 3600
"""The cookie outlives the browser; this right does not."""


def find_token_problem(sent: str) -> str:
    """Return why this browser may not change anything; empty if it may.

    The token is needed once a session, and not at all where app/serving/loopback.py says so. An
    address that has sent too many wrong ones does not get here (app/serving/limits.py).
    """
    token = context.settings().admin_token
    if is_open_switching(context.settings(), request.host):
        return ""
    if not token:
        return "This is off: the server was started without ALEXNET_ADMIN_TOKEN."
    if not sent and is_administrator():
        return ""
    if not hmac.compare_digest(sent.encode(), token.encode()):
        report_wrong_token("administrator")
        return "Wrong token. Nothing was changed."
    session[ADMINISTRATOR_KEY] = [int(time.time()), sign_token(token)]
    return ""


def is_administrator() -> bool:
    """Whether this browser has sent the token in the last hours, and it is still the token."""
    token, found = context.settings().admin_token, session.get(ADMINISTRATOR_KEY)
    if not token or not isinstance(found, list) or len(found) != 2:
        return False
    age = time.time() - found[0]
    return 0 <= age < ADMINISTRATOR_SECONDS and hmac.compare_digest(found[1], sign_token(token))


def sign_token(token: str) -> str:
    """Return what the session keeps in place of the token, which a cookie would reveal."""
    key = str(current_app.secret_key).encode()
    return hmac.new(key, f"administrator {token}".encode(), hashlib.sha256).hexdigest()
