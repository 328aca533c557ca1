"""The network of the 2012 paper, and everything from an image's bytes to its labels."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model.predict import Predictor

__all__ = ["load"]


def load(weights: str | Path, device: str = "auto") -> "Predictor":
    """Load a weights file, ready to classify photographs.

    device: "auto", "cpu", "cuda" or "mps". Raises WeightsError for a file that is missing, damaged
    or not a weights file of this project; `flask weights import` makes one of others' weights.
    """
    # Not above: nobody who needs only a part of this package should wait for torch.
    from model.predict import Predictor
    from model.weights.checkpoint import load_weights

    return Predictor.from_weights(load_weights(Path(weights)), device)
