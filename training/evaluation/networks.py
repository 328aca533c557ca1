"""The networks to evaluate: their weights, their names and the order of their classes."""

from collections.abc import Sequence
from pathlib import Path

import torch

from model.checkpoint import Weights, load_weights
from model.predict import Predictor
from storage.evaluations import ENSEMBLE
from storage.runs import RunFolder
from training.evaluation.labels import match_names
from training.evaluation.predictions import EvaluatedModel


class NetworksError(ValueError):
    """Networks that cannot be found, or not be evaluated together."""


def load_models(runs: Sequence[Path], *, best: bool, device: torch.device) -> list[EvaluatedModel]:
    """Make the networks of runs' folders or weights files ready to answer.

    Their classes are counted as the first one's. Raises NetworksError when their classes differ
    or a folder is not a run's, WeightsError for a file that is not whole.
    """
    files = [find_weights(run, best=best) for run in runs]
    loaded = [load_weights(file) for file in files]
    first = loaded[0]
    orders = [match_class_order(f, files[0], w, first) for f, w in zip(files, loaded, strict=True)]
    names = number_duplicates([ENSEMBLE, *map(name_model, files)])[1:]
    parts = zip(names, loaded, orders, strict=True)
    return [
        EvaluatedModel(name, Predictor(w.build_network(), w, device), order)
        for name, w, order in parts
    ]


def find_weights(run: Path, *, best: bool) -> Path:
    """The weights that a run's folder or a file's name stand for."""
    if not run.is_dir():
        return run
    file = RunFolder(run).best if best else RunFolder(run).weights
    if not file.exists():
        raise NetworksError(f"{run} is not the folder of a finished run: it holds no {file.name}")
    return file


def match_class_order(
    file: Path, first_file: Path, weights: Weights, first: Weights
) -> torch.Tensor:
    """Which output is each of the first network's classes: int64 [classes]."""
    names = [known.folder for known in first.classes]
    order = match_names(names, weights.classes)
    missing = [name for name in names if name not in order]
    more = [c.folder for i, c in enumerate(weights.classes) if i not in order.values()]
    if missing or more:
        only = {first_file: missing, file: more}
        differing = [
            f"only {k} knows {', '.join(v[:5])}{' …' * (len(v) > 5)}" for k, v in only.items() if v
        ]
        raise NetworksError(f"an ensemble must know the same classes: {'; '.join(differing)}")
    return torch.tensor([order[name] for name in names])


def name_model(file: Path) -> str:
    """What a weights file is called: by its run, else by itself."""
    real = file.resolve()
    return real.parent.name if RunFolder(real.parent).description.exists() else real.stem


def number_duplicates(names: Sequence[str]) -> list[str]:
    """The names, those that came before with a number."""
    return [
        f"{name} ({names[:i].count(name) + 1})" if name in names[:i] else name
        for i, name in enumerate(names)
    ]
