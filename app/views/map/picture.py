"""The map as a PNG, for browsers without JavaScript."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from app.views.map.layout import MAX_COORDINATE, MapClass, TrainingMap
from app.views.pictures import encode_png

ColourScheme = Literal["light", "dark"]
WIDTH, HEIGHT = 1120, 700
"""In CSS pixels; it is drawn at PIXEL_RATIO times that size."""
PIXEL_RATIO, MARGIN = 2, 28
BACKGROUND: dict[ColourScheme, str] = {"light": "#ffffff", "dark": "#1f1e1b"}
TEXT_COLOUR: dict[ColourScheme, str] = {"light": "#1d1b18", "dark": "#eeeae1"}
FONT_SIZE, HALO_WIDTH = 13, 2
MAX_LABELS = 40
LABEL_DISTANCES = (10, 26, 44, 66)
"""Distances from the densest place at which a label is tried, in CSS pixels, nearest first."""
LABEL_DIRECTIONS = ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (-1, -1), (1, 1), (-1, 1))
Box = tuple[float, float, float, float]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Positions = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PlacedLabel:
    """A class's label and its box: left, top, right, bottom, in pixels of the PNG."""

    map_class: MapClass
    box: Box


def render_map(layout: TrainingMap, scheme: ColourScheme) -> bytes:
    """Draw the map as a PNG: a dot per image in its class's colour, and the labels that fit."""
    image = Image.new("RGB", (WIDTH * PIXEL_RATIO, HEIGHT * PIXEL_RATIO), BACKGROUND[scheme])
    places = convert_to_pixels(np.stack([layout.xs, layout.ys], axis=1))
    colours = [getattr(c.colour, scheme) for c in layout.classes]
    mask = render_dot(compute_dot_radius(len(places)))
    for n in shuffle_drawing_order(len(places)):
        corner = np.rint(places[n] - mask.width / 2).astype(int).tolist()
        image.paste(colours[layout.numbers[n]], tuple(corner), mask)
    draw_labels(image, layout.classes, places, scheme)
    # A palette takes a third of the bytes of full colour.
    return encode_png(image.quantize(method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE))


def convert_to_pixels(points: npt.NDArray[np.int64]) -> Positions:
    """Convert map coordinates, [N, 2], to pixels of the PNG."""
    side = min(WIDTH, HEIGHT) - 2 * MARGIN
    return ((points / MAX_COORDINATE - 0.5) * side + (WIDTH / 2, HEIGHT / 2)) * PIXEL_RATIO


def compute_dot_radius(count: int) -> float:
    """Return a dot's radius in CSS pixels: the more points, the smaller."""
    return float(np.clip(0.35 * (min(WIDTH, HEIGHT) - 2 * MARGIN) / max(count, 1) ** 0.5, 2, 4))


def shuffle_drawing_order(count: int) -> npt.NDArray[np.int64]:
    """Return a shuffled order, so that no class covers the others: ids are grouped by class."""
    return np.random.default_rng(0).permutation(count)


def render_dot(radius: float) -> Image.Image:
    """Draw an antialiased disc as a mask."""
    fine, side = 8, 2 * int(radius * PIXEL_RATIO + 2)
    disc = Image.new("L", (side * fine, side * fine))
    ImageDraw.Draw(disc).circle((side * fine / 2,) * 2, radius * PIXEL_RATIO * fine, fill=255)
    return disc.reduce(fine)


def draw_labels(
    image: Image.Image, classes: list[MapClass], places: Positions, scheme: ColourScheme
) -> None:
    """Write the classes' labels next to their densest places."""
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(FONT_SIZE * PIXEL_RATIO)
    for label in place_labels(classes, places, font):
        left, top, _, bottom = label.box
        pen.text(
            (left, (top + bottom) / 2),
            label.map_class.label,
            fill=TEXT_COLOUR[scheme],
            font=font,
            anchor="lm",
            stroke_width=HALO_WIDTH * PIXEL_RATIO,
            stroke_fill=BACKGROUND[scheme],
        )


def place_labels(classes: list[MapClass], places: Positions, font: Font) -> Iterator[PlacedLabel]:
    """Place labels over as few points as possible, the largest classes first; skip the rest."""
    taken: list[Box] = []
    for map_class in sorted(classes, key=lambda c: -c.images)[:MAX_LABELS]:
        size = (font.getlength(map_class.label), FONT_SIZE * PIXEL_RATIO * 1.4)
        anchor = convert_to_pixels(np.array([map_class.x, map_class.y]))
        free = [box for box in list_candidate_boxes(anchor, size) if is_box_free(box, taken)]
        if free:
            taken.append(min(free, key=lambda box: count_covered_points(box, places)))
            yield PlacedLabel(map_class, taken[-1])


def list_candidate_boxes(anchor: Positions, size: tuple[float, float]) -> Iterator[Box]:
    """Generate boxes next to a place, nearer ones first."""
    for reach in LABEL_DISTANCES:
        for across, down in LABEL_DIRECTIONS:
            x = anchor[0] + across * (reach * PIXEL_RATIO + size[0] / 2) - size[0] / 2
            y = anchor[1] + down * (reach * PIXEL_RATIO + size[1] / 2) - size[1] / 2
            yield x, y, x + size[0], y + size[1]


def is_box_free(box: Box, taken: list[Box]) -> bool:
    """Return whether a box lies inside the picture and overlaps none of the others."""
    left, top, right, bottom = box
    inside = min(left, top) >= 0 and right <= WIDTH * PIXEL_RATIO and bottom <= HEIGHT * PIXEL_RATIO
    return inside and not any(
        left < other[2] and other[0] < right and top < other[3] and other[1] < bottom
        for other in taken
    )


def count_covered_points(box: Box, places: Positions) -> int:
    """Count the points under a box."""
    return int(((places > box[:2]) & (places < box[2:])).all(axis=1).sum())
