"""Load the networks to evaluate, name them, and match the order of their classes."""

from collections.abc import Sequence
from pathlib import Path

import torch

from model.predict import Predictor
from model.weights.checkpoint import Weights, load_weights
from storage.evaluations import ENSEMBLE
from storage.runs import RunFolder
from training.evaluation.labels import match_names
from training.evaluation.predictions import EvaluatedModel


class NetworksError(ValueError):
    """Networks that cannot be found, or cannot be evaluated together."""


def load_models(runs: Sequence[Path], *, best: bool, device: torch.device) -> list[EvaluatedModel]:
    """Load the networks of run folders or weights files onto a device.

    best: whether to take a run's best weights instead of its last. All networks' outputs are
    reordered to the first one's classes. Raises NetworksError if their classes differ or a folder
    is not a finished run's, and WeightsError for a missing or damaged file.
    """
    files = [find_weights(run, best=best) for run in runs]
    loaded = [load_weights(file) for file in files]
    first = loaded[0]
    orders = [match_class_order(f, files[0], w, first) for f, w in zip(files, loaded, strict=True)]
    names = number_duplicates([ENSEMBLE, *map(name_model, files)])[1:]
    parts = zip(names, loaded, orders, strict=True)
    return [
        EvaluatedModel(name, Predictor.from_weights(w, str(device)), order)
        for name, w, order in parts
    ]


def find_weights(run: Path, *, best: bool) -> Path:
    """Return the weights file of a run's folder, or the file itself. Raises NetworksError."""
    if not run.is_dir():
        return run
    file = RunFolder(run).best if best else RunFolder(run).weights
    if not file.exists():
        raise NetworksError(f"{run} is not the folder of a finished run: it holds no {file.name}")
    return file


def match_class_order(
    file: Path, first_file: Path, weights: Weights, first: Weights
) -> torch.Tensor:
    """Return the output of each of the first network's classes: int64 [classes].

    Raises NetworksError if the two networks have different classes.
    """
    names = [known.folder for known in first.classes]
    order = match_names(names, weights.classes)
    missing = [name for name in names if name not in order]
    more = [c.folder for i, c in enumerate(weights.classes) if i not in order.values()]
    if missing or more:
        only = {first_file: missing, file: more}
        differing = [
            f"only {k} has {', '.join(v[:5])}{' …' * (len(v) > 5)}" for k, v in only.items() if v
        ]
        raise NetworksError(f"the networks must have the same classes: {'; '.join(differing)}")
    return torch.tensor([order[name] for name in names])


def name_model(file: Path) -> str:
    """Name a weights file after its run, or else after itself."""
    real = file.resolve()
    return real.parent.name if RunFolder(real.parent).description.exists() else real.stem


def number_duplicates(names: Sequence[str]) -> list[str]:
    """Return the names, with a number after each repeated one."""
    return [
        f"{name} ({names[:i].count(name) + 1})" if name in names[:i] else name
        for i, name in enumerate(names)
    ]
