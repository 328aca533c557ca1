"""Text in the cells of a CSV file: nothing that a spreadsheet takes for a formula."""

FORMULA_STARTS = ("=", "+", "-", "@")
"""Characters that begin a formula in a spreadsheet."""


def escape_cell(text: str) -> str:
    """Escape text for a CSV cell: no formulas for a spreadsheet, no control characters."""
    shown = escape_unprintable(text, but="\n")
    return f"'{shown}" if shown.startswith(FORMULA_STARTS) else shown


def unescape_cell(text: str) -> str:
    """Undo `escape_cell`'s protection against formulas."""
    return text[1:] if text.startswith(tuple(f"'{start}" for start in FORMULA_STARTS)) else text


def escape_unprintable(text: str, but: str = "") -> str:
    """Escape characters that cannot be printed, except those in `but`."""
    fine = (c if c.isprintable() or c in but else c.encode("unicode_escape").decode() for c in text)
    return "".join(fine)
