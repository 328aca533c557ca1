"""Colours that tell classes apart on a map.

Chosen in OKLab: of muted colours without red, which means the correct label elsewhere, those that
lie farthest apart, also for who does not tell red from green; each with contrast 3 at least from
the ground. The first ten lie farther apart than the rest. From the twenty-first class on they come
again in the same order.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Colour:
    """A colour as CSS writes it, on the light ground and on the dark one."""

    light: str
    dark: str


COLOURS = (
    Colour("#0070a6", "#66b4e8"),
    Colour("#773913", "#b97b5b"),
    Colour("#6d9847", "#b4dd93"),
    Colour("#4c3f8a", "#8981ca"),
    Colour("#a77990", "#efbdd5"),
    Colour("#776559", "#bba699"),
    Colour("#3a5255", "#789294"),
    Colour("#934b83", "#d690c5"),
    Colour("#617209", "#a2b564"),
    Colour("#3a95b9", "#8ddafc"),
    Colour("#045d35", "#5c9d75"),
    Colour("#b66ba5", "#fbb3e9"),
    Colour("#ab821e", "#efc878"),
    Colour("#3b4c71", "#788cb4"),
    Colour("#6c6c3f", "#aeae7f"),
    Colour("#775996", "#b99cd8"),
    Colour("#499c76", "#97e1bc"),
    Colour("#3a756a", "#7cb9ac"),
    Colour("#7f9165", "#c3d6a8"),
    Colour("#6b3767", "#ab78a6"),
)


def colour_of(number: int) -> Colour:
    """Give the colour of the class of that number, counted from 0 in the order of the names."""
    return COLOURS[number % len(COLOURS)]
