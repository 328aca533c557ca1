"""Find labelled photographs, and match their classes with a network's.

Classes are matched by name, never by position: the order of the folders says nothing about the
order of a network's outputs.
"""

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from model.dataset.folder import (
    SUFFIXES,
    ClassName,
    FolderError,
    Photograph,
    is_ignored,
    is_photograph,
    read_folder_labels,
    read_wordnet_labels,
)

Layout = Literal["split", "folders", "files"]
WORDNET_PREFIX = re.compile(r"(n\d{8})_")


@dataclass(frozen=True)
class LabelledPhotographs:
    """The photographs in a folder, by class.

    layout:   split: <split>/<class>/*; folders: <class>/*; files: <WordNet id>_* in one folder.
    by_class: each class's paths relative to the root, with forward slashes, sorted. The keys are
              the classes' names on disk.
    """

    root: Path
    layout: Layout
    by_class: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class MatchedPhotographs:
    """The photographs that a network can be evaluated on.

    photographs: sorted by path; class_index is the index of the network's output.
    unknown:     the classes left out, because the network has no class of that name or several,
                 with their number of photographs.
    """

    photographs: tuple[Photograph, ...]
    unknown: dict[str, int]


def find_photographs(root: Path, split: str) -> LabelledPhotographs:
    """List the photographs under `root`, in the first layout that fits.

    Raises FolderError if there is no such folder, or it fits none of the three layouts.
    """
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise FolderError(f"{root} {what}; --data names a folder of photographs")
    places: list[tuple[Layout, Path]] = [("split", root / split), ("folders", root)]
    for layout, place in places:
        by_class = list_photographs_by_folder(root, place)
        if any(by_class.values()):
            return LabelledPhotographs(root, layout, by_class)
    for place in (root / split, root):
        if files := list_photographs_by_prefix(root, place):
            return LabelledPhotographs(root, "files", files)
    raise FolderError(
        f"{root} holds no photographs ({', '.join(SUFFIXES)}) as {split}/<class>/*, as <class>/* "
        "or as <WordNet id>_*"
    )


def list_photographs_by_folder(root: Path, place: Path) -> dict[str, tuple[str, ...]]:
    """List the photographs of each folder directly under `place`; empty if it is not a folder."""
    if not place.is_dir():
        return {}
    names = sorted(e.name for e in os.scandir(place) if e.is_dir() and not is_ignored(e.name))
    return {name: list_photographs_in(root, place / name) for name in names}


def list_photographs_by_prefix(root: Path, place: Path) -> dict[str, tuple[str, ...]]:
    """List the photographs in `place` whose names begin with a WordNet id, by that id."""
    by_id = defaultdict(list)
    for path in list_photographs_in(root, place) if place.is_dir() else ():
        if match := WORDNET_PREFIX.match(path.rsplit("/", 1)[-1]):
            by_id[match[1]].append(path)
    return {name: tuple(paths) for name, paths in by_id.items()}


def list_photographs_in(root: Path, place: Path) -> tuple[str, ...]:
    """List the photographs directly in a folder, as sorted paths relative to the root."""
    names = sorted(e.name for e in os.scandir(place) if is_photograph(e.name) and e.is_file())
    return tuple((place / name).relative_to(root).as_posix() for name in names)


def match_classes(
    labelled: LabelledPhotographs, classes: Sequence[ClassName]
) -> MatchedPhotographs:
    """Match each photograph's class with one of the network's classes.

    Classes match by folder name, else by label or WordNet id, ignoring case and treating
    underscores as spaces. Raises FolderError if no class matches, or a matching folder is empty.
    """
    indices = match_names(list(labelled.by_class), classes, labelled.root)
    for name in indices:
        if not labelled.by_class[name]:
            raise FolderError(
                f"the class folder {name} under {labelled.root} holds no photographs "
                f"({', '.join(SUFFIXES)}); add some or remove the folder"
            )
    if not indices:
        names = [*labelled.by_class]
        some = f"{', '.join(names[:5])}{' …' * (len(names) > 5)}"
        raise FolderError(
            f"{labelled.root}: the network knows none of its classes ({some}); they are matched "
            "by folder name, label or WordNet id"
        )
    photographs = [Photograph(p, i) for name, i in indices.items() for p in labelled.by_class[name]]
    return MatchedPhotographs(
        tuple(sorted(photographs, key=lambda photograph: photograph.path)),
        {name: len(paths) for name, paths in labelled.by_class.items() if name not in indices},
    )


def match_names(
    names: Sequence[str], classes: Sequence[ClassName], root: Path | None = None
) -> dict[str, int]:
    """Return the class index of each name; names that fit no or several classes are left out.

    root: a folder that may hold a classes.txt with the names' labels.
    """
    exact = {known.folder: index for index, known in enumerate(classes)}
    if all(name in exact for name in names):
        return {name: exact[name] for name in names}
    own = (
        read_wordnet_labels()
        if root is None
        else read_wordnet_labels() | read_folder_labels(root, [*names])
    )
    spelled = defaultdict(set)
    for index, known in enumerate(classes):
        for spelling in (known.folder, known.label, read_wordnet_labels().get(known.folder)):
            spelled[spelling and normalise_label(spelling)].add(index)
    indices = {}
    for name in names:
        meant = {exact[name]} if name in exact else spelled.get(normalise_label(name), set())
        meant = meant or spelled.get(normalise_label(own.get(name, name)), set())
        if len(meant) == 1:
            indices[name] = next(iter(meant))
    return indices


def normalise_label(name: str) -> str:
    """Normalise a name's case, underscores and spaces."""
    return " ".join(name.casefold().replace("_", " ").split())
