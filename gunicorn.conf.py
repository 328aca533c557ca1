"""How gunicorn serves the application: `gunicorn "app:create_app()"` reads this file.

Any of it can be changed on the command line: `gunicorn --bind 0.0.0.0:80 "app:create_app()"`.
"""

import logging
import sys
import threading
from typing import Any

from app.config import Settings, SettingsError
from app.web import redact_tokens

bind = ["127.0.0.1:8000"]
# One process, since the weights take 240 MB in each; torch computes outside Python's lock.
workers = 1
worker_class = "gthread"
threads = 8
# Reading the weights for the first time must not look like a worker that hangs.
timeout = 120
graceful_timeout = 10
loglevel = "warning"
# The only thing it offers, changing the number of workers while running, is not wanted here.
control_socket_disable = True


def on_starting(server: Any) -> None:
    """Refuse wrong settings here, in words, before a worker fails on them; keep logs discreet."""
    try:
        Settings.from_environment()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    for name in ("gunicorn.access", "gunicorn.error"):
        logging.getLogger(name).addFilter(redact_tokens)


def when_ready(server: Any) -> None:
    """Say where it listens."""
    addresses = ", ".join(str(listener) for listener in server.LISTENERS)
    sys.stderr.write(f"Serving at {addresses} (Ctrl-C ends it)\n")
    sys.stderr.flush()


def post_worker_init(worker: Any) -> None:
    """Read weights and index now, beside the first requests, not in the middle of one."""
    loader = worker.wsgi.extensions["loader"]
    threading.Thread(target=loader.get_state, name="first load", daemon=True).start()
