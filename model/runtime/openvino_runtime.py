"""OpenVINO on the CPU, in float32 or bf16.

What is stored of a network is its graph (model/runtime/graph_file.py), not what it is compiled to:
compiling takes as long as reading that would (0.3 against 0.9 seconds).
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import openvino as ov

from model.runtime.machine import read_thread_limit
from model.runtime.names import OPENVINO_PRECISIONS
from model.runtime.openvino_reading import add_gains, find_mean, find_weights
from model.runtime.protocol import (
    Floats,
    Peaks,
    Pixels,
    RuntimeUnavailableError,
    TenCropOutput,
    find_peaks_of_layers,
)

CPU = "CPU"


class NetworkGraphs(Protocol):
    """A network as OpenVINO's graphs: uint8 [N, 256, 256, 3] in.

    All raise RuntimeUnavailableError for a network that has none.
    """

    def open_ten_crops(self) -> ov.Model:
        """Return the graph of `Runtime.run_ten_crops`."""
        ...

    def open_centre_crop(self) -> ov.Model:
        """Return the graph of `Runtime.run_centre_crop`."""
        ...

    def open_layers(self) -> ov.Model:
        """Return the graph of `Runtime.run_layers`, without gains."""
        ...


class OpenVinoRuntime:
    """A network on the CPU, compiled when it is made.

    name: one of OPENVINO_PRECISIONS. Raises RuntimeUnavailableError if this network cannot be
    compiled, or the processor does not multiply bf16 where that is asked for.
    """

    def __init__(self, graphs: NetworkGraphs, name: str) -> None:
        self.graphs, self.name, self.precision = graphs, name, OPENVINO_PRECISIONS[name]
        self.core = ov.Core()
        if self.precision == "bf16" and not self.has_bf16():
            raise RuntimeUnavailableError("the processor does not compute in bf16")
        self.lock = threading.Lock()
        with explain_failures():
            self.ten_crops = self.compile(graphs.open_ten_crops())

    def run_ten_crops(self, images: Pixels) -> TenCropOutput:
        """Run the ten crops of each image: uint8 [N, 256, 256, 3]."""
        probabilities, fc7 = self.infer(self.ten_crops, images)
        return TenCropOutput(probabilities, fc7)

    def run_centre_crop(self, images: Pixels) -> Floats:
        """Compute fc7 of the centre crops: uint8 [N, 256, 256, 3] → float32 [N, 4096]."""
        (fc7,) = self.infer(self.centre_crop, images)
        return fc7

    def run_layers(self, image: Pixels, gains: Sequence[Floats] | None = None) -> list[Floats]:
        """Compute what each layer with weights gives before its activation, for the centre crop.

        uint8 [256, 256, 3] → float32 [maps, side, side] each, or [neurons]; always in float32.
        gains: as of `Runtime`.
        """
        return [one[0] for one in self.infer(self.layers, image[None], *self.fill_gains(gains))]

    def run_logits(self, images: Pixels, gains: Sequence[Floats] | None = None) -> Floats:
        """Compute fc8 of the centre crops: uint8 [N, 256, 256, 3] → float32 [N, classes].

        The same graph as of `run_layers`, so that the weights are in memory once.
        """
        (logits,) = self.infer(self.layers, images, *self.fill_gains(gains), only=-1)
        return logits

    def find_peaks(self, images: Pixels) -> Peaks:
        """Find the largest output of each unit for the centre crops: uint8 [N, 256, 256, 3]."""
        return find_peaks_of_layers(self.infer(self.layers, images, *self.fill_gains(None)))

    def fill_gains(self, gains: Sequence[Floats] | None) -> Sequence[Floats]:
        """Return the gains in the shapes of the inputs of the graph of all layers; None: ones."""
        shapes = [list(one.get_partial_shape()) for one in self.layers.model_inputs[1:]]
        sizes = [[length.get_length() for length in shape] for shape in shapes]
        if gains is None:
            return [np.ones(size, np.float32) for size in sizes]
        return [gain.reshape(size) for gain, size in zip(gains, sizes, strict=True)]

    def read_weights(self) -> list[Floats]:
        """Return the weights of each layer that has any, without biases; memory of the graph."""
        return self.weights

    def read_mean(self) -> Floats:
        """Return the mean image: float32 [3, side, side]."""
        return self.mean

    @cached_property
    def weights(self) -> list[Floats]:
        """The weights, read when they are first needed."""
        with explain_failures():
            return find_weights(self.graphs.open_layers())

    @cached_property
    def mean(self) -> Floats:
        """The mean image, likewise."""
        with explain_failures():
            return find_mean(self.graphs.open_layers())

    @cached_property
    def centre_crop(self) -> Any:
        """The graph of the centre crop, compiled when it is first needed: it takes memory too."""
        with self.lock, explain_failures():
            return self.compile(self.graphs.open_centre_crop())

    @cached_property
    def layers(self) -> Any:
        """The graph of all layers, likewise."""
        with self.lock, explain_failures():
            return self.compile(add_gains(self.graphs.open_layers()), "f32")

    def infer(
        self, request: Any, images: Pixels, *others: Floats, only: int | None = None
    ) -> list[Floats]:
        """Compute a graph's outputs. One image after another: each has all cores.

        others: what the graph takes besides the images. only: the number of the one output wanted.
        """
        with self.lock:
            found = request.infer([np.ascontiguousarray(images), *others], share_inputs=True)
            wanted = range(len(found)) if only is None else [range(len(found))[only]]
            return [np.array(found[number], np.float32) for number in wanted]

    def compile(self, graph: ov.Model, precision: str | None = None) -> Any:
        """Compile a graph, in the runtime's precision or another, and make a request of it."""
        # DEVIATION: layers compute in bf16 when answering, on processors that have it, because
        # they then take half the time; only where the answers agree (model/runtime/agreement.py).
        options: dict[str, object] = {
            "INFERENCE_PRECISION_HINT": precision or self.precision,
            "PERFORMANCE_HINT": "LATENCY",
        }
        if threads := read_thread_limit():
            options["INFERENCE_NUM_THREADS"] = threads
        return self.core.compile_model(graph, CPU, options).create_infer_request()

    def has_bf16(self) -> bool:
        """Whether the processor multiplies bf16."""
        return "BF16" in self.core.get_property(CPU, "OPTIMIZATION_CAPABILITIES")


@contextmanager
def explain_failures() -> Iterator[None]:
    """Turn what OpenVINO raises while it compiles into RuntimeUnavailableError."""
    try:
        yield
    except RuntimeError as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[-1]
        raise RuntimeUnavailableError(f"OpenVINO cannot compile it: {reason}") from error
