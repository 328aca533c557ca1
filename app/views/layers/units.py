"""The page of one unit: the training images that excite it most, and the image at hand."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from flask import Blueprint, abort, render_template

from app import context
from app.database.images import CatalogueImage, find_images
from app.inference.state import LabelsOnly, NotReady, Ready
from app.views.current_image import CurrentImage, get_current_image
from app.views.layers import activations, sheets
from app.views.layers.activations import Peak, Rectangle
from index.units import NO_IMAGE, TopImages
from model.network.config import AlexNetConfig
from model.predict import Predictor
from model.visualization.receptive_field import WeightedLayer, list_weighted_layers

blueprint = Blueprint("units", __name__, url_prefix="/layers")
blueprint.context_processor(activations.list_template_functions)


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A unit of a layer.

    number: from 1, through all towers, like the layer's maps. index: from 0, through all layers.
    tower: from 1; 0 for a label, which belongs to all. label: of a unit of the last layer.
    """

    layer: WeightedLayer
    number: int
    index: int
    tower: int
    label: str = ""

    @property
    def count(self) -> int:
        """How many units the layer has."""
        return count_units(self.layer)


@dataclass(frozen=True, kw_only=True)
class ExcitingImage:
    """A training image that excites a unit: its largest output before the activation.

    sees: what the unit sees of the image there; None for a neuron, which sees the whole crop.
    """

    image: int
    value: float
    sees: Rectangle | None


@dataclass(frozen=True, kw_only=True)
class ExcitingImages:
    """The images that excite a unit most, the strongest first, and those of them that exist by id.

    count, whole: how many images were searched, and whether those are all that are indexed.
    """

    found: list[ExcitingImage]
    images: Mapping[int, CatalogueImage]
    count: int
    whole: bool


@blueprint.get("/<name>/unit/<int(min=1, max=99999):number>")
def show_unit(name: str, number: int) -> str:
    """Show what excites one unit most, and its response to the current image."""
    predictor = context.require_predictor()
    unit, config = find_unit(predictor, name, number), predictor.config
    image = get_current_image()
    image = image if image and image.is_of(predictor) else None
    return render_template(
        "unit.html",
        unit=unit,
        exciting=find_exciting_images(unit, config),
        names=[layer.name for layer in list_weighted_layers(config)],
        image=image,
        response=measure_response(unit, image) if image else None,
        peak=find_unit_peak(unit, image, config) if image else None,
        map_url=make_map_url(unit, image) if image else None,
        examples=activations.list_examples() if not image else [],
        crop=locate_centre_crop(config),
        config=config,
    )


def find_unit(predictor: Predictor, name: str, number: int) -> Unit:
    """Find a unit by its layer and its number, from 1; 404 if there is none."""
    known = list_weighted_layers(predictor.config)
    place = next((place for place, layer in enumerate(known) if layer.name == name), None)
    if place is None:
        abort(404, f"Unknown layer; choose one of {', '.join(layer.name for layer in known)}.")
    layer = known[place]
    if number > count_units(layer):
        abort(404, f"{name} has units 1 to {count_units(layer)}.")
    labels = layer.kind == "labels"
    return Unit(
        layer=layer,
        number=number,
        index=sum(map(count_units, known[:place])) + number - 1,
        tower=0 if labels else (number - 1) // layer.maps + 1,
        label=predictor.classes[number - 1].label if labels else "",
    )


def count_units(layer: WeightedLayer) -> int:
    """Count the maps, neurons or labels of all towers."""
    return layer.maps if layer.kind == "labels" else layer.maps * layer.towers


def find_exciting_images(unit: Unit, config: AlexNetConfig) -> ExcitingImages | NotReady | None:
    """Find the images that excite a unit most.

    NotReady says what is missing; None means that the index was built before they were stored.
    """
    state = context.loader().get_state()
    if isinstance(state, LabelsOnly):
        return state.missing
    if isinstance(state, NotReady) or state.units is None:
        return state if isinstance(state, NotReady) else None
    found = list_exciting_images(state.units, unit, config)
    return ExcitingImages(
        found=found,
        images=find_images(context.sessions(), [one.image for one in found]),
        count=len(state.units.seen),
        whole=is_whole(state),
    )


def is_whole(state: Ready) -> bool:
    """Whether all indexed images were searched."""
    return state.units is not None and len(state.units.seen) == state.manifest.images


def list_exciting_images(top: TopImages, unit: Unit, config: AlexNetConfig) -> list[ExcitingImage]:
    """List the stored images of a unit, the strongest first."""
    row, field = unit.index, unit.layer.receptive_field
    return [
        ExcitingImage(
            image=int(image),
            value=float(value),
            sees=activations.locate_receptive_field(
                field, *divmod(int(place), unit.layer.side), config
            )
            if field
            else None,
        )
        for image, value, place in zip(top.ids[row], top.values[row], top.places[row], strict=True)
        if image != NO_IMAGE
    ]


def measure_response(unit: Unit, image: CurrentImage) -> float:
    """Return the largest activation of a unit for an image; of a label its probability."""
    (maps,) = [
        one for one in activations.compute_activations(image).layers if one.name == unit.layer.name
    ]
    return float(np.concatenate(maps.towers)[unit.number - 1].max())


def find_unit_peak(unit: Unit, image: CurrentImage, config: AlexNetConfig) -> Peak | None:
    """Find where an image excites a unit most; None for a neuron."""
    if unit.layer.kind != "maps":
        return None
    (maps,) = [
        one for one in activations.compute_activations(image).layers if one.name == unit.layer.name
    ]
    values = sheets.select_map(maps, unit.number)
    return activations.find_peak(values, unit.layer.receptive_field, config)


def make_map_url(unit: Unit, image: CurrentImage) -> str:
    """Return the address of the picture of a unit's map."""
    return activations.make_activation_picture_url(
        "layers.feature_map_picture", image, name=unit.layer.name, number=unit.number
    )


def locate_centre_crop(config: AlexNetConfig) -> Rectangle:
    """Return where the centre crop lies in the image: what a neuron sees."""
    margin = (config.side - config.crop) / 2
    return Rectangle(left=margin, top=margin, width=config.crop, height=config.crop)
