"""Fonts for labels in whatever script: those that matplotlib brings, then those installed here."""

from collections.abc import Iterable

from matplotlib.font_manager import FontEntry, fontManager, get_font

SHIPPED = ("STIXGeneral", "DejaVu Sans")
"""The first is what `serif` stands for in the drawing's settings."""


def choose_fonts(texts: Iterable[str]) -> list[str]:
    """The families that can write all of these texts as far as any can, the preferred ones first.

    A character that no font has is drawn as a box; in an SVG whoever shows it may do better.
    """
    missing = {ord(c) for text in texts for c in text}
    chosen = ["serif", *SHIPPED[1:]]
    for name in SHIPPED:
        missing -= font_characters(regular_font(name))
    for entry in fontManager.ttflist if missing else []:
        if not missing:
            break
        if found := missing & font_characters(entry):
            missing -= found
            chosen.append(entry.name)
    return chosen


def regular_font(family: str) -> FontEntry:
    """The upright, regular font of a family."""
    return next(
        one
        for one in fontManager.ttflist
        if one.name == family and one.style == "normal" and one.weight in (400, "normal")
    )


def font_characters(entry: FontEntry) -> set[int]:
    """The characters of a font; none of one that cannot be read."""
    try:
        return set(get_font(entry.fname).get_charmap())
    except (OSError, RuntimeError):
        return set()
