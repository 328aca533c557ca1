"""A folder of labelled photographs: `train/<class>/*` and `val/<class>/*`, one folder per class.

ImageNet's own forms, with folders of images of all classes, are read as they are
(model/dataset/ilsvrc.py).
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from model.dataset.ilsvrc import UnknownClassError, find_split_folder, group_by_class

UPLOAD_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".pjp", ".png", ".webp")
"""Of JPEG, whose rarer ones browsers on Windows write, PNG and WebP; in either case."""
SUFFIXES = (
    *UPLOAD_SUFFIXES,
    *(".bmp", ".dib", ".tif", ".tiff", ".gif", ".avif", ".heic", ".heif", ".hif"),
)
"""Of all images that are read from the owner's own folders (model/image/further_formats.py)."""
IGNORED_FOLDERS = frozenset({"@eaDir", "#recycle", "__MACOSX", "lost+found", "$RECYCLE.BIN"})
"""Folders that file servers and archives add; hidden ones are ignored as well."""
CLASSES_FILE = "classes.txt"


class FolderError(ValueError):
    """A folder that cannot be used as a dataset."""


@dataclass(frozen=True)
class ClassName:
    """A class: the name of its folder, and its human-readable label."""

    folder: str
    label: str


@dataclass(frozen=True)
class Photograph:
    """A file, by its path relative to the root with forward slashes, and its class."""

    path: str
    class_index: int


@dataclass(frozen=True)
class ImageFolder:
    """The photographs found in a folder; classes sorted by folder name, files by path.

    passed_over: how many other files its class folders hold, by suffix in lower case.
    """

    root: Path
    classes: tuple[ClassName, ...]
    train: tuple[Photograph, ...]
    val: tuple[Photograph, ...]
    passed_over: tuple[tuple[str, int], ...] = ()


def scan_folder(root: Path, *, val_may_lack_classes: bool = False) -> ImageFolder:
    """List the photographs under `root`.

    Files are selected by suffix (`SUFFIXES`), in the folders of the classes and in any folder below
    them, hidden ones excepted; whether they can be read is not checked. A split without class
    folders holds ImageNet's images, whose classes are in their names or in Kaggle's solution file;
    below the root of Kaggle's archive, train and val are found where it has them. Labels come from
    `classes.txt` (on each line a folder's name, white space and its label) if it has them, else
    from the 1000 WordNet ids of ILSVRC-2012, else from the folders.

    val_may_lack_classes: whether a class may be in train only, as for an index, which needs no
    validation images. Raises FolderError if the folder, `train` or `val` does not exist, if there
    are fewer than two classes, if a class has no photographs, or if train and val have different
    classes.
    """
    root = root.absolute()
    base = find_split_folder(root)
    train, val = list_split_classes(base / "train"), list_split_classes(base / "val")
    names = train.classes
    if val.classes != names and not (val_may_lack_classes and set(val.classes) <= set(names)):
        raise FolderError(f"{root}: {describe_class_mismatch(names, val.classes)}")
    if len(names) < 2:
        raise FolderError(
            f"{train.place} holds only one class, {names[0]}; at least two are needed"
        )
    labels, others = read_folder_labels(root, names), Counter[str]()
    return ImageFolder(
        root=root,
        classes=tuple(ClassName(name, labels.get(name) or name) for name in names),
        train=list_photographs(root, names, train, others),
        val=list_photographs(root, names, val, others),
        passed_over=tuple(sorted(others.items())),
    )


def describe_passed_over(passed_over: Sequence[tuple[str, int]]) -> str:
    """Describe the files that are not photographs, by suffix; empty if there are none."""
    parts = [f"{count:,} {suffix or 'without a suffix'}" for suffix, count in passed_over]
    return f"passed over {', '.join(parts)}" if parts else ""


def scan_photographs(root: Path) -> ImageFolder:
    """List the photographs under `root`, however they are arranged.

    With a folder `train` or `val` as `scan_folder`, though a class may be in train only. Otherwise
    all photographs in the folder and below it, hidden folders excepted, as one training set without
    validation images; each belongs to the class of the folder that it lies in. Raises FolderError
    if there is none.
    """
    root = root.absolute()
    # One of them alone is more likely a set whose other half is missing than an album.
    base = find_split_folder(root)
    if (base / "train").is_dir() or (base / "val").is_dir():
        return scan_folder(root, val_may_lack_classes=True)
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise FolderError(f"{root} {what}")
    by_folder = {name: paths for name, paths in walk_photographs(root) if paths}
    if not by_folder:
        raise FolderError(f"{root} holds no photographs ({', '.join(SUFFIXES)})")
    labels = read_folder_labels(root, [*by_folder])
    return ImageFolder(
        root=root,
        classes=tuple(ClassName(name, labels.get(name) or name) for name in by_folder),
        train=tuple(
            Photograph(path, index)
            for index, paths in enumerate(by_folder.values())
            for path in paths
        ),
        val=(),
    )


def walk_photographs(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder's name and its photographs' paths, relative to `root` and sorted.

    The root itself has its own name, without the path.
    """
    for place, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not is_ignored(name))
        here = Path(place).relative_to(root)
        paths = [(here / name).as_posix() for name in sorted(names) if is_photograph(name)]
        yield here.as_posix() if here.parts else root.name, paths


def digest_listing(root: Path, photographs: Iterable[Photograph]) -> str:
    """Hash a listing: the root and the files' names, sizes and modification times, as hex.

    It changes when a file does. For a file that cannot be examined, size and time are −1.
    """
    digest = hashlib.sha256(os.fsencode(root))
    for photograph in photographs:
        try:
            stat = (root / photograph.path).stat()
            size, changed = stat.st_size, stat.st_mtime_ns
        except OSError:
            size = changed = -1
        digest.update(os.fsencode(f"\0{photograph.path}\0{size}\0{changed}"))
    return digest.hexdigest()


class SplitClasses(NamedTuple):
    """The classes of a split, sorted. files: its images by class, if it has no class folders."""

    place: Path
    classes: list[str]
    files: dict[str, list[str]]


def list_split_classes(place: Path) -> SplitClasses:
    """List the classes of a split: its folders, or those of ImageNet's images.

    Raises FolderError.
    """
    if not place.is_dir():
        what = "is a file, not a folder" if place.exists() else "does not exist"
        raise FolderError(
            f"{place} {what}; photographs are expected as train/<class>/* and val/<class>/*"
            f"{', or as <class>/* with --split' if place.name == 'train' else ''}"
        )
    entries = [entry for entry in os.scandir(place) if not is_ignored(entry.name)]
    if names := sorted(entry.name for entry in entries if entry.is_dir()):
        return SplitClasses(place, names, {})
    loose = [entry.name for entry in entries if is_photograph(entry.name)]
    if not loose:
        raise FolderError(f"{place} holds no class folders; expected {place}/<class>/*")
    try:
        files = group_by_class(place, loose)
    except UnknownClassError as error:
        raise FolderError(
            f"{place} holds no class folders; expected {place}/<class>/*, or ImageNet's images, "
            f"but {error}"
        ) from error
    return SplitClasses(place, [*files], files)


def describe_class_mismatch(train: list[str], val: list[str]) -> str:
    """Describe which classes only one of the two folders has."""
    only = {"train": sorted(set(train) - set(val)), "val": sorted(set(val) - set(train))}
    parts = [f"only {k} has {', '.join(v[:5])}{' …' * (len(v) > 5)}" for k, v in only.items() if v]
    return f"train and val must hold the same classes: {'; '.join(parts)}"


def list_photographs(
    root: Path, names: list[str], split: SplitClasses, others: Counter[str]
) -> tuple[Photograph, ...]:
    """List the photographs of one split, class by class; count other files by suffix in `others`.

    names: all classes. Raises FolderError for an empty class.
    """
    photographs: list[Photograph] = []
    inside = split.place.relative_to(root).as_posix()
    present = set(split.classes)
    for index, name in enumerate(names):
        if name not in present:
            continue
        if split.files:
            photographs += (Photograph(f"{inside}/{file}", index) for file in split.files[name])
            continue
        place, own = split.place / name, Counter[str]()
        paths = list_files_below(place, own)
        others.update(own)
        if not paths:
            other = describe_passed_over(sorted(own.items()))
            raise FolderError(
                f"{place} holds no photographs ({', '.join(SUFFIXES)})"
                f"{f'; {other}' if other else ''}; add some or remove the folder from train and val"
            )
        photographs += (Photograph(f"{inside}/{name}/{path}", index) for path in paths)
    return tuple(photographs)


def list_files_below(place: Path, others: Counter[str]) -> list[str]:
    """Return the photographs in a folder and below it, as sorted paths relative to it."""
    paths: list[str] = []
    for folder, folders, names in os.walk(place):
        folders[:] = [name for name in folders if not is_ignored(name)]
        here = Path(folder).relative_to(place)
        for name in names:
            if is_photograph(name):
                # A dangling link or a pipe is no photograph.
                if (Path(folder) / name).is_file():
                    paths.append((here / name).as_posix())
            elif not name.startswith("."):
                others[Path(name).suffix.lower()] += 1
    return sorted(paths)


def is_ignored(name: str) -> bool:
    """Return whether a folder is hidden, or one that a file server or an archive adds."""
    return name.startswith(".") or name in IGNORED_FOLDERS


def is_photograph(name: str, suffixes: tuple[str, ...] = SUFFIXES) -> bool:
    """Return whether a file name is that of an image, and not hidden."""
    return not name.startswith(".") and name.lower().endswith(suffixes)


def read_folder_labels(root: Path, names: list[str]) -> dict[str, str]:
    """Read the labels by folder name, of the folders that have one. Raises FolderError.

    A line of classes.txt that is just a folder's name gives it no label, also where that has
    several words; WordNet ids that have no label there keep ILSVRC-2012's.
    """
    known = find_wordnet_labels(names)
    file = root / CLASSES_FILE
    if not file.exists():
        return known
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FolderError(f"{file} cannot be read as UTF-8 text: {error}") from error
    labels: dict[str, str] = {}
    # The longest folder first: of "tabby" and "tabby cat", a line may begin with both.
    folders = sorted(names, key=len, reverse=True)
    for line in (line.strip() for line in lines):
        if line in names or line.startswith("#"):
            continue
        for name in folders:
            # A comma or colon after the folder's name is accepted as well.
            rest = line.removeprefix(name)
            if rest != line and rest[:1] in {" ", "\t", ",", ":"} and rest.lstrip(" \t,:"):
                labels[name] = rest.lstrip(" \t,:")
                break
    return known | labels


def find_wordnet_labels(names: Iterable[str]) -> dict[str, str]:
    """Find the labels of those names that are WordNet ids of ILSVRC-2012."""
    ids = [name for name in names if name in read_wordnet_ids()]
    # Without any, torchvision is not imported.
    return {name: read_wordnet_labels()[name] for name in ids}


@cache
def read_wordnet_ids() -> dict[str, int]:
    """Return the WordNet ids of ILSVRC-2012's 1000 classes, and torchvision's number of each."""
    ids = (files("model.dataset") / "ilsvrc2012_wnids.txt").read_text().split()
    return {name: number for number, name in enumerate(ids)}


@cache
def read_wordnet_labels() -> dict[str, str]:
    """Return torchvision's labels of ILSVRC-2012's 1000 classes, by WordNet id."""
    from torchvision.models import AlexNet_Weights  # takes seconds to import

    labels = AlexNet_Weights.IMAGENET1K_V1.meta["categories"]
    return dict(zip(read_wordnet_ids(), labels, strict=True))
