"""An evaluation from the command line to its files: find, predict, measure, print, write."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich.console import Console

from model.checkpoint import Weights
from model.predict import find_device
from storage.evaluations import Crops, Evaluation, EvaluationData, save_evaluation, write_json
from storage.files import temporary_path, write_atomically
from storage.home import Home
from storage.progress import SpeedColumn, progress_bar
from training.device import has_bf16, keep_freed_memory
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

MAX_NAMED_CLASSES = 20
"""Classes left out that are named in the terminal; the JSON file names all."""


class EvaluationError(ValueError):
    """A command line that cannot be followed."""


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """Evaluate networks on labelled photographs: top-1 and top-5 error, from centre and ten crops.

    Several networks are evaluated each and averaged as an ensemble. Classes are matched by the name
    of their folder, their label or their WordNet id, never by position.

    What was found is printed and kept in the folder evaluations/ of ALEXNET_HOME, where the
    application shows it with the run.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Folders of runs, or weights files. Default: the weights in use."""
    best: bool = False
    """Of a run's folder take best.safetensors, the epoch of the lowest validation error, instead
    of weights.safetensors."""
    data: Path | None = None
    """The photographs, as <split>/<class>/*, as <class>/* or as <WordNet id>_* in one folder.
    Default: the folder that ALEXNET_DATA names, else the one the first network was trained on."""
    split: str = "val"
    """Which of the folder's splits, where it has some."""
    crops: Literal["both", "ten", "centre"] = "both"
    """The centre crop, ten crops averaged (§4.1), or both."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the networks run."""
    precision: Literal["auto", "f32", "bf16"] = "auto"
    """Of the layers' arithmetic. auto: bf16 where the processor has it, as in training."""
    batch: int = 16
    """Images at a time, each of them as ten crops."""
    mistakes: int = 20
    """How many of the most confident mistakes are kept."""
    json: Path | None = None
    """Write everything that was found into this file, too."""
    picture: Path | None = None
    """Draw confusion matrix, errors by class and the mistakes into this PNG."""


def evaluate(arguments: Sequence[str], home: Home, console: Console) -> Evaluation:
    """Do what the command line says.

    Raises JudgeError, NetworksError, FolderError, WeightsError, AnswerError, OSError.
    """
    options = tyro.cli(EvaluationOptions, args=list(arguments))
    check_options(options)
    keep_freed_memory()
    device = find_device(options.device)
    models = load_models(options.runs or (home.weights,), best=options.best, device=device)
    first = models[0].predictor.weights
    root = choose_data(options, first)
    labelled = find_photographs(root, options.split)
    matched = match_classes(labelled, first.classes)
    print_plan(matched, root, models, console)
    # As in training, where the same is declared a deviation.
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
        console.print(f"Kept in {save_evaluation(evaluation, home, root)}.", markup=False)
    except OSError as error:
        console.print(f"Not kept for the application: {error}.", markup=False)


def check_options(options: EvaluationOptions) -> None:
    """Raise JudgeError or OSError for what cannot be done, before any work."""
    for name, least in (("batch", 1), ("mistakes", 0)):
        if getattr(options, name) < least:
            raise EvaluationError(f"--{name} cannot be {getattr(options, name)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise EvaluationError("--device cuda: no GPU that this torch can use was found")
    if options.device == "mps" and not torch.backends.mps.is_available():
        raise EvaluationError("--device mps: this machine has none")
    if options.json is not None and options.json == options.picture:
        raise EvaluationError(f"--json and --picture name the same file, {options.json}")
    for path in filter(None, (options.json, options.picture)):
        check_writable(path)


def check_writable(path: Path) -> None:
    """Raise OSError, naming the file, unless it can be written; nothing stays."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} cannot be written: it is a folder")
    part = temporary_path(path)
    try:
        part.open("wb").close()
        part.unlink()
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror}") from error


def choose_data(
    options: EvaluationOptions, weights: Weights, environ: Mapping[str, str] = os.environ
) -> Path:
    """The folder of photographs, absolute."""
    named = options.data or environ.get("ALEXNET_DATA") or weights.provenance.data
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
            "Left out, since the network knows no such class, or several, with their photographs: "
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
    began = time.monotonic()
    photographs = matched.photographs
    with progress_bar(console, "predicting", len(photographs), SpeedColumn("images")) as advance:
        predicted = predict_photographs(
            models,
            root,
            photographs,
            crops=crops,
            bf16=bf16,
            batch=options.batch,
            progress=advance,
        )
    seconds = time.monotonic() - began
    device = models[0].predictor.device
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
    """What the networks were evaluated on."""
    return EvaluationData(
        folder=str(options.data or root),
        layout=labelled.layout,
        split=options.split if labelled.layout == "split" else None,
        images=len(predicted.photographs),
        classes=len({photograph.class_index for photograph in predicted.photographs}),
        unreadable=predicted.unreadable,
        unknown=matched.unknown,
    )
