"""A layer's maps as pictures: how they are laid out, what of them a page says, their addresses."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL.Image import Image

from app.views.current_image import CurrentImage
from app.views.layers import activations
from model.activations import Maps
from model.predict import Floats
from model.receptive_field import Stage
from model.sheets import sheet

TOWER_WIDTH, LARGE_WIDTH, MAP_WIDTH = 880, 1080, 440
"""Pixels, about, of the widths of a tower's picture, of a large one, and of one map's: twice what
they take on a page, for fine screens."""
FEW, COLUMNS, MANY, NEURONS = 64, 8, 16, 64
"""Up to `FEW` maps stand `COLUMNS` in a row, as all do in a large picture; more `MANY`."""
GAP = 2


@dataclass(frozen=True, kw_only=True)
class SheetLayout:
    """How a tower's maps lie in a picture: how many in a row, and pixels for each place."""

    columns: int
    scale: int
    gap: int

    def size(self, stage: Stage) -> tuple[int, int]:
        """Width and height of the picture."""
        cell = stage.side * self.scale + self.gap
        return self.columns * cell, -(-stage.maps // self.columns) * cell


@dataclass(frozen=True, kw_only=True)
class TowerSheet:
    """A tower's picture on a page, and how strong each of its maps or neurons is.

    first: the number of the first, counted from 1 through all towers.
    """

    tower: int
    url: str
    width: int
    height: int
    first: int
    peaks: Sequence[float]

    @property
    def largest(self) -> float:
        """The strongest response."""
        return max(self.peaks)


def layout_sheet(stage: Stage, *, large: bool = False) -> SheetLayout:
    """Lay out the maps of a stage's tower."""
    if stage.kind == "neurons":
        return SheetLayout(columns=NEURONS, scale=max(1, round(TOWER_WIDTH / NEURONS)), gap=0)
    columns = COLUMNS if large or stage.maps <= FEW else MANY
    wide = LARGE_WIDTH if large else TOWER_WIDTH
    return SheetLayout(columns=columns, scale=max(1, round(wide / columns / stage.side)), gap=GAP)


def list_sheets(subject: CurrentImage, maps: Maps, *, large: bool = False) -> list[TowerSheet]:
    """Give what a page shows of each tower."""
    width, height = layout_sheet(maps.stage, large=large).size(maps.stage)
    endpoint = "layers.large_picture" if large else "layers.tower_picture"
    return [
        TowerSheet(
            tower=number,
            url=activations.activation_picture_url(
                endpoint, subject, name=maps.name, number=number
            ),
            width=width,
            height=height,
            first=(number - 1) * maps.stage.maps + 1,
            peaks=find_peaks(values),
        )
        for number, values in enumerate(maps.towers, 1)
    ]


def find_peaks(values: Floats) -> list[float]:
    """Give the largest value of each map or neuron."""
    found: list[float] = values.reshape(len(values), -1).max(axis=1).tolist()
    return found


def render_tower(maps: Maps, tower: int, *, large: bool = False) -> Image:
    """Draw the maps of a tower, against the largest value of the whole layer."""
    laid, stage = layout_sheet(maps.stage, large=large), maps.stage
    values = maps.towers[tower - 1].reshape(-1, stage.side, stage.side)
    return sheet(values, laid.columns, scale=laid.scale, largest=maps.largest, gap=laid.gap)


def select_map(maps: Maps, number: int) -> Floats:
    """Give one map by its number, counted from 1 through all towers: float32 [side, side]."""
    tower, index = divmod(number - 1, maps.stage.maps)
    values: Floats = maps.towers[tower][index]
    return values


def render_feature_map(values: Floats) -> Image:
    """Draw one map by itself, against its own largest value."""
    scale = max(1, round(MAP_WIDTH / len(values)))
    return sheet(values[None], 1, scale=scale, largest=float(np.abs(values).max()), gap=0)
