"""Splits a folder of classes into train and val: a folder of links, which everything else takes.

As the paper splits ImageNet of Fall 2009: "as in the literature, half for training and half for
testing" (§6).
"""

import hashlib
import shutil
from collections import Counter
from pathlib import Path

from model.dataset.folder import FolderError, list_files_below, list_split_classes
from storage.files import lock_file, make_links

Links = dict[str, str]
"""Where each link's path, relative to the folder of links, leads: an absolute path."""


def make_split(root: Path, share: float, seed: int, splits: Path) -> Path:
    """Make a folder with `train` and `val` of links to a folder's photographs; return it.

    root: holds `<class>/*`. share: of each class's photographs that val gets, rounded, and at least
    one. Which these are is decided by a hash of seed and path, so that the same content is always
    split alike. splits: where such folders are kept; one that is there and fits is taken.

    Raises FolderError if `root` has a train and a val itself, no classes, or a class of less than
    two photographs.
    """
    root = root.absolute()
    if (root / "train").is_dir() or (root / "val").is_dir():
        raise FolderError(f"{root} has train and val already; leave --split out")
    links = plan_links(root, share, seed)
    digest = hashlib.sha256(str(root).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    folder = splits / f"{root.name}-{digest}-{share:g}-{seed}"
    splits.mkdir(parents=True, exist_ok=True)
    with lock_file(splits / f".{folder.name}.lock"):
        if read_links(folder) != links:
            part = folder.with_name(f".{folder.name}.part")
            for old in (part, folder):
                shutil.rmtree(old, ignore_errors=True)
            make_links(part, links)
            part.rename(folder)
    return folder


def plan_links(root: Path, share: float, seed: int) -> Links:
    """Decide where each photograph goes. Raises FolderError."""
    listed, links = list_split_classes(root), Links()
    if listed.files:
        raise FolderError(f"{root} holds no class folders; --split expects {root}/<class>/*")
    for name in listed.classes:
        paths = list_files_below(root / name, Counter())
        if len(paths) < 2:
            raise FolderError(
                f"{root / name} holds {len(paths)} photographs; --split needs two of each class"
            )
        count = min(max(round(share * len(paths)), 1), len(paths) - 1)
        held_out = set(sorted(paths, key=lambda path: hash_path(seed, f"{name}/{path}"))[:count])
        for path in paths:
            split = "val" if path in held_out else "train"
            links[f"{split}/{name}/{path}"] = str(root / name / path)
    classes_file = root / "classes.txt"
    if classes_file.is_file():
        links["classes.txt"] = str(classes_file)
    return links


def hash_path(seed: int, path: str) -> bytes:
    """Hash a path, so that paths are in an order that only the seed decides."""
    return hashlib.sha256(f"{seed} {path}".encode("utf-8", "surrogateescape")).digest()


def read_links(folder: Path) -> Links:
    """Read what links a folder holds; empty if it does not exist."""
    return {
        path.relative_to(folder).as_posix(): str(path.readlink())
        for path in folder.rglob("*")
        if path.is_symlink()
    }
