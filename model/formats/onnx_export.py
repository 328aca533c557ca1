"""A network as ONNX, from the pixels of an image to its probabilities and features.

The file takes squares as `model.image.preprocess` makes them, any number at a time, and holds the
mean image as well, so that nothing has to be known about the network to use it.
"""

import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from model.formats.model_card import describe_preprocessing
from model.image.preprocess import CENTRE_CROP, scale_pixels
from model.image.ten_crop import TEST_CROP_COUNTS, centre_crop, cut_test_crops
from model.network.alexnet import AlexNet
from model.predict import Predictor
from model.weights.checkpoint import Weights
from storage.files import replace_atomically

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4
"""Largest difference between ONNX Runtime's outputs and torch's: of probabilities, and of features
as a share of the largest."""
CHECKED_BATCHES = (1, 3)
"""Numbers of images that the exported file is run with."""
INPUT, PROBABILITIES, FEATURES = "pixels", "probabilities", "features"
Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


class ExportError(ValueError):
    """Weights that cannot be exported; the message says why."""


class Outputs(NamedTuple):
    """What the exported network computes.

    probabilities: float32 [N, classes]. features: float32 [N, 4096], of the centre crop.
    """

    probabilities: Tensor
    features: Tensor


class PixelNetwork(nn.Module):
    """A network with all that comes before and after it: uint8 [N, side, side, 3] → Outputs."""

    mean: Tensor

    def __init__(self, weights: Weights, *, ten_crops: bool) -> None:
        super().__init__()
        self.network: AlexNet = weights.build_network()
        self.ten_crops = ten_crops
        self.register_buffer("mean", weights.mean)

    def forward(self, pixels: Tensor) -> Outputs:
        """Classify squares of RGB pixels, averaging over the ten crops or with the centre crop."""
        config = self.network.config
        centred = pixels.permute(0, 3, 1, 2).to(torch.float32) - self.mean
        x = scale_pixels(centred, config.input_scale, config.channel_scales)
        if not self.ten_crops:
            output = self.network(centre_crop(x, config.crop))
            return Outputs(output.logits.softmax(1), output.fc7)
        output = self.network(cut_test_crops(x, config).flatten(0, 1))
        shape = -1, TEST_CROP_COUNTS[config.test_crops]
        probabilities = output.logits.softmax(1).unflatten(0, shape).mean(1)
        return Outputs(probabilities, output.fc7.unflatten(0, shape)[:, CENTRE_CROP])


def export_onnx(weights: Weights, path: Path, *, ten_crops: bool) -> float:
    """Write weights as ONNX and compare them with torch's; return the largest difference.

    Raises ExportError if a package is missing or the outputs differ by more than TOLERANCE, and
    OSError. Then nothing is written.
    """
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise ExportError(
            f'exporting to ONNX needs {", ".join(missing)}; `pip install -e ".[onnx]"` installs '
            "what is needed"
        )
    with replace_atomically(path) as part:
        write_onnx(weights, part, ten_crops=ten_crops)
        difference = measure_difference(weights, part, ten_crops=ten_crops)
        if not difference <= TOLERANCE:
            raise ExportError(
                f"the exported network differs from this one by {difference:.1e}, more than "
                f"{TOLERANCE:.0e}"
            )
    return difference


def write_onnx(weights: Weights, path: Path, *, ten_crops: bool) -> None:
    """Write weights as ONNX. Raises OSError."""
    network = PixelNetwork(weights, ten_crops=ten_crops).eval()
    side = weights.config.side
    example = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        # The exporter warns about its own future.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (example,),
            input_names=[INPUT],
            output_names=[PROBABILITIES, FEATURES],
            dynamic_shapes={INPUT: {0: torch.export.Dim("images", min=1)}},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(
        {
            "weights": weights.identity,
            "source": weights.provenance.source,
            "trained_on": weights.provenance.data,
            "preprocessing": describe_preprocessing(weights),
            "crops": "ten" if ten_crops else "centre",
            "labels": json.dumps([known.label for known in weights.classes]),
        }
    )
    program.save(str(path))


def measure_difference(weights: Weights, path: Path, *, ten_crops: bool) -> float:
    """Run an exported file and the network itself on random pixels; return how far they differ."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    predictor = Predictor.from_weights(weights, "cpu")
    side, largest = weights.config.side, 0.0
    for count in CHECKED_BATCHES:
        pixels = np.random.default_rng(count).integers(0, 256, (count, side, side, 3), np.uint8)
        found = session.run([PROBABILITIES, FEATURES], {INPUT: pixels})
        for ours, theirs in zip(predict(predictor, pixels, ten_crops), found, strict=True):
            difference = float(np.abs(ours - theirs).max())
            largest = max(largest, difference / max(1.0, float(np.abs(ours).max())))
    return largest


def predict(predictor: Predictor, pixels: Pixels, ten_crops: bool) -> tuple[Floats, Floats]:
    """Compute what the exported network should: float32 [N, classes] and [N, 4096]."""
    predictions = predictor.predict_batch(pixels)
    features = np.stack([one.fc7 for one in predictions])
    if ten_crops:
        return np.stack([one.probabilities for one in predictions]), features
    return np.stack([one.crop_probabilities[CENTRE_CROP] for one in predictions]), features
