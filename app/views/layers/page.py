"""What each layer computes of an image, on its way through the two towers, as in Figure 2."""

from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, abort, render_template, request

from app import context
from app.views.current_image import Subject, asked
from app.views.format import origin
from app.views.layers import activations, sheets
from app.views.layers.sheets import Sheet
from model.activations import Maps
from model.receptive_field import Stage

blueprint = Blueprint("layers", __name__, url_prefix="/layers")
blueprint.context_processor(activations.addresses)
NUMBER = "<int(min=1, max=99999):number>"
STRONGEST = 10


@dataclass(frozen=True, kw_only=True)
class Floor:
    """A stage of the network, and the pictures of its towers."""

    stage: Stage
    sheets: list[Sheet]


@dataclass(frozen=True, kw_only=True)
class Strong:
    """A neuron among a tower's strongest; share: of the strongest of all towers."""

    number: int
    value: float
    share: float


@blueprint.get("")
def show() -> str:
    """Show every layer's maps of the image at hand, or images to choose from."""
    predictor, subject = context.predictor(), asked()
    if subject is None:
        return choose()
    found = activations.seen(subject)
    return render_template(
        "layers.html",
        subject=subject,
        floors=[floor(subject, maps) for maps in found.stages[:-1]],
        labels=found.stages[-1].stage,
        guesses=predictor.top5(found.probabilities),
        config=predictor.weights.config,
        origin=origin(predictor.weights.provenance),
    )


@blueprint.get("/<name>")
def layer(name: str) -> str:
    """Show the maps of one layer larger, and one of them by itself; or its strongest neurons."""
    config, subject = context.predictor().weights.config, asked()
    if subject is None:
        return choose()
    maps = computed(subject, name)
    known = [other.name for other in activations.seen(subject).stages[:-1]]
    return render_template(
        "layer.html",
        subject=subject,
        floor=floor(subject, maps, large=True),
        names=known,
        config=config,
        **(strong(maps) if maps.stage.kind == "neurons" else one_map(subject, maps)),
    )


@blueprint.get(f"/<name>/tower-{NUMBER}.png")
def tower_picture(name: str, number: int) -> Response:
    """Give the maps of a tower as the page of all layers shows them."""
    return drawn(name, number, large=False)


@blueprint.get(f"/<name>/large-{NUMBER}.png")
def large_picture(name: str, number: int) -> Response:
    """Give the maps of a tower, eight in a row."""
    return drawn(name, number, large=True)


@blueprint.get(f"/<name>/map-{NUMBER}.png")
def map_picture(name: str, number: int) -> Response:
    """Give one map by itself."""
    subject = activations.named()
    if fresh := activations.unchanged(subject, f"{name}-map-{number}"):
        return fresh
    maps = computed(subject, name)
    if maps.stage.kind == "neurons" or number > total(maps):
        abort(404)
    picture = sheets.map_sheet(sheets.map_of(maps, number))
    return activations.draw(subject, f"{name}-map-{number}", picture)


def drawn(name: str, tower: int, *, large: bool) -> Response:
    """Answer with the picture of a tower's maps."""
    subject, kind = activations.named(), f"{name}-{'large' if large else 'tower'}-{tower}"
    if fresh := activations.unchanged(subject, kind):
        return fresh
    maps = computed(subject, name)
    if tower > len(maps.towers):
        abort(404)
    return activations.draw(subject, kind, sheets.tower_sheet(maps, tower, large=large))


def choose() -> str:
    """Show images to choose from. Raises NotReadyError where there are none to be had."""
    context.ready()
    return render_template("layers.html", subject=None, examples=activations.examples())


def computed(subject: Subject, name: str) -> Maps:
    """Find what a layer computes of an image; 404 where it has no maps or neurons to show."""
    known = {maps.name: maps for maps in activations.seen(subject).stages[:-1]}
    return known.get(name) or abort(404, f"There is no such layer; there are {', '.join(known)}.")


def floor(subject: Subject, maps: Maps, *, large: bool = False) -> Floor:
    """Give what a page shows of a stage."""
    return Floor(stage=maps.stage, sheets=sheets.sheets(subject, maps, large=large))


def one_map(subject: Subject, maps: Maps) -> dict[str, Any]:
    """Give what the page of a layer says of the map that is chosen, or of its strongest one."""
    number = chosen(maps)
    config = context.predictor().weights.config
    return {
        "number": number,
        "tower": (number - 1) // maps.stage.maps + 1,
        "alone": activations.picture_of(".map_picture", subject, name=maps.name, number=number),
        "spot": activations.strongest(sheets.map_of(maps, number), maps.stage.field, config),
    }


def chosen(maps: Maps) -> int:
    """Read the number of the map that is asked for; by default that of the strongest one."""
    text = request.args.get("map", "")
    if not text:
        every = [peak for tower in maps.towers for peak in sheets.peaks(tower)]
        return every.index(max(every)) + 1
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= total(maps)):
        abort(404, f"{maps.name} has the maps 1 to {total(maps)}.")
    return int(text)


def total(maps: Maps) -> int:
    """Count the maps of all towers."""
    return maps.stage.maps * len(maps.towers)


def strong(maps: Maps) -> dict[str, Any]:
    """Give what the page of a layer says of its strongest neurons, a list for each tower."""
    found = []
    for tower, values in enumerate(maps.towers):
        order = (-abs(values)).argsort(kind="stable")[:STRONGEST]
        found.append(
            [
                Strong(
                    number=tower * maps.stage.maps + int(index) + 1,
                    value=float(values[index]),
                    share=float(abs(values[index])) / (maps.largest or 1),
                )
                for index in order
            ]
        )
    return {"strongest": found}
