"""Find what `--data` names: photographs in folders, archives or Parquet files, or tar shards."""

from pathlib import Path
from urllib.parse import urlsplit

import webdataset

from model.dataset.folder import ImageFolder, describe_passed_over, scan_folder
from training.dataset.ilsvrc_tars import IlsvrcTars, find_ilsvrc_tars
from training.dataset.parquet import ParquetFiles, find_parquet
from training.dataset.shards import Shards, is_url
from training.dataset.source import SPLITS, DataError, SplitName

__all__ = ["DataError", "Found", "count_expected_photographs", "describe_source", "find_source"]

Found = ImageFolder | Shards | IlsvrcTars | ParquetFiles
"""What `--data` may name."""

SPLIT_PLACEHOLDER = "{split}"


def find_source(data: str) -> Found:
    """Find the photographs that `--data` names.

    - A folder with `train/<class>/*` and `val/<class>/*`, or ImageNet's images as Kaggle's archive
      or Hugging Face's have them (model/dataset/ilsvrc.py).
    - A folder with ILSVRC-2012's own archives (training/dataset/ilsvrc_tars.py).
    - A folder with Parquet files of Hugging Face's (training/dataset/parquet.py).
    - A folder with `train-*.tar` and `val-*.tar`.
    - The paths or URLs of tar files, with {split} in place of train and val and with braces as in
      the shell: `http://host/photographs-{split}-{000..012}.tar`; if the splits have different
      numbers of shards, `http://host/{train-{000..640},val-{00..24}}.tar`.

    Raises FolderError or DataError if a folder or file does not exist, or a split is missing.
    """
    if is_url(data) or data.endswith(".tar"):
        return expand_shard_pattern(data)
    root = Path(data).absolute()
    if root.is_file():
        raise DataError(f"{root} is a file; --data takes a folder, or tar shards")
    shards = {split: sorted(root.glob(f"{split}-*.tar")) for split in SPLITS}
    if not any(shards.values()):
        return find_ilsvrc_tars(root) or find_parquet(root) or scan_folder(root)
    for split, files in shards.items():
        if not files:
            raise DataError(f"{root} holds shards, but no {split}-*.tar")
    train, val = (tuple(map(str, shards[split])) for split in SPLITS)
    return Shards(root, train, val)


def describe_source(source: Found) -> str:
    """Describe what a source holds, as far as that is known without reading it."""
    if not isinstance(source, ImageFolder):
        return source.describe()
    passed_over = describe_passed_over(source.passed_over)
    return (
        f"{len(source.train):,} photographs of {len(source.classes):,} classes, "
        f"{len(source.val):,} for validation{f'; {passed_over}' if passed_over else ''}"
    )


def count_expected_photographs(source: Found) -> int | None:
    """Return how many photographs there are to decode; None for tar files, which must be read."""
    if isinstance(source, ParquetFiles):
        return source.count_photographs()
    return len(source.train) + len(source.val) if isinstance(source, ImageFolder) else None


def expand_shard_pattern(pattern: str) -> Shards:
    """Expand a pattern of shards' names. Raises DataError if a local file does not exist."""
    # Without webdataset's pipe:, which runs the rest of the URL as a shell command.
    known = sorted(set(webdataset.gopen_schemes) - {"pipe", "__default__"})
    if is_url(pattern) and urlsplit(pattern).scheme not in known:
        raise DataError(f"{pattern}: only these schemes are supported: {', '.join(known)}")
    whole = pattern if is_url(pattern) else str(Path(pattern).absolute())
    train, val = (list_shards(whole, split) for split in SPLITS)
    for file in () if is_url(pattern) else (*train, *val):
        if not Path(file).is_file():
            raise DataError(f"shard {file} does not exist")
    return Shards(whole, train, val)


def list_shards(pattern: str, split: SplitName) -> tuple[str, ...]:
    """Return the paths or URLs of one split's shards, in order."""
    if SPLIT_PLACEHOLDER in pattern:
        return expand_braces(pattern.replace(SPLIT_PLACEHOLDER, split))
    own = tuple(name for name in expand_braces(pattern) if split in name.rpartition("/")[2])
    if not own:
        raise DataError(
            f"{pattern} names no shards for {split}; write {SPLIT_PLACEHOLDER} in place of train "
            "and val, or put both in braces: http://host/{train-{000..640},val-{00..24}}.tar"
        )
    return own


def expand_braces(pattern: str) -> tuple[str, ...]:
    """Expand the braces of a pattern. Raises DataError if they are malformed."""
    try:
        return tuple(webdataset.SimpleShardList(pattern).urls)
    except (ValueError, AssertionError) as error:
        raise DataError(f"{pattern}: its braces cannot be expanded: {error}") from error
