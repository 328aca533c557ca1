"""Download datasets that `--data` knows by name, by torchvision's own classes."""

import shutil
from pathlib import Path
from urllib.error import URLError

from storage.download import download
from storage.files import lock_file
from storage.progress import Report, ignore_progress
from training.dataset.source import DataError

EDITION, UNPACKED = "320px", "imagenette2-320"
"""The smallest edition of which squares of 256 pixels can be cut without scaling it up: its short
sides have 320. Its name in torchvision, and its folder in the archive."""


class FetchError(OSError):
    """A dataset that could not be downloaded."""


def fetch_imagenette(folder: Path, report: Report = ignore_progress) -> Path:
    """Download Imagenette into `folder` unless it exists, and return the folder.

    If several processes call this, one downloads and the others wait. An interrupted download
    continues. The folder appears only when it is complete. Raises FetchError if the download fails
    or its checksum is wrong.
    """
    if folder.exists():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with lock_file(folder.with_name(f".{folder.name}.lock")):
            if not folder.exists():
                download_imagenette(folder, report)
    except (URLError, RuntimeError, OSError, DataError) as error:
        raise FetchError(
            f"Imagenette could not be fetched into {folder}: {error}. If you have a copy, name its "
            "folder: --data DIR"
        ) from error
    return folder


def download_imagenette(folder: Path, report: Report) -> None:
    """Download and unpack into a temporary folder beside `folder`, then rename it."""
    from torchvision.datasets import Imagenette  # slow to import

    part = folder.with_name(f".{folder.name}.part")
    part.mkdir(exist_ok=True)
    shutil.rmtree(part / UNPACKED, ignore_errors=True)
    url, _ = Imagenette._ARCHIVES[EDITION]
    download(url, part / Path(url).name, report)
    # It finds the archive, compares the checksum and unpacks.
    Imagenette(part, split="train", size=EDITION, download=True)
    (part / UNPACKED).rename(folder)
    shutil.rmtree(part)
