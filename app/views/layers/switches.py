"""The page of switches: what changes in maps and labels when a part of the network is changed."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from flask import Blueprint, Response, abort, render_template, request

from app import context
from app.views.current_image import CurrentImage, get_current_image
from app.views.layers import activations, sheets
from model.network.config import AlexNetConfig
from model.network.layers import Drop, Lrn, MapNorm
from model.network.paper_layers import list_layers
from model.network.switches import CROPS, MAX_DROPOUT_SAMPLES, Neurons, Switches
from model.predict import Floats, Predictor
from model.runtime.protocol import RuntimeUnavailableError
from model.visualization.activations import (
    Activations,
    LayerActivations,
    SwitchedActivations,
    trace_switched_activations,
)
from model.visualization.receptive_field import WeightedLayer

blueprint = Blueprint("switches", __name__, url_prefix="/switches")
blueprint.context_processor(activations.list_template_functions)
NEURONS: dict[Neurons, str] = {
    "as trained": "as trained",
    "relu": "ReLU",
    "tanh": "tanh",
    "none": "none: linear",
}
MAX_SEED = 9999
TOP_LABELS = 5


@dataclass(frozen=True, kw_only=True)
class ChangedLabel:
    """A label's probability as trained and changed, 0–1; low, high: of all samples."""

    label: str
    before: float
    after: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class ChangedLayer:
    """A layer as trained and changed.

    change: the length of the difference over the length as trained. active: shares of neurons above
    zero, before and after. urls: of the towers' pictures, before and after.
    """

    layer: WeightedLayer
    change: float
    active: tuple[float, float]
    urls: list[tuple[str, str]]
    width: int
    height: int


@blueprint.get("")
def show_switches() -> str:
    """Show the switches, and what the chosen ones change for the current image."""
    predictor, image = context.require_predictor(), get_current_image()
    if image is None:
        examples = activations.list_examples()
        return render_template("switches.html", image=None, examples=examples)
    activations.check_network(image, predictor)
    switches, config = read_switches(predictor.config), predictor.config
    before = compute_switched(image, Switches(crop=switches.crop))
    after = compute_switched(image, switches)
    return render_template(
        "switches.html",
        image=image,
        switches=switches,
        neurons=NEURONS,
        crops=CROPS,
        switchable=list_switchable_parts(config),
        config=config,
        max_samples=MAX_DROPOUT_SAMPLES,
        labels=compare_labels(predictor, before, after),
        layers=compare_layers(image, switches, before.activations, after.activations),
        is_changed=switches != Switches(crop=switches.crop),
        next_seed=(switches.seed + 1) % (MAX_SEED + 1),
    )


@blueprint.get(f"/<name>/tower-{'<int(min=1, max=2):number>'}.png")
def switched_picture(name: str, number: int) -> Response:
    """Return the picture of a tower's maps in the changed network."""
    image = activations.require_current_image()
    switches = read_switches(context.require_predictor().config)
    kind = f"switched-{name}-{number}-{name_switches(switches)}"
    if fresh := activations.check_picture_not_modified(image, kind):
        return fresh
    found = compute_switched(image, switches).activations
    known = {maps.name: maps for maps in found.layers[:-1]}
    maps = known.get(name) or abort(404, f"Unknown layer; choose one of {', '.join(known)}.")
    if number > len(maps.towers):
        abort(404)
    return activations.send_picture(image, kind, sheets.render_tower(maps, number))


def read_switches(config: AlexNetConfig) -> Switches:
    """Read the switches from the address; 404 for a value that they do not have."""
    neurons = request.args.get("neurons", "as trained")
    if neurons not in NEURONS:
        abort(404, f"The neurons are one of: {', '.join(NEURONS)}.")
    silent = read_number("silent", 0, config.towers if config.towers > 1 else 0)
    return Switches(
        neurons=neurons,
        lrn=request.args.get("lrn") != "off",
        silent_tower=silent,
        dropout_samples=MAX_DROPOUT_SAMPLES if request.args.get("dropout") == "on" else 0,
        seed=read_number("seed", 0, MAX_SEED),
        crop=read_number("crop", Switches().crop, CROPS - 1),
    )


def read_number(name: str, default: int, highest: int) -> int:
    """Read a whole number from the address; 404 if it is none or too large."""
    text = request.args.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) <= highest):
        abort(404, f"“{name}” is a number from 0 to {highest}.")
    return int(text)


def name_switches(switches: Switches) -> str:
    """Name switches in one word, for caches."""
    lrn = "lrn" if switches.lrn else "plain"
    neurons = switches.neurons.replace(" ", "")
    dropout = f"{switches.dropout_samples}x{switches.seed}"
    return f"{neurons}-{lrn}-{switches.silent_tower}-{dropout}-{switches.crop}"


def make_switch_arguments(switches: Switches) -> dict[str, Any]:
    """Return the arguments of an address that names these switches; those at rest are left out."""
    return {
        "neurons": None if switches.neurons == "as trained" else switches.neurons,
        "lrn": None if switches.lrn else "off",
        "silent": switches.silent_tower or None,
        "dropout": "on" if switches.dropout_samples else None,
        "seed": switches.seed if switches.dropout_samples and switches.seed else None,
        "crop": None if switches.crop == Switches().crop else switches.crop,
    }


def compute_switched(image: CurrentImage, switches: Switches) -> SwitchedActivations:
    """Return what a changed network computes for an image, cached; waits for a slot to compute.

    404 if this network cannot be changed.
    """
    predictor = context.require_predictor()

    def compute() -> SwitchedActivations:
        with context.compute_slot():
            return trace_switched_activations(predictor, image.read_square(predictor), switches)

    key = ("switched", predictor.identity, image.key, name_switches(switches))
    try:
        found: SwitchedActivations = activations.get_activation_cache().get(key, compute)
    except RuntimeUnavailableError as error:
        abort(404, f"This network cannot be changed: {error}.")
    return found


def compare_labels(
    predictor: Predictor, before: SwitchedActivations, after: SwitchedActivations
) -> list[ChangedLabel]:
    """Return the most probable labels of both, by what they have as trained."""
    was, every = before.probabilities[0], after.probabilities
    now = every.mean(0)
    best = {int(i) for values in (was, now) for i in np.argsort(-values)[:TOP_LABELS]}
    return [
        ChangedLabel(
            label=predictor.classes[i].label,
            before=float(was[i]),
            after=float(now[i]),
            low=float(every[:, i].min()),
            high=float(every[:, i].max()),
        )
        for i in sorted(best, key=lambda i: -max(was[i], now[i]))[: TOP_LABELS + 1]
    ]


def compare_layers(
    image: CurrentImage, switches: Switches, before: Activations, after: Activations
) -> list[ChangedLayer]:
    """Compare each layer but the labels."""
    at_rest = Switches(crop=switches.crop)
    return [
        ChangedLayer(
            layer=old.layer,
            change=measure_change(join_towers(old), join_towers(new)),
            active=(measure_active_share(old), measure_active_share(new)),
            urls=[
                (make_tower_url(image, at_rest, old, n), make_tower_url(image, switches, old, n))
                for n in range(1, len(old.towers) + 1)
            ],
            width=sheets.layout_sheet(old.layer).size(old.layer)[0],
            height=sheets.layout_sheet(old.layer).size(old.layer)[1],
        )
        for old, new in zip(before.layers[:-1], after.layers[:-1], strict=True)
    ]


def join_towers(maps: LayerActivations) -> Floats:
    """Return a layer's values of all towers in one row."""
    joined: Floats = np.concatenate([tower.ravel() for tower in maps.towers])
    return joined


def measure_active_share(maps: LayerActivations) -> float:
    """Return the share of a layer's neurons that are above zero."""
    return float((join_towers(maps) > 0).mean())


def measure_change(before: Floats, after: Floats) -> float:
    """Return the length of the difference over the length of what was before."""
    length = float(np.linalg.norm(before))
    return float(np.linalg.norm(after - before)) / length if length else 0.0


def make_tower_url(
    image: CurrentImage, switches: Switches, maps: LayerActivations, number: int
) -> str:
    """Return the URL of a tower's picture."""
    return activations.make_activation_picture_url(
        "layers.switches.switched_picture",
        image,
        name=maps.name,
        number=number,
        **make_switch_arguments(switches),
    )


def list_switchable_parts(config: AlexNetConfig) -> set[str]:
    """Return which parts this network has that can be switched, beside its neurons and crops."""
    layers = list_layers(config)
    return {
        *(["lrn"] if any(isinstance(layer, Lrn | MapNorm) for layer in layers) else []),
        *(["dropout"] if any(isinstance(layer, Drop) for layer in layers) else []),
        *(["towers"] if config.towers > 1 else []),
    }
