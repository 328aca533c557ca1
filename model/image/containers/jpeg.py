"""JPEG: segments, each a marker and a length, and the scans between them (ITU-T T.81, annex B)."""

import re
from dataclasses import dataclass

from model.image.containers.container import (
    MAX_PARTS,
    Container,
    TooManyPartsError,
    read_orientation,
)

MAX_SCANS = 100
"""Scans of a picture, each a pass over all of it; a progressive JPEG has about ten."""
MAX_TABLE_BYTES = 2**20
"""Tables before the first scan; ordinary ones take about a kilobyte, and Pillow reads them
slowly."""

MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd7]", re.DOTALL)
"""Every marker but those inside scans and those without a meaning."""
SOI, EOI, SOS, COM, APP0, APP1, APP14, APP15 = 0xD8, 0xD9, 0xDA, 0xFE, 0xE0, 0xE1, 0xEE, 0xEF
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
PROGRESSIVE_FRAMES = {0xC2, 0xC6, 0xCA, 0xCE}


def strip_jpeg(data: bytes) -> Container:
    """Keep the first picture's frame, tables and scans, and what says how colours are coded.

    Of the application segments those are JFIF's and Adobe's; libjpeg takes the colour space from
    them. Comments, previews, profiles, and everything after the first picture, as an MPO has it,
    are dropped. Raises TooManyPartsError, and ValueError for a file whose first scan is missing.
    """
    head = _walk_head(data)
    end, complete = _walk_scans(data, head)
    picture = data[head.first_scan : end]
    if not complete:
        picture = picture.rstrip(b"\xff")  # half a marker
    return Container(
        kind="JPEG",
        data=b"".join((*head.kept, picture)),
        width=int.from_bytes(head.frame[3:5], "big"),
        height=int.from_bytes(head.frame[1:3], "big"),
        orientation=head.orientation or 1,
        complete=complete,
    )


@dataclass
class _Head:
    """What comes before the first scan."""

    kept: list[bytes]
    frame: bytes = b""
    progressive: bool = False
    orientation: int | None = None
    first_scan: int = 0
    parts: int = 0


def _walk_head(data: bytes) -> _Head:
    head, at, kept = _Head([data[:2]]), 2, 0
    while (found := MARKER.search(data, at)) and data[found.end() - 1] != SOS:
        code, start = data[found.end() - 1], found.end()
        length = int.from_bytes(data[start : start + 2], "big")
        at = start if code in (SOI, EOI) else start + max(2, length)
        head.parts += 1
        if at > len(data):
            raise ValueError("a segment is cut short")
        if code == APP1 and head.orientation is None and data.startswith(b"Exif\0\0", start + 2):
            head.orientation = read_orientation(data[start + 2 : at])
        if code in FRAMES:
            head.frame, head.progressive = data[start + 2 : at], code in PROGRESSIVE_FRAMES
        if _is_needed(code, data[start + 2 : start + 7]):
            head.kept.append(data[found.start() : at])
            kept += at - found.start()
        if head.parts > MAX_PARTS:
            raise TooManyPartsError(f"more than {MAX_PARTS:,} segments")
        if kept > MAX_TABLE_BYTES:
            raise TooManyPartsError("more than a megabyte of tables")
    if found is None or not head.frame:
        raise ValueError("there is no scan, or no frame before it")
    head.first_scan = found.start()
    return head


def _is_needed(code: int, begins: bytes) -> bool:
    if code == APP0:
        return begins.startswith(b"JFIF")
    if code == APP14:
        return begins.startswith(b"Adobe")
    return code != COM and not APP1 <= code <= APP15


def _walk_scans(data: bytes, head: _Head) -> tuple[int, bool]:
    """Find where the picture ends, and whether by its marker."""
    at, scans, parts = head.first_scan, 0, head.parts
    while found := MARKER.search(data, at):
        code, at = data[found.end() - 1], found.end()
        if code == EOI:
            return at, True
        scans, parts = scans + (code == SOS), parts + 1
        at += max(2, int.from_bytes(data[at : at + 2], "big"))
        if scans > MAX_SCANS or parts > MAX_PARTS:
            raise TooManyPartsError(f"more than {MAX_SCANS} scans or {MAX_PARTS:,} segments")
    # Of a single scan all pixels may be there in spite of this.
    if at > len(data) and (scans > 1 or head.progressive):
        raise ValueError("a segment between scans is cut short")
    return len(data), False
