"""Which weights answer: those that the index version in service was built with.

The link `current` of the index names the version, and the version's manifest its weights, so that
switching one link switches both. The link to the selected weights (`Home.weights`) says only which
weights the next `flask index build` indexes; before any index exists, they answer as well.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from app.inference.state import (
    BUILD_COMMAND,
    TRAIN_COMMAND,
    NotReady,
    describe_damaged_weights,
    describe_missing_weights,
)
from app.inference.weights_files import list_weights_files, resolve_path
from index import store
from index.manifest import Manifest, StoreError
from model.network.config import FEATURES, SQUARE_SIDE, AlexNetConfig
from model.network.paper_layers import count_features
from model.weights.header import WeightsError, read_weights_header
from storage.home import Home

if TYPE_CHECKING:
    from model.weights.checkpoint import Weights


@dataclass(frozen=True, kw_only=True)
class WeightsSource:
    """The weights file in service, and the index version that it belongs to; None for neither.

    problem: why there is no file. watched: the files and folders that decide this, beside the
    index; when one of them changes, it may have another outcome.
    """

    file: Path | None = None
    manifest: Manifest | None = None
    problem: NotReady | None = None
    watched: tuple[Path, ...] = ()


class LostWeightsError(Exception):
    """No file holds the weights that an index version was built with; `state` says why."""

    def __init__(self, state: NotReady) -> None:
        super().__init__(state.message.rstrip("."))
        self.state = state


def find_weights_source(home: Home) -> WeightsSource:
    """Find what is in service according to the link `current`, or what is wrong with it."""
    named: Path | None = None
    try:
        version = store.read_current_version(home.index)
        if version is not None:
            manifest = store.read_manifest(home.index / version)
            named = locate_weights_file(home, manifest)
            file = find_weights_of_version(home, manifest)
            return WeightsSource(file=file, manifest=manifest, watched=(file,))
    except StoreError as error:
        problem = NotReady(reason="damaged", message=f"{error}.", command=BUILD_COMMAND)
        return WeightsSource(problem=problem)
    except LostWeightsError as error:
        places = (*filter(None, [named]), home.weights, home.runs, home.imported)
        return WeightsSource(problem=error.state, watched=places)
    return find_source_without_index(home)


def find_source_without_index(home: Home) -> WeightsSource:
    """Find the weights that were put into service without an index, else the selected ones."""
    if (chosen := store.read_published_weights(home.index)) and not chosen.exists():
        command = BUILD_COMMAND if home.weights.exists() else TRAIN_COMMAND
        message = f"The weights in service, {chosen}, no longer exist."
        problem = NotReady(reason="damaged", message=message, command=command)
        return WeightsSource(problem=problem, watched=(chosen,))
    file = chosen or home.weights
    if not file.exists() and not file.is_symlink():
        return WeightsSource(problem=describe_missing_weights(file), watched=(file,))
    return WeightsSource(file=file, watched=(file,))


def read_served_identity(home: Home) -> str | None:
    """Read the identity of the weights in service; None if there are none or they are damaged."""
    source = find_weights_source(home)
    try:
        if source.manifest or not source.file:
            return source.manifest.weights if source.manifest else None
        return read_identity(source.file)
    except WeightsError:
        return None


def find_weights_of_version(home: Home, manifest: Manifest) -> Path:
    """Find the file of the weights that an index version was built with.

    That is the file that the manifest names, or another one with the same weights.
    Raises LostWeightsError.
    """
    named, selected = locate_weights_file(home, manifest), resolve_path(home.weights)
    damage: dict[Path, WeightsError] = {}
    for file in dict.fromkeys(filter(None, (named, selected))):
        try:
            if file.exists() and read_identity(file) == manifest.weights:
                return file
        except WeightsError as error:
            damage[file] = error
    for found in list_weights_files(home):
        if found.info and found.info.identity == manifest.weights and not found.problem:
            return found.file
    # Indexing the selected weights helps, unless they are the damaged ones.
    command = BUILD_COMMAND if selected and selected not in damage else TRAIN_COMMAND
    if damage:
        raise LostWeightsError(describe_damaged_weights(next(iter(damage.values())), command))
    message = (
        f"The weights {manifest.weights[:8]} that the index {manifest.name} was built with are no "
        f"longer at {named or 'any known place'}."
    )
    raise LostWeightsError(NotReady(reason="mismatch", message=message, command=command))


def name_weights_file(home: Home, file: Path) -> str:
    """Name a file as a manifest does: relative to the home if it lies below it, else absolute."""
    root = home.root.resolve()
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)


def locate_weights_file(home: Home, manifest: Manifest) -> Path | None:
    """Return the path of the file that a manifest names; None in older manifests."""
    return (home.root / manifest.weights_file).resolve() if manifest.weights_file else None


def read_identity(file: Path) -> str:
    """Read the identity of a file's weights. Raises WeightsError."""
    if recorded := read_weights_header(file).identity:
        return recorded
    # Not above: only files from before it was recorded take torch.
    from model.weights.checkpoint import load_weights

    return load_weights(file).identity


def load_servable(file: Path) -> "Weights":
    """Read weights that the application can serve.

    The index and the pages need finite weights, 256×256 squares and 4096 features. Raises
    WeightsError.
    """
    # Not above: a process that serves a prepared network needs no torch.
    from model.weights.checkpoint import check_finite, load_weights

    weights = load_weights(file)
    check_finite(weights)
    check_servable(weights.config, file)
    return weights


def check_servable(config: AlexNetConfig, file: Path) -> None:
    """Raise WeightsError unless a file's network takes 256×256 squares and has 4096 features."""
    features = count_features(config)
    if (config.side, features) == (SQUARE_SIDE, FEATURES):
        return
    raise WeightsError(
        f"The weights in {file} belong to the network {config.net}, with "
        f"{config.side}×{config.side} pixels and {features} features; the application needs "
        f"{SQUARE_SIDE}×{SQUARE_SIDE} pixels and {FEATURES} features, as in the paper; train such "
        "a network with `python training/run.py`"
    )
