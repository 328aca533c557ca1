"""From a finished run and its compressed weights to the folder that ships with the project."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from model.weights.checkpoint import (
    Weights,
    check_finite,
    load_weights,
    read_tensors,
    write_tensors,
)
from model.weights.header import describe_provenance
from storage.evaluation_files import EvaluationFiles
from storage.evaluations import write_json
from storage.files import write_atomically
from storage.home import Home
from storage.pretrained import (
    CARD_FILE,
    CONV1_FILE,
    EVALUATION_FILE,
    MEASUREMENTS_FILE,
    PRETRAINED_DATA,
    SHIPPED,
)
from storage.runs import RunFolder, list_conv1_epochs
from training.records.reporting import draw_conv1
from training.shipping.card import write_shipped_card
from training.shipping.measure import measure_photographs, measure_weights

MAX_CONV1_PICTURES = 6
"""Epochs whose conv1 is shipped, as many as the run's page shows side by side."""
DESCRIPTION_KEYS = ("preset", "recipe", "precision", "commit", "options")
"""Entries of run.json that are shipped; the others name places on this machine."""


class ShipError(ValueError):
    """A run, weights or measurements that cannot be shipped."""


@dataclass(frozen=True, kw_only=True)
class ShipOptions:
    """Make the folder that ships with the project: weights, run, evaluation and model card.

    The weights must have been evaluated with this ALEXNET_HOME: python training/evaluate.py.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """The folder of the run that trained the weights."""
    weights: Path
    """The weights to ship: the run's, compressed by training/compress.py."""
    precision: Path | None = None
    """What `flask index precision --json` printed for an index built with these weights."""
    output: Path = SHIPPED.path
    """The folder to make; an earlier one is replaced."""


def ship(arguments: Sequence[str], home: Home, console: Console) -> RunFolder:
    """Make the folder as the command line says.

    Raises ShipError, WeightsError, FolderError or OSError.
    """
    options = tyro.cli(ShipOptions, args=list(arguments))
    run, weights = RunFolder(options.run), load_weights(options.weights)
    check_finite(weights)
    if not run.read_description().get("finished"):
        raise ShipError(f"{run.path} is not the folder of a finished run")
    evaluation = read_evaluation(home, weights)
    precision = read_precision(options.precision, weights)
    part = RunFolder(options.output.with_name(f".{options.output.name}.part"))
    shutil.rmtree(part.path, ignore_errors=True)
    part.path.mkdir(parents=True)
    write_portable_weights(weights, options.weights, part)
    write_description(run, weights, evaluation, part)
    write_json(part.path / EVALUATION_FILE, evaluation)
    photographs = measure_photographs(Path(run.read_description()["data"]))
    measured = measure_weights(part.weights) | photographs | precision
    write_json(part.path / MEASUREMENTS_FILE, measured)
    copy_pictures(run, weights, part)
    write_atomically(part.path / CARD_FILE, write_shipped_card(part))
    shutil.rmtree(options.output, ignore_errors=True)
    part.path.rename(options.output)
    size = sum(file.stat().st_size for file in options.output.rglob("*") if file.is_file())
    console.print(f"{options.output}: weights {weights.identity}, {size / 1e6:.1f} MB in all.")
    return RunFolder(options.output)


def read_evaluation(home: Home, weights: Weights) -> dict[str, Any]:
    """Return the newest evaluation of the weights alone, without paths. Raises ShipError."""
    files = EvaluationFiles(home)
    for summary in files.summaries_for([weights.identity]):
        found = files.open(summary.name) if summary.identities == {weights.identity} else None
        if found and {r.crops for r in found.results_for(weights.identity)} == {"centre", "ten"}:
            content = json.loads((home.evaluations / f"{summary.name}.json").read_text())
            data = asdict(replace(found.data, folder=PRETRAINED_DATA))
            return {k: v for k, v in content.items() if k != "root"} | {"data": data}
    raise ShipError(
        f"{home.evaluations} has no evaluation of the weights {weights.identity} alone, with both "
        "kinds of crops; run `python training/evaluate.py WEIGHTS --data DIR` first"
    )


def read_precision(file: Path | None, weights: Weights) -> dict[str, Any]:
    """Return what was measured of an index built with these weights. Raises ShipError."""
    if file is None:
        return {}
    try:
        content = json.loads(file.read_text())
        identity, precision = content["weights"], {k: content[k] for k in ("images", "share")}
    except (ValueError, KeyError, TypeError) as error:
        raise ShipError(f"{file} is not what `flask index precision --json` prints") from error
    if identity != weights.identity:
        raise ShipError(f"{file} is about an index of other weights, {identity}")
    return {"precision": precision}


def write_portable_weights(weights: Weights, file: Path, run: RunFolder) -> None:
    """Write a weights file that names its photographs instead of their place on this machine.

    Its tensors stay as they are coded in the file.
    """
    provenance = replace(weights.provenance, data=PRETRAINED_DATA)
    header, tensors = read_tensors(file)
    described = json.dumps(describe_provenance(provenance))
    write_tensors(tensors, run.weights, header | {"provenance": described})


def write_description(
    run: RunFolder, weights: Weights, evaluation: dict[str, Any], shipped: RunFolder
) -> None:
    """Write run.json, environment.json and epochs.jsonl, without paths."""
    description, provenance = run.read_description(), weights.provenance
    models = evaluation["models"]
    names = {model["name"] for model in models if model["identity"] == weights.identity}
    own = [result for result in evaluation["results"] if result["name"] in names]
    ten = next(result for result in own if result["crops"] == "ten")
    shipped.update_description(
        **{key: description[key] for key in DESCRIPTION_KEYS if key in description},
        data=PRETRAINED_DATA,
        finished=True,
        pretrained=True,
        weights=weights.identity,
        created=provenance.created,
        images=provenance.images,
        ten_crops=[ten["top1"]["error"], ten["top5"]["error"]],
    )
    shutil.copyfile(run.epochs, shipped.epochs)
    if run.environment.exists():
        environment = json.loads(run.environment.read_text())
        write_json(shipped.environment, {k: v for k, v in environment.items() if k != "arguments"})


def copy_pictures(run: RunFolder, weights: Weights, shipped: RunFolder) -> None:
    """Copy conv1 after a few epochs, and draw it as it is in the weights."""
    shipped.conv1.mkdir()
    epochs = sorted(list_conv1_epochs(run))
    last = len(epochs) - 1
    count = min(MAX_CONV1_PICTURES, len(epochs))
    for epoch in {epochs[round(n * last / max(1, count - 1))] for n in range(count)}:
        shutil.copyfile(run.conv1_picture(epoch), shipped.conv1_picture(epoch))
    picture = draw_conv1(weights.state["conv1.weight"], weights.config.towers)
    picture.save(shipped.path / CONV1_FILE, optimize=True)
