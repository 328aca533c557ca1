"""Pictures of a layer's maps: their layout, their URLs, and the maximum of each map."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL.Image import Image

from app.views.current_image import CurrentImage
from app.views.layers import activations
from model.predict import Floats
from model.visualization.activations import LayerActivations
from model.visualization.feature_maps import draw_maps
from model.visualization.receptive_field import WeightedLayer

TOWER_WIDTH, LARGE_WIDTH, MAP_WIDTH = 880, 1080, 440
"""Approximate widths of a tower's picture, an enlarged one, and a single map: twice their size on
the page, for high-resolution screens."""
MAX_NARROW_MAPS, NARROW_COLUMNS, WIDE_COLUMNS, NEURON_COLUMNS = 64, 8, 16, 64
"""Columns of the pictures: 8 for up to 64 maps and in enlarged pictures, 16 for more maps."""
GAP = 2


@dataclass(frozen=True, kw_only=True)
class SheetLayout:
    """How a tower's maps are arranged: maps per row, pixels per value, pixels between maps."""

    columns: int
    scale: int
    gap: int

    def size(self, layer: WeightedLayer) -> tuple[int, int]:
        """Return the picture's width and height."""
        cell = layer.side * self.scale + self.gap
        return self.columns * cell, -(-layer.maps // self.columns) * cell


@dataclass(frozen=True, kw_only=True)
class TowerSheet:
    """A tower's picture on a page, and the maximum of each of its maps or neurons.

    first: the number of the first map, counted from 1 through all towers.
    """

    tower: int
    url: str
    width: int
    height: int
    first: int
    peaks: Sequence[float]

    @property
    def largest(self) -> float:
        """The largest value of all maps."""
        return max(self.peaks)


def layout_sheet(layer: WeightedLayer, *, large: bool = False) -> SheetLayout:
    """Arrange the maps of one tower of a layer."""
    if layer.kind == "neurons":
        return SheetLayout(
            columns=NEURON_COLUMNS, scale=max(1, round(TOWER_WIDTH / NEURON_COLUMNS)), gap=0
        )
    columns = NARROW_COLUMNS if large or layer.maps <= MAX_NARROW_MAPS else WIDE_COLUMNS
    width = LARGE_WIDTH if large else TOWER_WIDTH
    return SheetLayout(columns=columns, scale=max(1, round(width / columns / layer.side)), gap=GAP)


def list_sheets(
    image: CurrentImage, maps: LayerActivations, *, large: bool = False
) -> list[TowerSheet]:
    """List the pictures of a layer's towers."""
    width, height = layout_sheet(maps.layer, large=large).size(maps.layer)
    endpoint = "layers.large_picture" if large else "layers.tower_picture"
    return [
        TowerSheet(
            tower=number,
            url=activations.make_activation_picture_url(
                endpoint, image, name=maps.name, number=number
            ),
            width=width,
            height=height,
            first=(number - 1) * maps.layer.maps + 1,
            peaks=find_peaks(values),
        )
        for number, values in enumerate(maps.towers, 1)
    ]


def find_peaks(values: Floats) -> list[float]:
    """Return the largest value of each map or neuron."""
    maxima: list[float] = values.reshape(len(values), -1).max(axis=1).tolist()
    return maxima


def render_tower(maps: LayerActivations, tower: int, *, large: bool = False) -> Image:
    """Draw the maps of a tower, scaled to the largest value of the whole layer."""
    sheet_layout, layer = layout_sheet(maps.layer, large=large), maps.layer
    values = maps.towers[tower - 1].reshape(-1, layer.side, layer.side)
    return draw_maps(
        values,
        sheet_layout.columns,
        scale=sheet_layout.scale,
        largest=maps.largest,
        gap=sheet_layout.gap,
    )


def select_map(maps: LayerActivations, number: int) -> Floats:
    """Return a map by its number, counted from 1 through all towers: float32 [side, side]."""
    tower, index = divmod(number - 1, maps.layer.maps)
    values: Floats = maps.towers[tower][index]
    return values


def render_feature_map(values: Floats) -> Image:
    """Draw a single map, scaled to its own largest absolute value."""
    scale = max(1, round(MAP_WIDTH / len(values)))
    return draw_maps(values[None], 1, scale=scale, largest=float(np.abs(values).max()), gap=0)
