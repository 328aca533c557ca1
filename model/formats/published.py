"""Weights that others publish, known by name and downloaded from where their authors put them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

from model.formats import deep_compression
from model.formats.importing import digest_file
from model.formats.torchvision import PUBLISHED_SHA256
from storage.download import DownloadError, download
from storage.progress import Report

Fetch = Callable[[Path, Report], Path]
"""Downloads a file into a folder, unless it is there, and returns its path."""


@dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """Weights with a name. description: what they are. fetch: how they are downloaded."""

    description: str
    fetch: Fetch


def fetch_published(name: str, folder: Path, report: Report) -> Path:
    """Download the weights of this name into `folder`, unless they are there; return the file.

    Raises DownloadError, with where to get the file by hand.
    """
    return PUBLISHED_WEIGHTS[name].fetch(folder, report)


def fetch_compressed_alexnet(folder: Path, report: Report) -> Path:
    """Download bvlc_alexnet as Deep Compression published it."""
    url = deep_compression.URL
    target = folder / url.rsplit("/", 1)[-1]
    try:
        return download(url, target, report)
    except DownloadError as error:
        raise explain_by_hand(error, target) from error


def fetch_torchvision(folder: Path, _report: Report) -> Path:
    """Download torchvision's alexnet through torchvision, which checks its digest."""
    from torchvision.models import AlexNet_Weights  # slow to import

    published = AlexNet_Weights.IMAGENET1K_V1
    target = folder / str(published.url).rsplit("/", 1)[-1]
    try:
        published.get_state_dict(
            model_dir=str(folder), check_hash=True, weights_only=True, map_location="cpu"
        )
    except (URLError, OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        message = f"{published.url} could not be downloaded: {reason}"
        raise explain_by_hand(DownloadError(message), target) from error
    # torchvision checks what it downloads, but not what it finds.
    if not digest_file(target, "sha256").startswith(PUBLISHED_SHA256):
        raise DownloadError(
            f"{target} is not the file that torchvision publishes; delete it to download it again"
        )
    return target


def explain_by_hand(error: DownloadError, target: Path) -> DownloadError:
    """Add to an error how to do without this machine's network."""
    return DownloadError(
        f"{error}. The file can also be downloaded by hand and imported: `flask weights import "
        f"{target.name}`"
    )


PUBLISHED_WEIGHTS = {
    "imagenet": PublishedWeights(
        description="bvlc_alexnet for the 1000 classes of ILSVRC-2012, compressed to 8.9 MB",
        fetch=fetch_compressed_alexnet,
    ),
    "torchvision": PublishedWeights(
        description="torchvision's alexnet for the same classes, 244 MB", fetch=fetch_torchvision
    ),
}
"""All of them, by name."""
