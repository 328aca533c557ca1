"""Each layer's way back, in NumPy: from the gradient of its output to that of its input."""

import numpy as np

from model.attribution.forward_layers import (
    average_bins,
    count_pixels_in_windows,
    list_windows,
    measure_reach,
    sum_neighbours,
    sum_squares,
)
from model.network.layers import (
    Activation,
    AveragePool,
    Border,
    Conv,
    Dense,
    Drop,
    Flatten,
    Layer,
    Local,
    Lrn,
    MapNorm,
    Pool,
)
from model.runtime.protocol import Floats


def carry_back(
    layer: Layer, x: Floats, gradient: Floats, weight: Floats | None, towers: int, *, guided: bool
) -> Floats:
    """Carry a gradient from a layer's output back to its input x.

    weight: of a layer that has weights, in torch's arrangement. towers: how many the network has.
    guided: as `compute_gradient`. Raises TypeError for an unknown layer.
    """
    match layer:
        case Conv() | Local() | Dense():
            assert weight is not None
            return carry_back_weights(layer, x, gradient, weight, towers)
        case Activation():
            return carry_back_activation(layer, x, gradient, guided=guided)
        case Lrn() | MapNorm():
            return carry_back_norm(layer, x, gradient, towers)
        case Pool() if layer.kind == "max":
            return carry_back_max(layer, x, gradient)
        case Pool():
            return carry_back_mean(layer, x, gradient)
        case AveragePool():
            bins = average_bins(layer.side, x.shape[-1])
            spread: Floats = np.einsum("ih,cij,jw->chw", bins, gradient, bins, optimize=True)
            return spread
        case Border():
            return gradient[:, : x.shape[1], : x.shape[2]]
        case Flatten():
            return gradient.reshape(x.shape)
        case Drop():
            return gradient if layer.inverted else gradient * np.float32(1 - layer.p)
    raise TypeError(f"{layer.name}: there is no way back through a {type(layer).__name__}")


def carry_back_weights(
    layer: Conv | Local | Dense, x: Floats, gradient: Floats, weight: Floats, towers: int
) -> Floats:
    """Multiply by a layer's transposed weights, and add up where its windows overlap."""
    if isinstance(layer, Dense):
        product: Floats = gradient @ weight
        return product
    positions = gradient.shape[1] * gradient.shape[2]
    if isinstance(layer, Local):
        windows = np.einsum("ol,lok->kl", gradient.reshape(-1, positions), weight, optimize=True)
        return fold(windows, x, layer.kernel, 1, layer.pad)
    groups = towers if layer.grouped else 1
    kernels = weight.reshape(groups, layer.maps // groups, -1)
    flat = gradient.reshape(groups, layer.maps // groups, positions)
    columns = (kernels.transpose(0, 2, 1) @ flat).reshape(-1, positions)
    return fold(columns, x, layer.kernel, layer.stride, layer.pad)


def fold(columns: Floats, x: Floats, kernel: int, stride: int, pad: int) -> Floats:
    """Add up windows, [maps · kernel², positions], to the shape of x, [maps, side, side]."""
    maps, side = x.shape[0], x.shape[1]
    steps = (side + 2 * pad - kernel) // stride + 1
    windows = columns.reshape(maps, kernel, kernel, steps, steps)
    return add_at_steps(windows, side + 2 * pad, stride)[:, pad : pad + side, pad : pad + side]


def add_at_steps(windows: Floats, side: int, stride: int) -> Floats:
    """Add up [maps, size, size, rows, columns], windows `stride` apart, to [maps, side, side]."""
    maps, size, _, rows, columns = windows.shape
    total = np.zeros((maps, side, side), np.float32)
    for down, across in np.ndindex(size, size):
        place = np.s_[:, down : down + stride * rows : stride]
        total[place][:, :, across : across + stride * columns : stride] += windows[:, down, across]
    return total


def add_windows(layer: Pool, windows: Floats, x: Floats) -> Floats:
    """Add up a pooling layer's windows, [maps, size, size, rows, columns], to the shape of x."""
    side = x.shape[1]
    whole = max(side, measure_reach(layer, side))
    return add_at_steps(windows, whole, layer.stride)[:, :side, :side]


def carry_back_max(layer: Pool, x: Floats, gradient: Floats) -> Floats:
    """Give each window's gradient to its largest value, of equal ones the first, as torch does."""
    size = layer.size
    windows = list_windows(layer, x)
    largest = windows.reshape(*windows.shape[:3], -1).argmax(axis=-1)
    offsets = np.arange(size * size).reshape(1, size, size, 1, 1)
    chosen = offsets == largest[:, None, None]
    return add_windows(layer, chosen * gradient[:, None, None], x)


def carry_back_mean(layer: Pool, x: Floats, gradient: Floats) -> Floats:
    """Spread each window's gradient over its positions within the edges."""
    share = gradient / count_pixels_in_windows(layer, x.shape[-1])
    shape = (len(x), layer.size, layer.size, *share.shape[1:])
    return add_windows(layer, np.broadcast_to(share[:, None, None], shape), x)


def carry_back_activation(
    layer: Activation, x: Floats, gradient: Floats, *, guided: bool
) -> Floats:
    """Multiply by the slope of ReLU or tanh; guided: a ReLU also holds back what is below 0."""
    if layer.kind == "tanh":
        slope: Floats = 1 - np.tanh(x) ** 2
        return gradient * slope
    passed = (x > 0) & (gradient > 0) if guided else x > 0
    return np.where(passed, gradient, np.float32(0))


def carry_back_norm(layer: Lrn | MapNorm, x: Floats, gradient: Floats, towers: int) -> Floats:
    """With t = k + α Σ x²: g t^-β − 2αβ x Σ (g x t^(-β-1)), as in model/network/lrn.py."""
    groups = 1 if isinstance(layer, Lrn) and layer.across else towers
    t = sum_squares(layer, x, towers)
    scaled = gradient * t ** np.float32(-layer.beta)
    sums = sum_neighbours(layer, scaled * x / t, groups)
    found: Floats = scaled - np.float32(2 * layer.alpha * layer.beta) * x * sums
    return found
