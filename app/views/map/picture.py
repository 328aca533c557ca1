"""The map as a picture, for who sees the page without scripts."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from app.views.map.layout import SCALE, Atlas, Group
from app.views.pictures import encode_png

Scheme = Literal["light", "dark"]
WIDTH, HEIGHT = 1120, 700
"""As shown; it is drawn at twice that."""
SHARP, MARGIN = 2, 28
GROUND: dict[Scheme, str] = {"light": "#ffffff", "dark": "#1f1e1b"}
INK: dict[Scheme, str] = {"light": "#1d1b18", "dark": "#eeeae1"}
FONT, HALO = 13, 2
MOST_NAMES = 40
REACHES = (10, 26, 44, 66)
"""How far from the densest place a name is tried, nearer first."""
DIRECTIONS = ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (-1, -1), (1, 1), (-1, 1))
Box = tuple[float, float, float, float]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Places = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Name:
    """A class's name and the box it stands in: left, top, right, bottom, in drawn pixels."""

    group: Group
    box: Box


def draw(atlas: Atlas, scheme: Scheme) -> bytes:
    """Draw a map as PNG: a dot an image, in its class's colour, and the names that have room."""
    image = Image.new("RGB", (WIDTH * SHARP, HEIGHT * SHARP), GROUND[scheme])
    places = on_paper(np.stack([atlas.xs, atlas.ys], axis=1))
    colours = [getattr(group.colour, scheme) for group in atlas.groups]
    mask = dot(radius(len(places)))
    for n in shuffled(len(places)):
        corner = np.rint(places[n] - mask.width / 2).astype(int).tolist()
        image.paste(colours[atlas.numbers[n]], tuple(corner), mask)
    write(image, atlas.groups, places, scheme)
    # A third of the bytes that all colours would take.
    return encode_png(image.quantize(method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE))


def on_paper(points: npt.NDArray[np.int64]) -> Places:
    """Bring coordinates of the map, [n, 2], into the picture's middle, in drawn pixels."""
    side = min(WIDTH, HEIGHT) - 2 * MARGIN
    return ((points / SCALE - 0.5) * side + (WIDTH / 2, HEIGHT / 2)) * SHARP


def radius(count: int) -> float:
    """Give a dot's radius in shown pixels: less where there are many."""
    return float(np.clip(0.35 * (min(WIDTH, HEIGHT) - 2 * MARGIN) / max(count, 1) ** 0.5, 2, 4))


def shuffled(count: int) -> npt.NDArray[np.int64]:
    """Give an order in which no class covers the others: by id they stand class by class."""
    return np.random.default_rng(0).permutation(count)


def dot(radius: float) -> Image.Image:
    """Draw a smooth disc as a mask."""
    fine, side = 8, 2 * int(radius * SHARP + 2)
    disc = Image.new("L", (side * fine, side * fine))
    ImageDraw.Draw(disc).circle((side * fine / 2,) * 2, radius * SHARP * fine, fill=255)
    return disc.reduce(fine)


def write(image: Image.Image, groups: list[Group], places: Places, scheme: Scheme) -> None:
    """Write the classes' names beside their densest places."""
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(FONT * SHARP)
    for name in placed(groups, places, font):
        left, top, _, bottom = name.box
        pen.text(
            (left, (top + bottom) / 2),
            name.group.label,
            fill=INK[scheme],
            font=font,
            anchor="lm",
            stroke_width=HALO * SHARP,
            stroke_fill=GROUND[scheme],
        )


def placed(groups: list[Group], places: Places, font: Font) -> Iterator[Name]:
    """Find room for the names, of the largest classes first; a name without room is left out."""
    taken: list[Box] = []
    for group in sorted(groups, key=lambda g: -g.images)[:MOST_NAMES]:
        size = (font.getlength(group.label), FONT * SHARP * 1.4)
        anchor = on_paper(np.array([group.x, group.y]))
        free = [box for box in around(anchor, size) if fits(box, taken)]
        if free:
            taken.append(min(free, key=lambda box: covered(box, places)))
            yield Name(group, taken[-1])


def around(anchor: Places, size: tuple[float, float]) -> Iterator[Box]:
    """Give boxes beside a place, nearer ones first."""
    for reach in REACHES:
        for across, down in DIRECTIONS:
            x = anchor[0] + across * (reach * SHARP + size[0] / 2) - size[0] / 2
            y = anchor[1] + down * (reach * SHARP + size[1] / 2) - size[1] / 2
            yield x, y, x + size[0], y + size[1]


def fits(box: Box, taken: list[Box]) -> bool:
    """Say whether a box lies in the picture and over none of the others."""
    left, top, right, bottom = box
    inside = min(left, top) >= 0 and right <= WIDTH * SHARP and bottom <= HEIGHT * SHARP
    return inside and not any(
        left < other[2] and other[0] < right and top < other[3] and other[1] < bottom
        for other in taken
    )


def covered(box: Box, places: Places) -> int:
    """Count the points under a box."""
    return int(((places > box[:2]) & (places < box[2:])).all(axis=1).sum())
