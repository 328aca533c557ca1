"""What is allowed on this machine only: switching weights without the administrator's token."""

from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from app.config import Settings, SettingsError

Address = tuple[object, ...] | str
"""Where a server listens: host and port, or the path of a Unix socket."""


def is_open_switching(settings: Settings, host: str) -> bool:
    """Whether weights are switched without a token, for a request to this host.

    host: that of the request's Host header. Only this machine's own names are accepted, so neither
    a proxy in front of the server nor another site's name that leads here opens the form.
    """
    if settings.admin_token or not settings.switch_without_token:
        return False
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False


def check_addresses(settings: Settings, addresses: Iterable[Address]) -> None:
    """Raise SettingsError if others could reach a server on which no token is needed."""
    if settings.admin_token or not settings.switch_without_token:
        return
    for address in addresses:
        if isinstance(address, str) or not is_loopback(str(address[0])):
            where = address if isinstance(address, str) else address[0]
            raise SettingsError(
                "ALEXNET_SWITCH_WITHOUT_TOKEN: with 1 the server must listen on 127.0.0.1 only, "
                f"not on {where}; set ALEXNET_ADMIN_TOKEN to switch weights from elsewhere"
            )


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is that of this machine itself."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
