"""Data sets known by name: fetched by torchvision's own classes."""

import shutil
from pathlib import Path
from urllib.error import URLError

from torchvision.datasets import Imagenette

from storage.files import lock_file
from training.dataset.source import DataError

UNPACKED = "imagenette2"


class FetchError(OSError):
    """A data set that could not be fetched."""


def fetch_imagenette(folder: Path) -> Path:
    """Fetch Imagenette (full size) into `folder`, unless it is there; give the folder.

    Of several processes that want it, one fetches it and the others wait. Raises FetchError when
    it cannot be downloaded or its checksum is wrong. What was downloaded and unpacked half-way is
    not taken for the data set.
    """
    if folder.exists():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with lock_file(folder.with_name(f".{folder.name}.lock")):
            if not folder.exists():
                download_imagenette(folder)
    except (URLError, RuntimeError, OSError, DataError) as error:
        raise FetchError(
            f"Imagenette could not be fetched into {folder}: {error}. With a copy of your own, "
            "name its folder: --data DIR"
        ) from error
    return folder


def download_imagenette(folder: Path) -> None:
    """Download and unpack beside the folder, then rename."""
    part = folder.with_name(f".{folder.name}.part")
    part.mkdir(exist_ok=True)
    shutil.rmtree(part / UNPACKED, ignore_errors=True)
    Imagenette(part, split="train", size="full", download=True)
    (part / UNPACKED).rename(folder)
    shutil.rmtree(part)
