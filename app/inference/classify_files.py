"""Classifies files in batches, for the command `flask classify`."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from app.database.images import find_images
from app.database.session import Sessions
from app.inference.classify import (
    Neighbour,
    Sureness,
    find_nearest_neighbours,
    judge_prediction,
)
from app.inference.state import Ready
from index.vectors import Floats
from model.dataset.folder import SUFFIXES, is_photograph
from model.image.decode import ImageError
from model.predict import LabelProbability, Pixels, Prediction, Predictor
from storage.parallel import map_ahead, split_batches

FILES_PER_BATCH = 16
"""Images per forward pass, each as ten crops."""


@dataclass(frozen=True, kw_only=True)
class NeighbourFile:
    """A neighbour of a file, and the training image's own file."""

    neighbour: Neighbour
    file: Path | None


@dataclass(frozen=True, kw_only=True)
class ClassifiedFile:
    """A file's labels, most probable first, its neighbours, nearest first, and how sure that is."""

    file: Path
    top: list[LabelProbability]
    sureness: Sureness | None = None
    neighbours: list[NeighbourFile] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class UnclassifiedFile:
    """A file or folder that could not be read. reason: a sentence."""

    file: Path
    reason: str


Outcome = ClassifiedFile | UnclassifiedFile
FindNeighbours = Callable[[Floats], list[list[NeighbourFile]]]
"""Finds the neighbours of each row of float32 [N, 4096]."""
Judge = Callable[[Prediction, list[Neighbour]], Sureness | None]
"""Judges how sure a prediction with these neighbours is."""


def find_files(paths: Iterable[Path]) -> list[Path | UnclassifiedFile]:
    """List the given files, and the photographs in and below the given folders, each once."""
    every = (
        one
        for path in paths
        for one in (list_photographs_below(path) if is_folder(path) else [path])
    )
    return list(dict.fromkeys(every))


def list_passed_over(paths: Iterable[Path]) -> list[Path]:
    """List what `find_files` leaves out in the given folders: all that is no photograph.

    A hidden folder stands for what is in it. A folder without any photograph is not listed:
    `find_files` says so.
    """
    passed: list[Path] = []
    for path in filter(is_folder, paths):
        for place, folders, names in os.walk(path):
            passed += (Path(place, name) for name in sorted(folders) if name.startswith("."))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            passed += (Path(place, name) for name in sorted(names) if not is_photograph(name))
    return list(dict.fromkeys(passed))


def is_folder(path: Path) -> bool:
    """Whether the path is a folder; a path that cannot be examined fails when it is read."""
    try:
        return path.is_dir()
    except OSError:
        return False


def list_photographs_below(folder: Path) -> list[Path | UnclassifiedFile]:
    """List the photographs in a folder and below, sorted by name, without hidden folders."""
    files: list[Path] = []
    errors: list[OSError] = []
    for place, folders, names in os.walk(folder, onerror=errors.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += (Path(place, name) for name in sorted(names) if is_photograph(name))
    reason = f"The folder holds no photographs ({', '.join(SUFFIXES)})."
    return [*files, *map(describe_unreadable_folder, errors)] or [
        UnclassifiedFile(file=folder, reason=reason)
    ]


def describe_unreadable_folder(error: OSError) -> UnclassifiedFile:
    """Describe a folder that cannot be opened."""
    reason = f"The folder cannot be opened: {error.strerror}."
    return UnclassifiedFile(file=Path(os.fsdecode(error.filename)), reason=reason)


def classify_files(
    files: Sequence[Path | UnclassifiedFile],
    predictor: Predictor,
    top: int,
    find: FindNeighbours | None,
    on_progress: Callable[[int], None],
    batch: int = FILES_PER_BATCH,
    judge: Judge | None = None,
) -> Iterator[Outcome]:
    """Classify files in order, each with `top` labels and the neighbours from `find`.

    judge: says how sure each is. on_progress: called with the number of files done after each
    batch.
    """
    done = 0
    read = partial(try_read_square, predictor=predictor)
    for group in split_batches(map_ahead(read, files, 2 * batch), batch):
        squares = [square for _, square in group if not isinstance(square, str)]
        predictions = predictor.predict_batch(np.stack(squares)) if squares else []
        near = iter(find(stack_features(predictions)) if find and predictions else [])
        rest = iter(predictions)
        for file, square in group:
            if isinstance(square, str):
                yield UnclassifiedFile(file=file, reason=square)
            else:
                prediction, found = next(rest), next(near, [])
                yield ClassifiedFile(
                    file=file,
                    top=predictor.top_k(prediction.probabilities, top),
                    sureness=judge(prediction, [n.neighbour for n in found]) if judge else None,
                    neighbours=found,
                )
        done += len(group)
        on_progress(done)


def make_judge(ready: Ready) -> Judge:
    """Return a function that judges by what is usual for validation images."""
    return partial(judge_prediction, ready)


def stack_features(predictions: Sequence[Prediction]) -> Floats:
    """Stack the features: float32 [N, 4096]."""
    return np.stack([one.fc7 for one in predictions])


def try_read_square(
    file: Path | UnclassifiedFile, predictor: Predictor
) -> tuple[Path, Pixels | str]:
    """Read a file as uint8 [256, 256, 3], or say what is wrong with it."""
    if isinstance(file, UnclassifiedFile):
        return file.file, file.reason
    try:
        # Opening a pipe without a writer would block forever.
        if file.exists() and not file.is_file():
            return file, "This is neither a file nor a folder."
        return file, predictor.read_square(file)
    except ImageError as error:
        return file, str(error).removeprefix(f"{file}: ")
    except OSError as error:
        return file, f"The file cannot be opened: {error.strerror}."


def make_neighbour_finder(ready: Ready, sessions: Sessions, count: int) -> FindNeighbours:
    """Return a function that finds the `count` training images nearest in fc7 features."""

    def find(features: Floats) -> list[list[NeighbourFile]]:
        rows = find_nearest_neighbours(ready, sessions, features, count)
        known = find_images(sessions, (one.id for row in rows for one in row))
        files = {image: picture.file for image, picture in known.items()}
        return [
            [NeighbourFile(neighbour=one, file=files.get(one.id)) for one in row] for row in rows
        ]

    return find
