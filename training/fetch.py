"""Data sets known by name: fetched by torchvision's own classes."""

import shutil
from pathlib import Path
from urllib.error import URLError

from torchvision.datasets import Imagenette

UNPACKED = "imagenette2"


class FetchError(OSError):
    """A data set that could not be fetched."""


def imagenette(folder: Path) -> Path:
    """Fetch Imagenette (full size) into `folder`, unless it is there; give the folder.

    Raises FetchError when it cannot be downloaded or its checksum is wrong. What was downloaded
    and unpacked half-way is not taken for the data set.
    """
    if folder.exists():
        return folder
    part = folder.with_name(f".{folder.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(part / UNPACKED, ignore_errors=True)
    try:
        Imagenette(part, split="train", size="full", download=True)
        (part / UNPACKED).rename(folder)
    except (URLError, RuntimeError, OSError) as error:
        raise FetchError(
            f"Imagenette could not be fetched into {folder}: {error}. With a copy of your own, "
            "name its folder: --data DIR"
        ) from error
    shutil.rmtree(part)
    return folder
