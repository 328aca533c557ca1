"""The address that the server listens on: checked before it starts, so that a mistake is a sentence
and not a traceback."""

import errno
import socket
from collections.abc import Iterable, Mapping
from contextlib import closing

from app.config import SettingsError
from app.serving.loopback import Address

DEFAULT_PORT = 8000
MAX_PORT = 65_535


def read_port(environ: Mapping[str, str]) -> int:
    """Read the variable PORT; 0 is any free port. Raises SettingsError."""
    text = environ.get("PORT", "").strip() or str(DEFAULT_PORT)
    if not (text.isascii() and text.isdigit() and int(text) <= MAX_PORT):
        raise SettingsError(f"PORT must be a whole number from 0 to {MAX_PORT}, not {text!a}")
    return int(text)


def check_free(addresses: Iterable[Address], *, shared: bool = False) -> None:
    """Raise SettingsError for a TCP address that cannot be listened on.

    shared: whether other processes may listen on the same port (SO_REUSEPORT).
    """
    for address in addresses:
        if isinstance(address, tuple):
            host, port = str(address[0]), int(str(address[1]))
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
                option = socket.SO_REUSEPORT if shared else socket.SO_REUSEADDR
                probe.setsockopt(socket.SOL_SOCKET, option, 1)
                bind(probe, host, port)


def bind(probe: socket.socket, host: str, port: int) -> None:
    """Bind a socket, or raise SettingsError with the reason and what to do."""
    try:
        probe.bind((host, port))
        probe.listen()
    except OverflowError as error:
        raise SettingsError(f"{port} is no port: ports go from 0 to {MAX_PORT}") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SettingsError(
                f"Port {port} of {host} is in use by another process; end that one, or choose "
                f"another port: make serve PORT={port + 1 if port < MAX_PORT else DEFAULT_PORT}"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise SettingsError(
                f"Port {port} needs administrator's rights; choose one from 1024 on: "
                f"make serve PORT={DEFAULT_PORT}"
            ) from error
        raise SettingsError(f"The server cannot listen on {host}:{port}: {error}") from error
