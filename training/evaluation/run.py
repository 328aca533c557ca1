"""Run an evaluation, from the command line to its files."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich.console import Console

from model.weights.checkpoint import Weights
from model.weights.loaded_network import find_device
from storage.evaluations import Crops, Evaluation, EvaluationData, save_evaluation, write_json
from storage.files import check_writable, write_atomically
from storage.home import Home
from storage.progress import SpeedColumn, show_progress_bar
from training.evaluation.labels import (
    LabelledPhotographs,
    MatchedPhotographs,
    find_photographs,
    match_classes,
)
from training.evaluation.metrics import compute_metrics
from training.evaluation.networks import load_models
from training.evaluation.picture import draw_evaluation
from training.evaluation.predictions import (
    EvaluatedModel,
    PredictedPhotographs,
    predict_photographs,
)
from training.evaluation.tables import print_tables
from training.optimisation.device import has_bf16, keep_freed_memory

MAX_NAMED_CLASSES = 20
"""Left-out classes that the terminal lists; the JSON file lists all."""


class EvaluationError(ValueError):
    """A command line with invalid options."""


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """Evaluate networks on labelled photographs: top-1 and top-5 error, from centre and ten crops.

    Several networks are evaluated one by one and as an ensemble, the mean of their probabilities.
    Classes are matched by folder name, label or WordNet id, never by position.

    The results are printed and saved in the folder evaluations/ of ALEXNET_HOME; the application
    shows them with the run.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Run folders or weights files. Default: the selected weights."""
    best: bool = False
    """Use a run's best.safetensors, from the epoch with the lowest validation error, instead of
    weights.safetensors."""
    data: Path | None = None
    """The photographs, as <split>/<class>/*, as <class>/* or as <WordNet id>_* in one folder.
    Default: the folder named by ALEXNET_DATA, else the one the first network was trained on."""
    split: str = "val"
    """Which split to use, if the folder has splits."""
    crops: Literal["both", "ten", "centre"] = "both"
    """Centre crop, average of ten crops (§4.1), or both."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Device to run on."""
    precision: Literal["auto", "f32", "bf16"] = "auto"
    """Precision of the layers' arithmetic. auto: bf16 if the processor supports it."""
    batch: int = 16
    """Images per batch, each with up to ten crops."""
    mistakes: int = 20
    """How many of the most confident mistakes to list."""
    json: Path | None = None
    """Also write all results to this file."""
    picture: Path | None = None
    """Draw confusion matrix, errors by class and mistakes to this PNG file."""


def evaluate(arguments: Sequence[str], home: Home, console: Console) -> Evaluation:
    """Evaluate networks as the command line says; print, save and return the evaluation.

    Raises EvaluationError, NetworksError, FolderError, WeightsError, PredictionError or OSError.
    """
    options = tyro.cli(EvaluationOptions, args=list(arguments))
    check_options(options)
    keep_freed_memory()
    device = find_device(options.device)
    models = load_models(options.runs or (home.weights,), best=options.best, device=device)
    first = models[0].predictor.loaded.weights
    root = choose_data(options, first)
    labelled = find_photographs(root, options.split)
    matched = match_classes(labelled, first.classes)
    print_plan(matched, root, models, console)
    # As in training/optimisation/device.py, which declares it as a deviation from the paper.
    bf16 = options.precision == "bf16" or (options.precision == "auto" and has_bf16(device))
    predicted = predict_with_progress(options, models, root, matched, bf16, console)
    evaluation = compute_metrics(
        predicted,
        models,
        first.classes,
        describe_data(labelled, matched, predicted, options, root),
        precision="bf16" if bf16 else "f32",
        mistakes=options.mistakes,
    )
    print_tables(evaluation, console)
    save_for_application(evaluation, home, root, console)
    if options.json:
        write_json(options.json, asdict(evaluation))
    if options.picture:
        write_atomically(options.picture, draw_evaluation(evaluation, root))
    return evaluation


def save_for_application(evaluation: Evaluation, home: Home, root: Path, console: Console) -> None:
    """Save an evaluation for the application; print where, or why it cannot be saved."""
    try:
        console.print(f"Saved as {save_evaluation(evaluation, home, root)}.", markup=False)
    except OSError as error:
        console.print(f"Not saved for the application: {error}.", markup=False)


def check_options(options: EvaluationOptions) -> None:
    """Raise EvaluationError or OSError for options that cannot work, before any work is done."""
    for name, minimum in (("batch", 1), ("mistakes", 0)):
        if getattr(options, name) < minimum:
            raise EvaluationError(f"--{name} cannot be {getattr(options, name)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise EvaluationError("--device cuda: torch finds no CUDA GPU")
    if options.device == "mps" and not torch.backends.mps.is_available():
        raise EvaluationError("--device mps: torch finds no such GPU")
    if options.json is not None and options.json == options.picture:
        raise EvaluationError(f"--json and --picture name the same file, {options.json}")
    for path in filter(None, (options.json, options.picture)):
        check_writable(path)


def choose_data(
    options: EvaluationOptions, weights: Weights, environ: Mapping[str, str] = os.environ
) -> Path:
    """Return the absolute path of the folder of photographs.

    Raises EvaluationError if none is named and the network was trained elsewhere.
    """
    named = options.data or environ.get("ALEXNET_DATA") or weights.provenance.folder
    if named is None:
        raise EvaluationError(
            f"the weights were not trained on a folder here (trained on: "
            f"{weights.provenance.data}); name the photographs with --data"
        )
    return Path(named).absolute()


def print_plan(
    matched: MatchedPhotographs, root: Path, models: Sequence[EvaluatedModel], console: Console
) -> None:
    """Print which networks are evaluated on what, and which classes are left out."""
    count, classes = len(matched.photographs), len({p.class_index for p in matched.photographs})
    console.print(
        f"Evaluating {', '.join(m.name for m in models)} on {root}: {count:,} photographs of "
        f"{classes:,} classes.",
        markup=False,
    )
    if matched.unknown:
        names = [f"{name} ({photos:,})" for name, photos in matched.unknown.items()]
        more = (
            f" and {len(names) - MAX_NAMED_CLASSES:,} more"
            if len(names) > MAX_NAMED_CLASSES
            else ""
        )
        console.print(
            "Left out, because no class or several classes of the network match (photographs): "
            f"{', '.join(names[:MAX_NAMED_CLASSES])}{more}.",
            markup=False,
        )


def predict_with_progress(
    options: EvaluationOptions,
    models: Sequence[EvaluatedModel],
    root: Path,
    matched: MatchedPhotographs,
    bf16: bool,
    console: Console,
) -> PredictedPhotographs:
    """Predict with a progress bar; print the speed and the photographs that cannot be read."""
    crops: tuple[Crops, ...] = ("centre", "ten") if options.crops == "both" else (options.crops,)
    start = time.monotonic()
    photographs = matched.photographs
    with show_progress_bar(
        console, "predicting", len(photographs), SpeedColumn("images")
    ) as advance:
        predicted = predict_photographs(
            models,
            root,
            photographs,
            crops=crops,
            bf16=bf16,
            batch=options.batch,
            progress=advance,
        )
    seconds = time.monotonic() - start
    device = models[0].predictor.loaded.device
    speed = f"{len(photographs) / seconds:.1f} images/s, {seconds:.0f} s"
    console.print(f"{'bf16' if bf16 else 'f32'}, {device}: {speed}.")
    if predicted.unreadable:
        console.print(f"{len(predicted.unreadable)} photographs cannot be read and are left out:")
        for line in predicted.unreadable:
            console.print(f"  {line}", markup=False)
    return predicted


def describe_data(
    labelled: LabelledPhotographs,
    matched: MatchedPhotographs,
    predicted: PredictedPhotographs,
    options: EvaluationOptions,
    root: Path,
) -> EvaluationData:
    """Describe the photographs that the networks were evaluated on."""
    return EvaluationData(
        folder=str(options.data or root),
        layout=labelled.layout,
        split=options.split if labelled.layout == "split" else None,
        images=len(predicted.photographs),
        classes=len({photograph.class_index for photograph in predicted.photographs}),
        unreadable=predicted.unreadable,
        unknown=matched.unknown,
    )
