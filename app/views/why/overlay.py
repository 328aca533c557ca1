"""Pictures to lay over an image: darkness where nothing speaks for the label, and gradients."""

import numpy as np
from PIL import Image

from model.predict import Floats
from model.visualization.feature_maps import ink_to_image

MAX_SHADE = 205
"""Opacity, of 255, of the black over a place that does not matter: the image shows faintly."""
PIXELS_PER_CELL = 16
STRONG_PERCENTILE = 99.5
"""The percentile of a gradient's magnitudes that is drawn with full contrast."""


def draw_shade(heat: Floats, *, smooth: bool) -> Image.Image:
    """Draw black over an image that is the more transparent the hotter: float32 [rows, columns].

    Zero and less is darkest, the largest value clear. smooth: whether to interpolate between the
    values instead of drawing cells.
    """
    largest = float(heat.max())
    share = np.clip(heat / largest, 0, 1) if largest > 0 else np.zeros_like(heat)
    shade = np.rint(MAX_SHADE * (1 - share)).astype(np.uint8)
    picture = Image.fromarray(shade)
    rows, columns = shade.shape
    size = columns * PIXELS_PER_CELL, rows * PIXELS_PER_CELL
    kind = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    return ink_to_image(np.asarray(picture.resize(size, kind)))


def draw_gradient(gradient: Floats) -> Image.Image:
    """Draw a gradient, float32 [3, height, width], in its colours; grey is zero."""
    largest = float(np.percentile(np.abs(gradient), STRONG_PERCENTILE)) or float(
        np.abs(gradient).max()
    )
    scaled = np.clip(gradient / largest, -1, 1) if largest > 0 else np.zeros_like(gradient)
    return Image.fromarray(np.rint(128 + 127 * scaled).astype(np.uint8).transpose(1, 2, 0))
