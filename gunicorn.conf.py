"""How gunicorn serves the application: `gunicorn "app:create_app()"` reads this file.

Any of it can be changed on the command line: `gunicorn --bind 0.0.0.0:80 "app:create_app()"`.
The variable PORT chooses another port of 127.0.0.1.
"""

import logging
import os
import sys
import threading
from typing import Any

from app.config import Settings, SettingsError
from app.serving.log import (
    SERVER_LOGGERS,
    format_server_logs,
    log_as_json,
    make_discreet,
    server_log,
)
from app.serving.loopback import check_addresses
from app.serving.metrics_folder import (
    find_metrics_folder,
    make_metrics_folder,
    remove_metrics_folder,
    retire_process,
)
from app.serving.ports import check_free, read_port
from storage.pretrained import install_pretrained

FREE_THREADS = 8
"""Threads left for pages when as many requests wait to compute as may."""
INHERITED_SOCKETS = ("LISTEN_FDS", "GUNICORN_FD", "GUNICORN_PID")
"""Variables with which systemd, or gunicorn before an upgrade, hands over open sockets."""


def count_threads() -> int:
    """Return the number of threads: those that may wait to compute, and some that never do."""
    try:
        return Settings.from_environment().queue + FREE_THREADS
    except SettingsError:
        return FREE_THREADS  # `on_starting` refuses to start


def choose_address() -> str:
    """Return the address to listen on; refuse a PORT that is no port."""
    try:
        return f"127.0.0.1:{read_port(os.environ)}"
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)


bind = [choose_address()]
# One process, since the weights take 240 MB in each; torch computes outside Python's lock.
workers = 1
# Threads see whole requests only, so a few slow connections stop nobody (app/serving/worker.py).
worker_class = "app.serving.worker.BufferedWorker"
threads = count_threads()
# Other workers of gunicorn's would take this from any client on this machine.
forwarder_headers = ""
# Reading the weights for the first time must not look like a worker that hangs.
timeout = 120
graceful_timeout = 10
loglevel = "warning"
# The only thing it offers, changing the number of workers while running, is not wanted here.
control_socket_disable = True


def on_starting(server: Any) -> None:
    """Refuse wrong settings here, in words, before a worker fails on them; keep logs discreet.

    Also give a new home the run that ships with the project.
    """
    try:
        settings = Settings.from_environment()
        check_addresses(settings, server.cfg.address)
        if not any(name in os.environ for name in INHERITED_SOCKETS):
            check_free(server.cfg.address, shared=server.cfg.reuse_port)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    try:
        install_pretrained(settings.home, restore=False)
    except OSError as error:
        sys.stderr.write(f"The weights that ship cannot be copied: {error}\n")
    for name in SERVER_LOGGERS:
        logging.getLogger(name).addFilter(make_discreet)
    runtime_log = logging.getLogger("alexnet.runtime")
    runtime_log.setLevel(logging.INFO)
    if settings.log == "json":
        log_as_json()
    else:
        runtime_log.addHandler(logging.StreamHandler())
    if settings.metrics or settings.metrics_token:
        try:
            make_metrics_folder()
        except OSError as error:
            sys.stderr.write(f"Each process counts its own metrics: {error}\n")


def on_reload(server: Any) -> None:
    """Go on writing JSON, where gunicorn has set its own loggers up again."""
    if Settings.from_environment().log == "json":
        format_server_logs()


def when_ready(server: Any) -> None:
    """Say where it listens."""
    addresses = ", ".join(str(listener) for listener in server.LISTENERS)
    if Settings.from_environment().log == "json":
        server_log.info("serving at %s", addresses)
        return
    sys.stderr.write(f"Serving at {addresses} (Ctrl-C ends it)\n")
    sys.stderr.flush()


def post_worker_init(worker: Any) -> None:
    """Read weights and index, and start a decoder, beside the first requests, not within one."""
    extensions = worker.wsgi.extensions
    threading.Thread(target=extensions["decoder"].warm_up, name="decoder", daemon=True).start()
    extensions["upload_cleaner"].keep_clean()
    extensions["background_index"].start()


def worker_exit(server: Any, worker: Any) -> None:
    """End what the worker still does in the background."""
    if app := getattr(worker, "wsgi", None):
        app.extensions["background_index"].stop()


def child_exit(server: Any, worker: Any) -> None:
    """Keep what a worker that has ended has counted."""
    if find_metrics_folder():
        retire_process(worker.pid)


def on_exit(server: Any) -> None:
    """Leave nothing behind."""
    remove_metrics_folder()
