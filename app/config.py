"""The settings: read from the environment and checked once, when the application starts."""

import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from importlib.util import find_spec
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import click
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from index.engines.milvus_address import parse_milvus_url
from index.engines.options import SEARCH_DEVICES, SearchDevice
from index.sample import MAX_SAMPLE_IMAGES, MIN_SAMPLE_IMAGES, SAMPLE_IMAGES
from model.runtime.names import OPENVINO_PRECISIONS, RUNTIMES
from storage.home import Home, home_from_environment

DEVICES = ("auto", "cpu", "cuda", "mps")
LOG_FORMATS = ("text", "json")
MIN_SECRET_LENGTH = 16
UNIX_PROXY = "unix"
"""What stands in ALEXNET_PROXIES for a proxy that connects through a file."""
ORIGIN = re.compile(r"https?://[A-Za-z0-9.\-]+(:\d{1,5})?|https?://\[[0-9A-Fa-f:.]+\](:\d{1,5})?")
DRIVERS = {
    "sqlite": "sqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}


class SettingsError(click.ClickException):
    """Invalid settings; the message names each variable on a line of its own.

    A click exception, because Flask creates the application before it runs a command, and shows
    only these as a message instead of a traceback.
    """

    exit_code = 2


Parse = Callable[[str], object]


def describe_setting(env: str, help: str, parse: Parse) -> dict[str, str | Parse]:
    """Describe a setting: its environment variable, its help, and how its text is parsed."""
    return {"env": env, "help": help, "parse": parse}


def parse_whole_number(low: int, high: int) -> Callable[[str], int]:
    """Parse a whole number from `low` to `high`."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return number

    return parse


def parse_device(text: str) -> str:
    """Parse the name of an available device."""
    if parse_choice(DEVICES)(text) in ("cuda", "mps"):
        import torch  # takes a second, and only these two need it

        backend = torch.cuda if text == "cuda" else torch.backends.mps
        if not backend.is_available():
            raise ValueError(f"is {text}, but torch finds no such device here")
    return text


def parse_runtime(text: str) -> str:
    """Parse the name of a runtime that is installed."""
    if parse_choice(RUNTIMES)(text) in OPENVINO_PRECISIONS and find_spec("openvino") is None:
        raise ValueError(f"is {text}, which needs OpenVINO; install it with `pip install openvino`")
    return text


def parse_choice(names: Sequence[str]) -> Callable[[str], str]:
    """Parse one of these names."""

    def parse(text: str) -> str:
        if text not in names:
            raise ValueError(f"must be one of {', '.join(names)}")
        return text

    return parse


def parse_flag(text: str) -> bool:
    """Parse 0 or 1."""
    return parse_choice(("0", "1"))(text) == "1"


def parse_index_url(text: str) -> str:
    """Parse the address of a Milvus server."""
    parse_milvus_url(text)
    if find_spec("pymilvus") is None:
        raise ValueError("needs pymilvus; install it with `pip install pymilvus`")
    return text


def parse_origins(text: str) -> tuple[str, ...]:
    """Parse the origins of other sites: scheme, host and port, or * for all."""
    found = tuple(text.split())
    for origin in found:
        if origin != "*" and not ORIGIN.fullmatch(origin):
            raise ValueError(f"must be origins such as https://example.org, not {origin}")
    return found


def parse_rate(text: str) -> str:
    """Parse a rate such as “60 per minute”; empty for 0, which is no limit."""
    from limits import parse_many  # only the application's processes need it

    if text == "0":
        return ""
    try:
        parse_many(text)
    except ValueError:
        raise ValueError(f"must be a rate such as “60 per minute”, not {text}") from None
    return text


def parse_rate_storage(text: str) -> str:
    """Parse the address of a storage of counts."""
    from limits.errors import ConfigurationError
    from limits.storage import storage_from_string

    try:
        storage_from_string(text)
    except (ConfigurationError, ValueError) as error:
        raise ValueError(f"cannot be used: {error}") from error
    return text


def parse_networks(text: str, *, others: Sequence[str] = ()) -> tuple[str, ...]:
    """Parse addresses and networks, or one of some other words."""
    found = tuple(text.split())
    for network in found:
        try:
            if network not in others:
                ip_network(network)
        except ValueError:
            raise ValueError(f"must be addresses or networks, not {network}") from None
    return found


def parse_proxies(text: str) -> tuple[str, ...]:
    """Parse addresses and networks of proxies, or the word unix."""
    return parse_networks(text, others=(UNIX_PROXY,))


def parse_secret(text: str) -> str:
    """Parse a secret that is long enough."""
    if len(text) < MIN_SECRET_LENGTH:
        raise ValueError(f"must have at least {MIN_SECRET_LENGTH} characters")
    return text


def parse_database_url(text: str) -> str:
    """Parse a database's address. Errors do not repeat it, since it may contain a password."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ValueError("must be an address such as postgresql://user@host/name") from None
    if url.drivername not in DRIVERS:
        raise ValueError(f"must begin with sqlite:// or postgresql://, not {url.drivername}://")
    if url.drivername != "sqlite" and find_spec("psycopg") is None:
        raise ValueError("needs the driver psycopg; install it with `pip install psycopg[binary]`")
    if is_in_memory(url):
        raise ValueError("cannot be in memory, since the processes of the server share it")
    return text


def is_in_memory(url: URL) -> bool:
    """Whether a SQLite database would exist in this process only."""
    return url.drivername == "sqlite" and (not url.database or ":memory:" in url.database)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings. `from_environment` reads and checks them."""

    home: Home = field(
        metadata=describe_setting(
            "ALEXNET_HOME",
            "Folder for runs, weights, index, database and uploads; by default `var`.",
            lambda text: home_from_environment({"ALEXNET_HOME": text}),
        )
    )
    database_url: str = field(
        default="",
        repr=False,
        metadata=describe_setting(
            "DATABASE_URL",
            "Address of the database, sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME; "
            "by default a SQLite file in ALEXNET_HOME.",
            parse_database_url,
        ),
    )
    secret_key: str = field(
        repr=False,
        metadata=describe_setting(
            "SECRET_KEY",
            f"Key that signs forms and cookies; at least {MIN_SECRET_LENGTH} characters. By "
            "default generated once and stored in ALEXNET_HOME/secret_key.",
            parse_secret,
        ),
    )
    upload_megabytes: int = field(
        default=16,
        metadata=describe_setting(
            "ALEXNET_UPLOAD_MEGABYTES",
            "Maximum size of an uploaded file, in megabytes (1,000,000 bytes).",
            parse_whole_number(1, 1000),
        ),
    )
    upload_megapixels: int = field(
        default=50,
        metadata=describe_setting(
            "ALEXNET_UPLOAD_MEGAPIXELS",
            "Maximum size of an uploaded image, in megapixels.",
            parse_whole_number(1, 1000),
        ),
    )
    upload_side: int = field(
        default=65_535,
        metadata=describe_setting(
            "ALEXNET_UPLOAD_SIDE",
            "Maximum width and height of an uploaded image, in pixels.",
            parse_whole_number(1, 1_000_000),
        ),
    )
    upload_days: int = field(
        default=7,
        metadata=describe_setting(
            "ALEXNET_UPLOAD_DAYS",
            "Days after which uploaded images and their results are deleted; 0: never.",
            parse_whole_number(0, 36500),
        ),
    )
    upload_quota_megabytes: int = field(
        default=10_000,
        metadata=describe_setting(
            "ALEXNET_UPLOAD_QUOTA_MEGABYTES",
            "Megabytes that all stored pictures of uploads may take; the oldest are deleted first.",
            parse_whole_number(1, 1_000_000_000),
        ),
    )
    upload_files: int = field(
        default=12,
        metadata=describe_setting(
            "ALEXNET_UPLOAD_FILES",
            "Maximum number of images per upload.",
            parse_whole_number(1, 1000),
        ),
    )
    dataset_megabytes: int = field(
        default=500,
        metadata=describe_setting(
            "ALEXNET_DATASET_MEGABYTES",
            "Maximum size of a zip of photographs sent to the classroom, packed and unpacked, in "
            "megabytes.",
            parse_whole_number(1, 100_000),
        ),
    )
    dataset_quota_megabytes: int = field(
        default=5000,
        metadata=describe_setting(
            "ALEXNET_DATASET_QUOTA_MEGABYTES",
            "Megabytes that all data sets of the classroom may take together; beyond that no more "
            "are taken.",
            parse_whole_number(1, 1_000_000_000),
        ),
    )
    queue: int = field(
        default=16,
        metadata=describe_setting(
            "ALEXNET_QUEUE",
            "Requests that may wait for their turn to compute; others are asked to come back "
            "later. Each takes a thread.",
            parse_whole_number(0, 1000),
        ),
    )
    upload_rate: str = field(
        default="120 per minute",
        metadata=describe_setting(
            "ALEXNET_UPLOAD_RATE",
            "Uploads that an address may send, such as “120 per minute”; 0: any number.",
            parse_rate,
        ),
    )
    api_rate: str = field(
        default="1200 per minute",
        metadata=describe_setting(
            "ALEXNET_API_RATE",
            "Requests to the API that an address may send, such as “1200 per minute”; 0: any "
            "number.",
            parse_rate,
        ),
    )
    rate_storage: str = field(
        default="memory://",
        repr=False,
        metadata=describe_setting(
            "ALEXNET_RATE_STORAGE",
            "Where these are counted for all processes together, such as redis://HOST:6379; by "
            "default each process counts its own.",
            parse_rate_storage,
        ),
    )
    proxies: tuple[str, ...] = field(
        default=(),
        metadata=describe_setting(
            "ALEXNET_PROXIES",
            "Addresses or networks of proxies whose X-Forwarded headers are believed, separated by "
            "spaces, such as 127.0.0.1 or 10.0.0.0/8; unix: a proxy that connects through a file. "
            "By default none.",
            parse_proxies,
        ),
    )
    hosts: tuple[str, ...] = field(
        default=(),
        metadata=describe_setting(
            "ALEXNET_HOSTS",
            "Names under which the application may be asked for, separated by spaces; .example.org "
            "means all below it. By default any.",
            lambda text: tuple(text.split()),
        ),
    )
    metrics: tuple[str, ...] = field(
        default=(),
        metadata=describe_setting(
            "ALEXNET_METRICS",
            "Addresses or networks that may read /metrics, separated by spaces, such as 127.0.0.1 "
            "or 10.0.0.0/8. Behind a proxy that ALEXNET_PROXIES does not name, everybody has its "
            "address. By default nobody may.",
            parse_networks,
        ),
    )
    metrics_token: str = field(
        default="",
        repr=False,
        metadata=describe_setting(
            "ALEXNET_METRICS_TOKEN",
            "Bearer token with which any other address may read /metrics; at least "
            f"{MIN_SECRET_LENGTH} characters.",
            parse_secret,
        ),
    )
    log: str = field(
        default="text",
        metadata=describe_setting(
            "ALEXNET_LOG",
            "How the log is written: text, or json, one object a line, with a line for each "
            "request.",
            parse_choice(LOG_FORMATS),
        ),
    )
    decode_megabytes: int = field(
        default=1500,
        metadata=describe_setting(
            "ALEXNET_DECODE_MEGABYTES",
            "Memory for decoding images, in megabytes, all that are decoded at once together; an "
            "image that needs more by itself is refused.",
            parse_whole_number(16, 1_000_000),
        ),
    )
    decode_seconds: int = field(
        default=5,
        metadata=describe_setting(
            "ALEXNET_DECODE_SECONDS",
            "Maximum computing time for decoding an image, in seconds.",
            parse_whole_number(1, 600),
        ),
    )
    decode_processes: int = field(
        default=2,
        metadata=describe_setting(
            "ALEXNET_DECODE_PROCESSES",
            "Processes that decode images for the server.",
            parse_whole_number(1, 64),
        ),
    )
    page_size: int = field(
        default=48,
        metadata=describe_setting(
            "ALEXNET_PAGE_SIZE", "Images per page of a class.", parse_whole_number(1, 1000)
        ),
    )
    device: str = field(
        default="auto",
        metadata=describe_setting(
            "ALEXNET_DEVICE",
            "Device for the network: auto, cpu, cuda or mps.",
            parse_device,
        ),
    )
    runtime: str = field(
        default="auto",
        metadata=describe_setting(
            "ALEXNET_RUNTIME",
            "What computes predictions: torch, openvino-f32, openvino-bf16, or auto, which is the "
            "fastest of those that agree with torch, measured once.",
            parse_runtime,
        ),
    )
    index_device: str = field(
        default="auto",
        metadata=describe_setting(
            "ALEXNET_INDEX_DEVICE",
            "Device for the index: auto, cpu, gpu, or gpus, which splits it over several.",
            parse_choice(SEARCH_DEVICES),
        ),
    )
    index_float16: bool = field(
        default=False,
        metadata=describe_setting(
            "ALEXNET_INDEX_FLOAT16",
            "Whether a GPU stores the vectors in float16: 0 or 1.",
            parse_flag,
        ),
    )
    index_kept: int = field(
        default=3,
        metadata=describe_setting(
            "ALEXNET_INDEX_KEPT",
            "Versions of the index to keep, including the one in service.",
            parse_whole_number(1, 1000),
        ),
    )
    sample_images: int = field(
        default=SAMPLE_IMAGES,
        metadata=describe_setting(
            "ALEXNET_SAMPLE_IMAGES",
            "Images of an index that the map, the review and the neighbours by pixels are made of, "
            "at most; with more of them a build takes longer and a server more memory.",
            parse_whole_number(MIN_SAMPLE_IMAGES, MAX_SAMPLE_IMAGES),
        ),
    )
    index_url: str = field(
        default="",
        repr=False,
        metadata=describe_setting(
            "INDEX_URL",
            "Address of a Milvus server, http://HOST:19530, that stores and searches the vectors; "
            "by default FAISS does so in ALEXNET_HOME.",
            parse_index_url,
        ),
    )

    admin_token: str = field(
        default="",
        repr=False,
        metadata=describe_setting(
            "ALEXNET_ADMIN_TOKEN",
            "Token for switching weights on the models page, for corrections and for the "
            f"classroom; at least {MIN_SECRET_LENGTH} characters. By default all these are off.",
            parse_secret,
        ),
    )
    switch_without_token: bool = field(
        default=False,
        metadata=describe_setting(
            "ALEXNET_SWITCH_WITHOUT_TOKEN",
            "Whether all this may be done without a token if ALEXNET_ADMIN_TOKEN is not set: 0 "
            "or 1. With 1 the server starts only on this machine's own address, 127.0.0.1. `make "
            "demo` sets it.",
            parse_flag,
        ),
    )
    cors_origins: tuple[str, ...] = field(
        default=(),
        metadata=describe_setting(
            "ALEXNET_CORS_ORIGINS",
            "Sites whose pages may read the API, as https://HOST separated by spaces, or *; by "
            "default none.",
            parse_origins,
        ),
    )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read every setting; an empty variable counts as unset.

        Without SECRET_KEY, creates ALEXNET_HOME and the key's file in it if they are missing.
        Raises SettingsError naming every invalid variable.
        """
        values: dict[str, Any] = {"home": home_from_environment(environ)}
        wrong = []
        for known in fields(cls):
            try:
                values |= read_setting(known, environ)
            except ValueError as error:
                wrong.append(f"{known.metadata['env']} {error}")
        if wrong:
            raise SettingsError("\n".join(wrong))
        if "secret_key" not in values:
            values["secret_key"] = read_or_make_secret(values["home"])
        return cls(**values)

    @property
    def search_device(self) -> SearchDevice:
        """The device that the index is searched on."""
        return SearchDevice(
            device=self.index_device, float16=self.index_float16, url=self.index_url
        )

    @property
    def upload_bytes(self) -> int:
        """Largest upload, in bytes."""
        return self.upload_megabytes * 1_000_000

    @property
    def upload_quota(self) -> int:
        """Bytes that all stored pictures of uploads may take."""
        return self.upload_quota_megabytes * 1_000_000

    @property
    def dataset_bytes(self) -> int:
        """Largest zip of photographs, packed and unpacked, in bytes."""
        return self.dataset_megabytes * 1_000_000

    @property
    def dataset_quota(self) -> int:
        """Bytes that all data sets of the classroom may take."""
        return self.dataset_quota_megabytes * 1_000_000

    @property
    def upload_pixels(self) -> int:
        """Largest uploaded image, in pixels."""
        return self.upload_megapixels * 1_000_000

    @property
    def decode_bytes(self) -> int:
        """Memory for decoding images, in bytes."""
        return self.decode_megabytes * 1_000_000

    @property
    def database(self) -> URL:
        """The database's address for SQLAlchemy, with the driver that this project installs."""
        if not self.database_url:
            return URL.create("sqlite", database=str(self.home.database))
        url = make_url(self.database_url)
        return url.set(drivername=DRIVERS[url.drivername])


def read_setting(known: Field[Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """Read one setting; empty if its variable is unset. Raises ValueError if it is invalid."""
    text = environ.get(known.metadata["env"], "").strip()
    return {known.name: known.metadata["parse"](text)} if text else {}


def read_or_make_secret(home: Home) -> str:
    """Read the secret key from the home folder; create it at first, readable by its owner only."""
    file = home.root / "secret_key"
    try:
        if not file.exists():
            make_secret(file)
        return parse_secret(file.read_text(encoding="ascii").strip())
    except OSError as error:
        raise SettingsError(f"ALEXNET_HOME cannot hold a secret key: {error}") from error
    except ValueError as error:
        raise SettingsError(f"SECRET_KEY in {file} {error}; delete that file") from error


def make_secret(file: Path) -> None:
    """Write a new secret atomically; of several processes that try, the first one wins."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(secrets.token_urlsafe(32))
            out.flush()
            os.fsync(out.fileno())
        file.hardlink_to(part)
    except FileExistsError:
        pass
    finally:
        part.unlink(missing_ok=True)
