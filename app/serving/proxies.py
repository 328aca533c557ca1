"""Believes what a proxy says of its client: only a proxy that the settings name."""

from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from werkzeug.middleware.proxy_fix import ProxyFix

from app.config import UNIX_PROXY

Network = IPv4Network | IPv6Network
Application = Callable[[dict[str, Any], Any], Iterable[bytes]]
UNIX_ADDRESSES = ("", "localhost")
"""What servers give as the client's address on a connection through a file."""
FORWARDED = (
    "HTTP_FORWARDED",
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PORT",
    "HTTP_X_FORWARDED_PREFIX",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_FORWARDED_SCHEME",
    "HTTP_X_REAL_IP",
)
"""Headers that a client may set as well as a proxy."""


class TrustedProxies:
    """WSGI middleware: takes the client's address, the host, the scheme and the path's prefix from
    the X-Forwarded headers of trusted proxies, and removes these headers from all other requests.
    """

    def __init__(self, application: Application, proxies: Iterable[str]) -> None:
        self.application = application
        self.behind_proxy = ProxyFix(
            application, x_for=1, x_proto=1, x_host=1, x_port=0, x_prefix=1
        )
        names = list(proxies)
        self.trusts_files = UNIX_PROXY in names
        self.networks = [ip_network(name) for name in names if name != UNIX_PROXY]

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer a request."""
        if self.trusts(environ.get("REMOTE_ADDR") or ""):
            return self.behind_proxy(environ, start_response)
        for name in FORWARDED:
            environ.pop(name, None)
        return self.application(environ, start_response)

    def trusts(self, address: str) -> bool:
        """Whether a proxy at this address is believed."""
        if address in UNIX_ADDRESSES:
            return self.trusts_files
        return is_within(address, self.networks)


def is_within(address: str, networks: Iterable[Network]) -> bool:
    """Whether an address is in one of the networks; a connection through a file has none."""
    try:
        found = ip_address(address)
    except ValueError:
        return False
    return any(found in network for network in networks)
