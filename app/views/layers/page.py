"""The pages of every layer's activations for an image, laid out in two towers like Figure 2."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, abort, render_template, request

from app import context
from app.views.current_image import CurrentImage, get_current_image
from app.views.format import describe_provenance
from app.views.layers import activations, sheets, switches
from app.views.layers.sheets import TowerSheet
from model.visualization.activations import LayerActivations
from model.visualization.receptive_field import WeightedLayer, list_weighted_layers

blueprint = Blueprint("layers", __name__, url_prefix="/layers")
blueprint.register_blueprint(switches.blueprint)
blueprint.context_processor(activations.list_template_functions)
NUMBER_RULE = "<int(min=1, max=99999):number>"
TOP_NEURONS = 10


@dataclass(frozen=True, kw_only=True)
class LayerView:
    """A layer and the pictures of its towers."""

    layer: WeightedLayer
    sheets: list[TowerSheet]


@dataclass(frozen=True, kw_only=True)
class TopNeuron:
    """One of a tower's strongest neurons; share: of the layer's largest value, 0–1."""

    number: int
    value: float
    share: float


@blueprint.get("")
def show_layers() -> str:
    """Show every layer's activations for the current image, or examples to choose from."""
    predictor, image = context.require_predictor(), get_current_image()
    if image is None:
        return offer_examples()
    if not image.is_of(predictor):
        return explain_other_network(image)
    computed = activations.compute_activations(image)
    return render_template(
        "layers.html",
        image=image,
        layers=[view_layer(image, maps) for maps in computed.layers[:-1]],
        labels=computed.layers[-1].layer,
        guesses=predictor.top5(computed.probabilities),
        config=predictor.config,
        origin=describe_provenance(predictor.provenance),
    )


@blueprint.get("/<name>")
def show_layer(name: str) -> str:
    """Show one layer enlarged: all maps and one of them in detail, or the strongest neurons."""
    predictor, image = context.require_predictor(), get_current_image()
    known = [layer.name for layer in list_weighted_layers(predictor.config)[:-1]]
    if name not in known:
        abort(404, describe_unknown_layer(known))
    if image is None:
        return offer_examples()
    if not image.is_of(predictor):
        return explain_other_network(image)
    maps = find_layer_maps(image, name)
    return render_template(
        "layer.html",
        image=image,
        view=view_layer(image, maps, large=True),
        names=known,
        config=predictor.config,
        **(
            make_neurons_context(maps)
            if maps.layer.kind == "neurons"
            else make_map_context(image, maps)
        ),
    )


@blueprint.get(f"/<name>/tower-{NUMBER_RULE}.png")
def tower_picture(name: str, number: int) -> Response:
    """Return a tower's maps as shown on the page of all layers."""
    return send_tower_picture(name, number, large=False)


@blueprint.get(f"/<name>/large-{NUMBER_RULE}.png")
def large_picture(name: str, number: int) -> Response:
    """Return a tower's maps enlarged, eight per row."""
    return send_tower_picture(name, number, large=True)


@blueprint.get(f"/<name>/map-{NUMBER_RULE}.png")
def feature_map_picture(name: str, number: int) -> Response:
    """Return a single map."""
    image = activations.require_current_image()
    if fresh := activations.check_picture_not_modified(image, f"{name}-map-{number}"):
        return fresh
    maps = find_layer_maps(image, name)
    if maps.layer.kind == "neurons" or number > count_maps(maps):
        abort(404)
    picture = sheets.render_feature_map(sheets.select_map(maps, number))
    return activations.send_picture(image, f"{name}-map-{number}", picture)


def send_tower_picture(name: str, tower: int, *, large: bool) -> Response:
    """Return the picture of a tower's maps."""
    image = activations.require_current_image()
    kind = f"{name}-{'large' if large else 'tower'}-{tower}"
    if fresh := activations.check_picture_not_modified(image, kind):
        return fresh
    maps = find_layer_maps(image, name)
    if tower > len(maps.towers):
        abort(404)
    return activations.send_picture(image, kind, sheets.render_tower(maps, tower, large=large))


def offer_examples() -> str:
    """Show example images to choose from, if there is an index."""
    return render_template("layers.html", image=None, examples=activations.list_examples())


def explain_other_network(image: CurrentImage, endpoint: str = "layers.show_layers") -> str:
    """Say that another network classified an upload, and offer to classify it again.

    endpoint: of the page that was asked for, to show it of other images.
    """
    examples = activations.list_examples()
    return render_template("other_network.html", image=image, examples=examples, endpoint=endpoint)


def find_layer_maps(image: CurrentImage, name: str) -> LayerActivations:
    """Return a layer's activations for an image; 404 for a name that is not shown."""
    known = {maps.name: maps for maps in activations.compute_activations(image).layers[:-1]}
    return known.get(name) or abort(404, describe_unknown_layer(known))


def describe_unknown_layer(known: Iterable[str]) -> str:
    """Say which layers there are."""
    return f"Unknown layer; choose one of {', '.join(known)}."


def view_layer(image: CurrentImage, maps: LayerActivations, *, large: bool = False) -> LayerView:
    """Return what a page shows of a layer."""
    return LayerView(layer=maps.layer, sheets=sheets.list_sheets(image, maps, large=large))


def make_map_context(image: CurrentImage, maps: LayerActivations) -> dict[str, Any]:
    """Return the template variables of one map: the requested one or the strongest."""
    number = read_map_number(maps)
    config = context.require_predictor().config
    return {
        "number": number,
        "tower": (number - 1) // maps.layer.maps + 1,
        "map_url": activations.make_activation_picture_url(
            ".feature_map_picture", image, name=maps.name, number=number
        ),
        "peak": activations.find_peak(
            sheets.select_map(maps, number), maps.layer.receptive_field, config
        ),
    }


def read_map_number(maps: LayerActivations) -> int:
    """Read the map's number, from 1, from the URL; the default is the strongest map."""
    text = request.args.get("map", "")
    if not text:
        every = [peak for tower in maps.towers for peak in sheets.find_peaks(tower)]
        return every.index(max(every)) + 1
    if not (
        text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= count_maps(maps)
    ):
        abort(404, f"{maps.name} has maps 1 to {count_maps(maps)}.")
    return int(text)


def count_maps(maps: LayerActivations) -> int:
    """Count the maps of all towers."""
    return maps.layer.maps * len(maps.towers)


def make_neurons_context(maps: LayerActivations) -> dict[str, Any]:
    """Return the template variables of a layer of neurons: the strongest of each tower."""
    strongest = []
    for tower, values in enumerate(maps.towers):
        order = (-abs(values)).argsort(kind="stable")[:TOP_NEURONS]
        strongest.append(
            [
                TopNeuron(
                    number=tower * maps.layer.maps + int(index) + 1,
                    value=float(values[index]),
                    share=float(abs(values[index])) / (maps.largest or 1),
                )
                for index in order
            ]
        )
    return {"strongest": strongest}
