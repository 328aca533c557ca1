"""The map as a picture, for who sees the page without scripts."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from app.views.map.layout import MAX_COORDINATE, MapClass, MapLayout
from app.views.pictures import encode_png

ColourScheme = Literal["light", "dark"]
WIDTH, HEIGHT = 1120, 700
"""As shown; it is drawn at twice that."""
PIXEL_RATIO, MARGIN = 2, 28
BACKGROUND: dict[ColourScheme, str] = {"light": "#ffffff", "dark": "#1f1e1b"}
TEXT_COLOUR: dict[ColourScheme, str] = {"light": "#1d1b18", "dark": "#eeeae1"}
FONT_SIZE, HALO_WIDTH = 13, 2
MAX_LABELS = 40
LABEL_DISTANCES = (10, 26, 44, 66)
"""How far from the densest place a name is tried, nearer first."""
LABEL_DIRECTIONS = ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (-1, -1), (1, 1), (-1, 1))
Box = tuple[float, float, float, float]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Positions = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PlacedLabel:
    """A class's name and the box it stands in: left, top, right, bottom, in drawn pixels."""

    map_class: MapClass
    box: Box


def render_map(atlas: MapLayout, scheme: ColourScheme) -> bytes:
    """Draw a map as PNG: a dot an image, in its class's colour, and the names that have room."""
    image = Image.new("RGB", (WIDTH * PIXEL_RATIO, HEIGHT * PIXEL_RATIO), BACKGROUND[scheme])
    places = to_pixels(np.stack([atlas.xs, atlas.ys], axis=1))
    colours = [getattr(group.colour, scheme) for group in atlas.classes]
    mask = render_dot(dot_radius(len(places)))
    for n in drawing_order(len(places)):
        corner = np.rint(places[n] - mask.width / 2).astype(int).tolist()
        image.paste(colours[atlas.numbers[n]], tuple(corner), mask)
    draw_labels(image, atlas.classes, places, scheme)
    # A third of the bytes that all colours would take.
    return encode_png(image.quantize(method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE))


def to_pixels(points: npt.NDArray[np.int64]) -> Positions:
    """Bring coordinates of the map, [n, 2], into the picture's middle, in drawn pixels."""
    side = min(WIDTH, HEIGHT) - 2 * MARGIN
    return ((points / MAX_COORDINATE - 0.5) * side + (WIDTH / 2, HEIGHT / 2)) * PIXEL_RATIO


def dot_radius(count: int) -> float:
    """Give a dot's radius in shown pixels: less where there are many."""
    return float(np.clip(0.35 * (min(WIDTH, HEIGHT) - 2 * MARGIN) / max(count, 1) ** 0.5, 2, 4))


def drawing_order(count: int) -> npt.NDArray[np.int64]:
    """Give an order in which no class covers the others: by id they stand class by class."""
    return np.random.default_rng(0).permutation(count)


def render_dot(radius: float) -> Image.Image:
    """Draw a smooth disc as a mask."""
    fine, side = 8, 2 * int(radius * PIXEL_RATIO + 2)
    disc = Image.new("L", (side * fine, side * fine))
    ImageDraw.Draw(disc).circle((side * fine / 2,) * 2, radius * PIXEL_RATIO * fine, fill=255)
    return disc.reduce(fine)


def draw_labels(
    image: Image.Image, groups: list[MapClass], places: Positions, scheme: ColourScheme
) -> None:
    """Write the classes' names beside their densest places."""
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(FONT_SIZE * PIXEL_RATIO)
    for name in place_labels(groups, places, font):
        left, top, _, bottom = name.box
        pen.text(
            (left, (top + bottom) / 2),
            name.map_class.label,
            fill=TEXT_COLOUR[scheme],
            font=font,
            anchor="lm",
            stroke_width=HALO_WIDTH * PIXEL_RATIO,
            stroke_fill=BACKGROUND[scheme],
        )


def place_labels(groups: list[MapClass], places: Positions, font: Font) -> Iterator[PlacedLabel]:
    """Find room for the names, of the largest classes first; a name without room is left out."""
    taken: list[Box] = []
    for group in sorted(groups, key=lambda g: -g.images)[:MAX_LABELS]:
        size = (font.getlength(group.label), FONT_SIZE * PIXEL_RATIO * 1.4)
        anchor = to_pixels(np.array([group.x, group.y]))
        free = [box for box in candidate_boxes(anchor, size) if box_is_free(box, taken)]
        if free:
            taken.append(min(free, key=lambda box: count_covered_points(box, places)))
            yield PlacedLabel(group, taken[-1])


def candidate_boxes(anchor: Positions, size: tuple[float, float]) -> Iterator[Box]:
    """Give boxes beside a place, nearer ones first."""
    for reach in LABEL_DISTANCES:
        for across, down in LABEL_DIRECTIONS:
            x = anchor[0] + across * (reach * PIXEL_RATIO + size[0] / 2) - size[0] / 2
            y = anchor[1] + down * (reach * PIXEL_RATIO + size[1] / 2) - size[1] / 2
            yield x, y, x + size[0], y + size[1]


def box_is_free(box: Box, taken: list[Box]) -> bool:
    """Say whether a box lies in the picture and over none of the others."""
    left, top, right, bottom = box
    inside = min(left, top) >= 0 and right <= WIDTH * PIXEL_RATIO and bottom <= HEIGHT * PIXEL_RATIO
    return inside and not any(
        left < other[2] and other[0] < right and top < other[3] and other[1] < bottom
        for other in taken
    )


def count_covered_points(box: Box, places: Positions) -> int:
    """Count the points under a box."""
    return int(((places > box[:2]) & (places < box[2:])).all(axis=1).sum())
