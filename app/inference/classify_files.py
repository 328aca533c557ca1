"""Files classified in batches: what the command `flask classify` does, apart from its words."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from app.database.images import find_images
from app.database.session import Sessions
from app.inference.classify import Neighbour, nearest_neighbours
from app.inference.loader import Ready
from index.vectors import Floats
from model.dataset import SUFFIXES, is_photograph
from model.decode import ImageError
from model.predict import LabelProbability, Pixels, Prediction, Predictor
from model.preprocess import read_square
from storage.parallel import map_ahead, split_batches

BATCH = 16
"""Images that go through the network at once, each as ten crops."""


@dataclass(frozen=True, kw_only=True)
class NeighbourFile:
    """A training image near to a file, and its own file."""

    neighbour: Neighbour
    file: Path | None


@dataclass(frozen=True, kw_only=True)
class ClassifiedFile:
    """What was answered for a file: labels, falling; training images, nearest first."""

    file: Path
    top: list[LabelProbability]
    neighbours: list[NeighbourFile] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class UnreadableFile:
    """A file, or a folder, that could not be read, and why, in a sentence."""

    file: Path
    reason: str


Outcome = ClassifiedFile | UnreadableFile
FindNeighbours = Callable[[Floats], list[list[NeighbourFile]]]
"""Gives what is near to each of the features float32 [N, 4096]."""


def find_files(paths: Iterable[Path]) -> list[Path | UnreadableFile]:
    """The files named, and the photographs in the folders named and below, in order, each once."""
    every = (
        one for path in paths for one in (photographs_below(path) if is_folder(path) else [path])
    )
    return list(dict.fromkeys(every))


def is_folder(path: Path) -> bool:
    """Whether it is one; what cannot be looked at is told when it is read."""
    try:
        return path.is_dir()
    except OSError:
        return False


def photographs_below(folder: Path) -> list[Path | UnreadableFile]:
    """The photographs in a folder and below, by name; hidden ones do not count."""
    files: list[Path] = []
    errors: list[OSError] = []
    for place, folders, names in os.walk(folder, onerror=errors.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += (Path(place, name) for name in sorted(names) if is_photograph(name))
    reason = f"The folder holds no photographs ({', '.join(SUFFIXES)})."
    return [*files, *map(unreadable_folder, errors)] or [UnreadableFile(file=folder, reason=reason)]


def unreadable_folder(error: OSError) -> UnreadableFile:
    """Say that a folder cannot be looked into."""
    reason = f"The folder cannot be opened: {error.strerror}."
    return UnreadableFile(file=Path(os.fsdecode(error.filename)), reason=reason)


def classify_files(
    files: Sequence[Path | UnreadableFile],
    predictor: Predictor,
    top: int,
    find: FindNeighbours | None,
    on_progress: Callable[[int], None],
    batch: int = BATCH,
) -> Iterator[Outcome]:
    """Answer for each file in its order: `top` labels, and what `find` gives.

    `on_progress` is told how many are done, after each batch.
    """
    done = 0
    for group in split_batches(map_ahead(try_read_square, files, 2 * batch), batch):
        squares = [square for _, square in group if not isinstance(square, str)]
        looks = predictor.predict_batch(np.stack(squares)) if squares else []
        near = iter(find(stack_features(looks)) if find and looks else [])
        rest = iter(looks)
        for file, square in group:
            if isinstance(square, str):
                yield UnreadableFile(file=file, reason=square)
            else:
                labels = predictor.top_k(next(rest).probabilities, top)
                yield ClassifiedFile(file=file, top=labels, neighbours=next(near, []))
        done += len(group)
        on_progress(done)


def stack_features(looks: Sequence[Prediction]) -> Floats:
    """Their features, float32 [N, 4096]."""
    return np.stack([look.fc7 for look in looks])


def try_read_square(file: Path | UnreadableFile) -> tuple[Path, Pixels | str]:
    """A file and its square, or what is wrong with it."""
    if isinstance(file, UnreadableFile):
        return file.file, file.reason
    try:
        # A pipe without a writer would be waited for without end.
        if file.exists() and not file.is_file():
            return file, "This is neither a file nor a folder."
        return file, read_square(file)
    except ImageError as error:
        return file, str(error).removeprefix(f"{file}: ")
    except OSError as error:
        return file, f"The file cannot be opened: {error.strerror}."


def neighbour_finder(ready: Ready, sessions: Sessions, count: int) -> FindNeighbours:
    """Find the `count` training images nearest by the features of fc7."""

    def find(features: Floats) -> list[list[NeighbourFile]]:
        rows = nearest_neighbours(ready, sessions, features, count)
        known = find_images(sessions, (one.id for row in rows for one in row))
        files = {image: picture.file for image, picture in known.items()}
        return [
            [NeighbourFile(neighbour=one, file=files.get(one.id)) for one in row] for row in rows
        ]

    return find
