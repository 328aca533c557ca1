"""The map's points as the page loads them: a short header, then a column after another in binary.

The first four bytes are the length of the header, a little-endian uint32; the header is JSON,
filled up with spaces to a multiple of four bytes. Then come the columns, little-endian: `ids` as
uint32, and `x`, `y`, `numbers` and, if the index was reviewed, `guesses` as uint16. That is 12
bytes a point, where JSON takes about 24.
"""

import json
import struct

import numpy as np

from app.views.map.layout import MAX_COORDINATE, TrainingMap, list_classes_with_places

ALIGNMENT = 4
"""Bytes: a browser maps a column of uint32 only where a multiple of its width begins."""


def pack_points(layout: TrainingMap) -> bytes:
    """Pack a map's points, with the classes and what the page has to know about the whole."""
    header = {
        "version": layout.version,
        "count": len(layout.ids),
        "scale": MAX_COORDINATE,
        "guessed": layout.guesses is not None,
        "classes": list_classes_with_places(layout),
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    columns = [layout.xs, layout.ys, layout.numbers]
    columns += [] if layout.guesses is None else [layout.guesses]
    return b"".join(
        [
            struct.pack("<I", len(text)),
            text,
            layout.ids.astype("<u4").tobytes(),
            *(np.asarray(column, "<u2").tobytes() for column in columns),
        ]
    )
