"""Settings come from the environment, and a wrong one is refused by its name."""

import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import pytest

from app.config import Settings, SettingsError

SECRET = "a secret of some length"


def read(root: Path, **environ: str) -> Settings:
    return Settings.from_environment({"ALEXNET_HOME": str(root), **environ})


def test_defaults(tmp_path: Path) -> None:
    settings = read(tmp_path)
    assert settings.home.root == tmp_path
    assert settings.database.drivername == "sqlite"
    assert settings.database.database == str(tmp_path / "app.sqlite3")
    assert settings.upload_bytes == 16_000_000
    assert (settings.upload_pixels, settings.upload_side) == (50_000_000, 65_535)
    assert (settings.decode_bytes, settings.decode_seconds) == (1_500_000_000, 5)
    assert (settings.upload_days, settings.page_size, settings.device) == (7, 48, "auto")


def test_every_setting_says_what_it_is() -> None:
    names = [field.metadata["env"] for field in fields(Settings)]
    assert len(set(names)) == len(names)
    assert all(field.metadata["help"].endswith(".") for field in fields(Settings))


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    wrong = {
        "DATABASE_URL": "mysql://host/name",
        "SECRET_KEY": "short",
        "ALEXNET_UPLOAD_MEGABYTES": "0",
        "ALEXNET_UPLOAD_MEGAPIXELS": "many",
        "ALEXNET_UPLOAD_DAYS": "-1",
        "ALEXNET_PAGE_SIZE": "1.5",
        "ALEXNET_DEVICE": "tpu",
        "ALEXNET_RUNTIME": "abacus",
    }
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, **wrong)
    lines = str(caught.value).splitlines()
    assert [line.split()[0] for line in lines] == list(wrong)


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    assert read(tmp_path, ALEXNET_PAGE_SIZE="", DATABASE_URL=" ").page_size == 48


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_postgresql_gets_the_driver_that_is_installed(tmp_path: Path, scheme: str) -> None:
    settings = read(tmp_path, DATABASE_URL=f"{scheme}://me:p%40ss@host:5433/name?sslmode=require")
    assert settings.database.drivername == "postgresql+psycopg"
    assert (settings.database.password, settings.database.port) == ("p@ss", 5433)


@pytest.mark.parametrize(
    "url",
    ["nonsense", "sqlite://", "sqlite:///:memory:", "oracle://x", "postgresql://host:port/name"],
)
def test_a_database_that_cannot_serve_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError, match=r"^DATABASE_URL "):
        read(tmp_path, DATABASE_URL=url)


def test_passwords_and_secrets_are_not_shown(tmp_path: Path) -> None:
    shown = repr(read(tmp_path, DATABASE_URL="postgresql://me:hidden@host/name", SECRET_KEY=SECRET))
    assert "hidden" not in shown
    assert SECRET not in shown
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, DATABASE_URL="mysql://me:hidden@host/name")
    assert "hidden" not in str(caught.value)


def test_a_secret_is_made_once_and_kept(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: read(home).secret_key, range(16)))
    assert len(set(keys)) == 1
    assert len(keys[0]) > 40
    assert stat.S_IMODE((home / "secret_key").stat().st_mode) == 0o600
    assert [file.name for file in home.iterdir()] == ["secret_key"]


def test_a_secret_given_is_used_and_none_is_made(tmp_path: Path) -> None:
    assert read(tmp_path, SECRET_KEY=SECRET).secret_key == SECRET
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_secret_is_told(tmp_path: Path) -> None:
    (tmp_path / "secret_key").write_text("")
    with pytest.raises(SettingsError, match=r"secret_key.*delete"):
        read(tmp_path)


def test_a_home_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="ALEXNET_HOME"):
        read(tmp_path / "file")


def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(SettingsError, match="ALEXNET_DEVICE is cuda"):
        read(tmp_path, ALEXNET_DEVICE="cuda")
