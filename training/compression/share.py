"""Share weights: k-means makes a few values of all the weights of a layer (Han et al., §3)."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.compression.options import LayerCompression

MAX_ITERATIONS = 2000
"""Lloyd's iterations, each of which takes microseconds; a layer needs some hundreds."""

Floats = npt.NDArray[np.float32]


def share_weights(
    state: Mapping[str, Tensor], layers: Mapping[str, LayerCompression]
) -> dict[str, Tensor]:
    """Replace each layer's weights, zeros apart, by the centres of their clusters.

    state: the network's tensors; those without a layer stay as they are.
    """
    return {
        name: share_values(tensor, 2 ** layers[name].bits) if name in layers else tensor
        for name, tensor in state.items()
    }


def share_values(weights: Tensor, count: int) -> Tensor:
    """Replace the values that are not zero by `count` values at most, of any shape."""
    flat = weights.detach().flatten().numpy()
    places = np.flatnonzero(flat)
    kept = flat[places]
    centres = find_centres(np.sort(kept), count)
    shared = np.zeros_like(flat)
    shared[places] = centres[np.searchsorted(find_bounds(centres), kept)]
    return torch.from_numpy(shared.reshape(weights.shape))


def find_centres(values: Floats, count: int) -> Floats:
    """Cluster ascending values by k-means; return the centres, float32 [≤ count], ascending.

    Starts from equally spaced centres: Han et al. find that this serves the few large weights,
    which matter more than their number, better than centres drawn from the weights.
    """
    distinct = np.unique(values)
    if len(distinct) <= count:
        return distinct
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    centres = space_equally(values, count)
    for _ in range(MAX_ITERATIONS):
        # In one dimension a cluster is a range of the sorted values, and its sum a difference.
        ends = np.searchsorted(values, find_bounds(centres), side="right")
        edges = np.concatenate([[0], ends, [len(values)]])
        sizes = np.diff(edges)
        means = np.diff(sums[edges])[sizes > 0] / sizes[sizes > 0]
        moved = means.astype(np.float32)
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres


def find_bounds(centres: Floats) -> Floats:
    """Return the middles between neighbouring centres: float32 [k] → [k − 1]."""
    middles: Floats = (centres[1:] + centres[:-1]) / np.float32(2)
    return middles


def space_equally(values: Floats, count: int) -> Floats:
    """Space centres equally over ascending values, leaving out the gap around zero."""
    below, above = values[values < 0][-1:], values[values > 0][:1]
    gap = float(above[0] - below[0]) if len(below) and len(above) else 0.0
    centres = np.linspace(values[0], values[-1] - gap, count)
    if gap:
        centres[centres > below[0]] += gap
    return centres.astype(np.float32)
