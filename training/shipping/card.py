"""The model card of the weights that ship, written from the files beside it.

What any weights file says about itself is in the card of model/formats/model_card.py, which this
one extends by what was measured.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from model.formats.model_card import write_model_card
from model.weights.checkpoint import Weights, load_weights
from storage.evaluations import CROPS_LABELS
from storage.pretrained import CONV1_FILE, EVALUATION_FILE, MEASUREMENTS_FILE
from storage.recipe import RecipeFields
from storage.runs import Epoch, RunFolder, read_epochs
from training.recipe.config import PAPER

CURVE_ROWS = 16
"""Epochs shown in the table of the curve, at most."""
LIMITS = """\
It was trained on ten classes, and "none of these" is not among its answers: a photograph of
anything else gets one of the ten labels too, often with a high probability.

Its photographs are ImageNet's, which were collected from the web. Its dogs are of one breed, and
its churches mostly Western ones. On photographs of other origin it may err more often; that has not
been measured. Many of the photographs show people, so that what surrounds an object, an angler's
hands around a tench for instance, may count for as much as the object.

It is meant for demonstrations, for teaching, and as a starting point for fine-tuning: not for
decisions about people, nor for any other decision that matters. ImageNet's terms of use limit its
photographs to research and education that are not commercial; whether that extends to weights
trained on them is not settled."""


def write_shipped_card(run: RunFolder) -> str:
    """Write the model card of the folder that ships, in Markdown. Raises WeightsError, OSError."""
    weights = load_weights(run.weights)
    description = run.read_description()
    evaluation = json.loads((run.path / EVALUATION_FILE).read_text())
    measured = json.loads((run.path / MEASUREMENTS_FILE).read_text())
    epochs = read_epochs(run.epochs)
    sections = (
        write_data_section(weights, evaluation, measured),
        write_recipe_section(description),
        write_compressed_line(weights, epochs),
        write_curve_section(epochs),
        write_errors_section(weights, evaluation),
        write_conv1_section(measured),
        write_compression_section(measured),
        write_retrieval_section(measured),
    )
    text = "\n\n".join(section for section in sections if section)
    return write_model_card(weights, measured=text, limits=LIMITS)


def write_data_section(
    weights: Weights, evaluation: Mapping[str, Any], measured: Mapping[str, Any]
) -> str:
    """Describe the photographs and the labels."""
    labels = ", ".join(known.label for known in weights.classes)
    size = measured.get("photograph_size")
    scaled = (
        f"""

All photographs had been scaled to {size[0]} × {size[1]} pixels before, whatever their shape was. \
The errors on photographs in their own shapes and sizes, such as those that `make demo \
DATA=imagenette` downloads, have not been measured."""
        if size
        else ""
    )
    return f"""## Data

Imagenette: photographs of {len(weights.classes)} of ImageNet's classes that are easy to tell \
apart: {labels}. {weights.provenance.images or 0:,} photographs were trained on, and the errors \
below are of {evaluation["data"]["images"]:,} others, its validation set.{scaled}"""


def write_recipe_section(description: Mapping[str, Any]) -> str:
    """Describe in what the recipe differs from the paper's."""
    recipe = description["recipe"]
    rows = [
        (
            field.metadata["label"],
            format_recipe_value(recipe[field.name]),
            format_recipe_value(paper),
        )
        for field in fields(RecipeFields)
        if field.name in recipe and recipe[field.name] != (paper := plain(field.name))
    ]
    return f"""## Recipe

The preset `{description["preset"]}`, in {description.get("precision", "f32")}, at commit \
{description.get("commit", "unknown")}. It differs from the paper in:

{write_table(("", "here", "in the paper"), rows)}"""


def write_compressed_line(weights: Weights, epochs: Sequence[Epoch[float | None]]) -> str:
    """Say whether compression trained the weights further."""
    further = (weights.provenance.epochs or 0) - len(epochs)
    trained = f", with {further} more epochs of training" if further > 0 else ""
    return f"The weights were then compressed{trained}: see below."


def plain(name: str) -> Any:
    """Return the paper's value of a field of the recipe, as JSON gives it."""
    return json.loads(json.dumps(getattr(PAPER, name)))


def write_curve_section(epochs: Sequence[Epoch[float | None]]) -> str:
    """Describe how the errors fell, in some of the epochs and the last one."""
    step = -(-len(epochs) // CURVE_ROWS)
    shown = [epoch for epoch in epochs if epoch.epoch % step == 0 or epoch in epochs[:1]]
    if epochs and epochs[-1] not in shown:
        shown.append(epochs[-1])
    rows = [
        (
            str(epoch.epoch),
            "" if epoch.rate is None else f"{epoch.rate:.2g}",
            "" if epoch.loss is None else f"{epoch.loss:.3f}",
            format_share(epoch.top1_error, 2),
            format_share(epoch.top5_error, 2),
        )
        for epoch in shown
    ]
    return f"""## Curve

Before compression; validation errors with the centre crop. All epochs are in `epochs.jsonl`.

{write_table(("epoch", "learning rate", "training loss", "top-1 error", "top-5 error"), rows)}"""


def write_errors_section(weights: Weights, evaluation: Mapping[str, Any]) -> str:
    """Describe the errors of the weights as they are here, with intervals, also by class."""
    names = {m["name"] for m in evaluation["models"] if m["identity"] == weights.identity}
    own = [result for result in evaluation["results"] if result["name"] in names]
    rows = [
        (
            CROPS_LABELS[result["crops"]],
            format_error_rate(result["top1"]),
            format_error_rate(result["top5"]),
        )
        for result in own
    ]
    ten = next(result for result in own if result["crops"] == "ten")
    classes = [(known["label"], format_error_rate(known["top1"])) for known in ten["classes"]]
    return f"""## Errors

After compression, on {evaluation["data"]["images"]:,} validation photographs, computed in \
{evaluation["precision"]}; in brackets 95 % confidence intervals (Wilson's score). The confusion \
matrix and the most confident mistakes are on the run's page of the application.

{write_table(("", "top-1 error", "top-5 error"), rows)}

By class, with ten crops:

{write_table(("class", "top-1 error"), classes)}"""


def write_conv1_section(measured: Mapping[str, Any]) -> str:
    """Describe conv1's kernels."""
    first, second = (measured["colour_selectivity"] * 2)[:2]
    low, noise = (
        format_share(measured[name]) for name in ("low_frequency", "low_frequency_of_noise")
    )
    return f"""## conv1

![The 96 kernels of conv1]({CONV1_FILE})

GPU 1's kernels on the left, GPU 2's on the right. Their colour selectivity, the share of a \
kernel's energy that is colour rather than grey, is {first:.3f} and {second:.3f} on average. At \
low frequencies lies {low} of the kernels' energy; of noise it would be {noise}."""


def write_compression_section(measured: Mapping[str, Any]) -> str:
    """Describe what compression left of each layer, and the file."""
    ratio = 4 * measured["parameters"] / measured["bytes"]
    rows = [
        (
            layer["name"],
            f"{layer['weights']:,}",
            format_share(layer["nonzero"] / layer["weights"], 0),
            f"{layer['values']:,}",
        )
        for layer in measured["layers"]
    ]
    return f"""## Compression

The {measured["parameters"]:,} parameters take {measured["bytes"] / 1e6:.1f} MB, {ratio:.0f} times \
less than as float32, by `training/compress.py`. Reading and decoding the file took \
{measured["read_seconds"]:.1f} s, {measured["read_cpu_seconds"]:.1f} s of processor time, on \
{measured["processor"]}.

{write_table(("layer", "weights", "not zero", "different values"), rows)}"""


def write_retrieval_section(measured: Mapping[str, Any]) -> str:
    """Describe how well the features find photographs of the same class, if it was measured."""
    precision = measured.get("precision")
    if not precision:
        return ""
    return f"""## Retrieval

For {format_share(precision["share"])} of {precision["images"]:,} validation photographs, the \
training photograph with the nearest features is of the same class."""


def write_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def format_error_rate(rate: Mapping[str, Any] | None) -> str:
    """Format an error rate with its interval."""
    if rate is None:
        return "–"
    return f"{100 * rate['error']:.2f} % ({100 * rate['low']:.2f}–{100 * rate['high']:.2f})"


def format_share(share: float | None, digits: int = 1) -> str:
    """Format a share in percent; empty if it was not recorded."""
    return "" if share is None else f"{100 * share:.{digits}f} %"


def format_recipe_value(value: Any) -> str:
    """Format a value of the recipe."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if value is None:
        return "not set"
    return {"True": "yes", "False": "no"}.get(str(value), str(value))
