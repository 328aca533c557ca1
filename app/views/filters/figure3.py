"""Figure 3 as a file: conv1's kernels, those of GPU 1 above those of GPU 2, on white.

A PNG of 300 dots an inch for a two-column page, or an SVG with text and embedded pictures.
"""

import base64
import io
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image, PngImagePlugin

from app.views.pictures import encode_png
from model.predict import Floats
from model.visualization.kernels import KERNELS_PER_ROW, draw_kernels, split_towers

COLUMNS = 16
"""Kernels in a row, as in the paper: three rows a GPU."""
SCALE, GAP = 11, 11
"""Pixels of a weight, and between kernels."""
DPI = 300
MARGIN = 12


def render_figure3_png(conv1: Floats, towers: int, caption: str) -> bytes:
    """Draw the kernels, float32 [96, 3, 11, 11], as a PNG with the caption in its metadata."""
    blocks = [draw_wide_block(part) for part in split_towers(conv1, towers)]
    width = max(block.width for block in blocks) + 2 * MARGIN
    height = sum(block.height for block in blocks) + (len(blocks) - 1) * 2 * GAP + 2 * MARGIN
    sheet, top = Image.new("RGB", (width, height), "white"), MARGIN
    for block in blocks:
        sheet.paste(block, (MARGIN, top), block)
        top += block.height + 2 * GAP
    out, metadata = io.BytesIO(), PngImagePlugin.PngInfo()
    metadata.add_text("Title", "Figure 3")
    metadata.add_itxt("Description", caption)
    sheet.save(out, "PNG", dpi=(DPI, DPI), pnginfo=metadata, optimize=True)
    return out.getvalue()


def render_figure3_svg(conv1: Floats, towers: int, caption: str) -> bytes:
    """Draw the kernels as an SVG: a picture a GPU, with its name beside it as text."""
    blocks = [draw_wide_block(part) for part in split_towers(conv1, towers)]
    left = 110
    parts, top = [], 0
    for number, block in enumerate(blocks, 1):
        data = base64.b64encode(encode_png(block)).decode()
        parts.append(
            f'<text x="0" y="{top + block.height // 2}" font-family="Times New Roman, serif" '
            f'font-size="32" dominant-baseline="middle">GPU {number}</text>'
            f'<image x="{left}" y="{top}" width="{block.width}" height="{block.height}" '
            f'image-rendering="pixelated" href="data:image/png;base64,{data}"/>'
        )
        top += block.height + 2 * GAP
    width, height = left + blocks[0].width, top - 2 * GAP
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
        f"<title>Figure 3</title><desc>{escape(caption)}</desc>"
        f'<rect width="{width}" height="{height}" fill="white"/>{"".join(parts)}</svg>\n'
    ).encode()


def draw_wide_block(kernels: Floats) -> Image.Image:
    """Draw one GPU's kernels with 16 to a row, as RGBA."""
    narrow = np.asarray(draw_kernels(kernels, SCALE, GAP))
    side = kernels.shape[-1] * SCALE
    step = side + GAP
    rows = -(-len(kernels) // COLUMNS)
    wide = np.zeros((rows * step - GAP, min(COLUMNS, len(kernels)) * step - GAP, 4), np.uint8)
    for number in range(len(kernels)):
        (from_row, from_column), (row, column) = (
            divmod(number, columns) for columns in (KERNELS_PER_ROW, COLUMNS)
        )
        tile = narrow[from_row * step :, from_column * step :][:side, :side]
        wide[row * step :, column * step :][:side, :side] = tile
    return Image.fromarray(wide)
