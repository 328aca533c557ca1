"""Without a token weights are switched on this machine only."""

from pathlib import Path

import pytest

from app.config import Settings, SettingsError
from app.serving.loopback import Address, check_addresses, is_open_switching

OPEN = {"ALEXNET_SWITCH_WITHOUT_TOKEN": "1"}
TOKEN = {"ALEXNET_ADMIN_TOKEN": "a token of many letters"}


def settings(home: Path, variables: dict[str, str]) -> Settings:
    return Settings.from_environment({"ALEXNET_HOME": str(home), **variables})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8000", "localhost:8000", "[::1]:80"])
def test_this_machine_needs_no_token_where_the_settings_say_so(tmp_path: Path, host: str) -> None:
    assert is_open_switching(settings(tmp_path, OPEN), host)
    assert not is_open_switching(settings(tmp_path, {}), host)
    # A token that is set is always asked for.
    assert not is_open_switching(settings(tmp_path, OPEN | TOKEN), host)


@pytest.mark.parametrize(
    "host", ["", "example.org", "localhost.example.org", "10.0.0.1:8000", "0.0.0.0", "[", "[::2]"]
)
def test_no_other_name_opens_the_form(tmp_path: Path, host: str) -> None:
    assert not is_open_switching(settings(tmp_path, OPEN), host)


@pytest.mark.parametrize("address", [("0.0.0.0", 8000), ("::", 8000), "/run/alexnet.sock"])
def test_a_server_that_others_reach_does_not_start_without_a_token(
    tmp_path: Path, address: Address
) -> None:
    own = ("127.0.0.1", 8000)
    with pytest.raises(SettingsError, match="ALEXNET_SWITCH_WITHOUT_TOKEN"):
        check_addresses(settings(tmp_path, OPEN), [own, address])
    check_addresses(settings(tmp_path, OPEN), [own])
    check_addresses(settings(tmp_path, {}), [address])
    check_addresses(settings(tmp_path, OPEN | TOKEN), [address])
