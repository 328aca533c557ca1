"""The layers without weights, in NumPy, for one image, as model/network/modules.py builds them."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from model.network.layers import (
    Activation,
    AveragePool,
    Border,
    Drop,
    Flatten,
    Layer,
    Lrn,
    MapNorm,
    Pool,
)
from model.runtime.protocol import Floats


def apply_layer(layer: Layer, x: Floats, towers: int) -> Floats:
    """Apply a layer without weights to float32 [maps, side, side] or [neurons], as at test time.

    towers: how many the network has, for normalisation. Raises TypeError for any other layer.
    """
    match layer:
        case Activation():
            return np.maximum(x, 0) if layer.kind == "relu" else np.tanh(x)
        case Lrn() | MapNorm():
            return x * sum_squares(layer, x, towers) ** np.float32(-layer.beta)
        case Pool():
            windows = list_windows(layer, x)
            combine = np.max if layer.kind == "max" else np.sum
            pooled: Floats = combine(windows, axis=(-2, -1))
            if layer.kind == "average":
                pooled = pooled / count_pixels_in_windows(layer, x.shape[-1])
            return pooled
        case AveragePool():
            rows = average_bins(layer.side, x.shape[-1])
            means: Floats = np.einsum("ih,chw,jw->cij", rows, x, rows, optimize=True)
            return means
        case Border():
            return np.pad(x, ((0, 0), (0, layer.pixels), (0, layer.pixels)))
        case Flatten():
            return x.reshape(-1)
        case Drop():
            return x if layer.inverted else x * np.float32(1 - layer.p)
    raise TypeError(
        f"{layer.name}: a {type(layer).__name__} cannot be computed without its weights"
    )


def sum_squares(layer: Lrn | MapNorm, x: Floats, towers: int) -> Floats:
    """Compute t = k + α Σ x² of a normalisation layer, of the shape of x."""
    groups = 1 if isinstance(layer, Lrn) and layer.across else towers
    total: Floats = np.float32(layer.k) + np.float32(layer.alpha) * sum_neighbours(
        layer, x * x, groups
    )
    return total


def sum_neighbours(layer: Lrn | MapNorm, x: Floats, towers: int) -> Floats:
    """Sum over a layer's n neighbours: adjacent maps of the same tower, or n × n of the same map.

    Beyond the edges there are zeros.
    """
    reach = layer.n // 2
    width, around = 2 * reach + 1, (reach, reach)
    if isinstance(layer, MapNorm):
        padded = np.pad(x, ((0, 0), around, around))
        rows = sliding_window_view(padded, width, axis=1).sum(axis=-1)
        sums: Floats = sliding_window_view(rows, width, axis=2).sum(axis=-1)
        return sums
    maps = x.reshape(towers, -1, *x.shape[1:])
    padded = np.pad(maps, ((0, 0), around, (0, 0), (0, 0)))
    total = np.zeros_like(maps)
    for shift in range(width):
        total += padded[:, shift : shift + maps.shape[1]]
    return total.reshape(x.shape)


def list_windows(layer: Pool, x: Floats) -> Floats:
    """Return a view of a pooling layer's windows: [maps, rows, columns, size, size].

    Beyond the edge, where the last window may reach, there is −∞ or, for a mean, zero.
    """
    beyond = max(0, measure_reach(layer, x.shape[-1]) - x.shape[-1])
    if beyond:
        border = -np.inf if layer.kind == "max" else 0
        x = np.pad(x, ((0, 0), (0, beyond), (0, beyond)), constant_values=border)
    windows = sliding_window_view(x, (layer.size, layer.size), axis=(1, 2))
    return windows[:, :: layer.stride, :: layer.stride]


def measure_reach(layer: Pool, side: int) -> int:
    """Return how far a pooling layer's last window reaches, in positions from the first edge."""
    steps = side - layer.size + (layer.stride - 1 if layer.ceil else 0)
    return steps // layer.stride * layer.stride + layer.size


def count_pixels_in_windows(layer: Pool, side: int) -> Floats:
    """Count the positions of each window that lie within the edges: float32 [rows, columns]."""
    inside: Floats = list_windows(layer, np.ones((1, side, side), np.float32))[0].sum(axis=(-2, -1))
    return inside


def average_bins(side: int, before: int) -> Floats:
    """Return which positions each of `side` bins averages, and how: float32 [side, before]."""
    bins = np.zeros((side, before), np.float32)
    for place in range(side):
        first, last = place * before // side, -(-(place + 1) * before // side)
        bins[place, first:last] = 1 / (last - first)
    return bins
