"""What each layer computes of an image, on its way through the two towers, as in Figure 2."""

from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, abort, render_template, request

from app import context
from app.views.current_image import CurrentImage, get_current_image
from app.views.format import describe_provenance
from app.views.layers import activations, sheets
from app.views.layers.sheets import TowerSheet
from model.activations import Maps
from model.receptive_field import Stage

blueprint = Blueprint("layers", __name__, url_prefix="/layers")
blueprint.context_processor(activations.template_functions)
NUMBER_RULE = "<int(min=1, max=99999):number>"
TOP_NEURONS = 10


@dataclass(frozen=True, kw_only=True)
class LayerView:
    """A stage of the network, and the pictures of its towers."""

    stage: Stage
    sheets: list[TowerSheet]


@dataclass(frozen=True, kw_only=True)
class TopNeuron:
    """A neuron among a tower's strongest; share: of the strongest of all towers."""

    number: int
    value: float
    share: float


@blueprint.get("")
def show_layers() -> str:
    """Show every layer's maps of the image at hand, or images to choose from."""
    predictor, subject = context.require_predictor(), get_current_image()
    if subject is None:
        return offer_examples()
    found = activations.compute_activations(subject)
    return render_template(
        "layers.html",
        subject=subject,
        floors=[view_layer(subject, maps) for maps in found.stages[:-1]],
        labels=found.stages[-1].stage,
        guesses=predictor.top5(found.probabilities),
        config=predictor.weights.config,
        origin=describe_provenance(predictor.weights.provenance),
    )


@blueprint.get("/<name>")
def show_layer(name: str) -> str:
    """Show the maps of one layer larger, and one of them by itself; or its strongest neurons."""
    config, subject = context.require_predictor().weights.config, get_current_image()
    if subject is None:
        return offer_examples()
    maps = find_layer_maps(subject, name)
    known = [other.name for other in activations.compute_activations(subject).stages[:-1]]
    return render_template(
        "layer.html",
        subject=subject,
        floor=view_layer(subject, maps, large=True),
        names=known,
        config=config,
        **(neurons_context(maps) if maps.stage.kind == "neurons" else map_context(subject, maps)),
    )


@blueprint.get(f"/<name>/tower-{NUMBER_RULE}.png")
def tower_picture(name: str, number: int) -> Response:
    """Give the maps of a tower as the page of all layers shows them."""
    return send_tower_picture(name, number, large=False)


@blueprint.get(f"/<name>/large-{NUMBER_RULE}.png")
def large_picture(name: str, number: int) -> Response:
    """Give the maps of a tower, eight in a row."""
    return send_tower_picture(name, number, large=True)


@blueprint.get(f"/<name>/map-{NUMBER_RULE}.png")
def feature_map_picture(name: str, number: int) -> Response:
    """Give one map by itself."""
    subject = activations.require_current_image()
    if fresh := activations.picture_not_modified(subject, f"{name}-map-{number}"):
        return fresh
    maps = find_layer_maps(subject, name)
    if maps.stage.kind == "neurons" or number > count_maps(maps):
        abort(404)
    picture = sheets.render_feature_map(sheets.select_map(maps, number))
    return activations.send_picture(subject, f"{name}-map-{number}", picture)


def send_tower_picture(name: str, tower: int, *, large: bool) -> Response:
    """Answer with the picture of a tower's maps."""
    subject, kind = (
        activations.require_current_image(),
        f"{name}-{'large' if large else 'tower'}-{tower}",
    )
    if fresh := activations.picture_not_modified(subject, kind):
        return fresh
    maps = find_layer_maps(subject, name)
    if tower > len(maps.towers):
        abort(404)
    return activations.send_picture(subject, kind, sheets.render_tower(maps, tower, large=large))


def offer_examples() -> str:
    """Show images to choose from. Raises NotReadyError where there are none to be had."""
    context.require_ready()
    return render_template("layers.html", subject=None, examples=activations.list_examples())


def find_layer_maps(subject: CurrentImage, name: str) -> Maps:
    """Find what a layer computes of an image; 404 where it has no maps or neurons to show."""
    known = {maps.name: maps for maps in activations.compute_activations(subject).stages[:-1]}
    return known.get(name) or abort(404, f"There is no such layer; there are {', '.join(known)}.")


def view_layer(subject: CurrentImage, maps: Maps, *, large: bool = False) -> LayerView:
    """Give what a page shows of a stage."""
    return LayerView(stage=maps.stage, sheets=sheets.list_sheets(subject, maps, large=large))


def map_context(subject: CurrentImage, maps: Maps) -> dict[str, Any]:
    """Give what the page of a layer says of the map that is chosen, or of its strongest one."""
    number = requested_map(maps)
    config = context.require_predictor().weights.config
    return {
        "number": number,
        "tower": (number - 1) // maps.stage.maps + 1,
        "alone": activations.activation_picture_url(
            ".feature_map_picture", subject, name=maps.name, number=number
        ),
        "spot": activations.find_peak(sheets.select_map(maps, number), maps.stage.field, config),
    }


def requested_map(maps: Maps) -> int:
    """Read the number of the map that is asked for; by default that of the strongest one."""
    text = request.args.get("map", "")
    if not text:
        every = [peak for tower in maps.towers for peak in sheets.find_peaks(tower)]
        return every.index(max(every)) + 1
    if not (
        text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= count_maps(maps)
    ):
        abort(404, f"{maps.name} has the maps 1 to {count_maps(maps)}.")
    return int(text)


def count_maps(maps: Maps) -> int:
    """Count the maps of all towers."""
    return maps.stage.maps * len(maps.towers)


def neurons_context(maps: Maps) -> dict[str, Any]:
    """Give what the page of a layer says of its strongest neurons, a list for each tower."""
    found = []
    for tower, values in enumerate(maps.towers):
        order = (-abs(values)).argsort(kind="stable")[:TOP_NEURONS]
        found.append(
            [
                TopNeuron(
                    number=tower * maps.stage.maps + int(index) + 1,
                    value=float(values[index]),
                    share=float(abs(values[index])) / (maps.largest or 1),
                )
                for index in order
            ]
        )
    return {"strongest": found}
