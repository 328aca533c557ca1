"""OpenVINO on the CPU, in float32 or bf16.

What is stored of a network is its graph (model/runtime/graph_file.py), not what it is compiled to:
compiling takes as long as reading that would (0.3 against 0.9 seconds).
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import openvino as ov

from model.network.config import AlexNetConfig
from model.network.switches import Switches
from model.runtime.joined_passes import JoinedPasses
from model.runtime.machine import read_thread_limit
from model.runtime.names import OPENVINO_PRECISIONS
from model.runtime.openvino_reading import add_gains, find_all_weights, find_mean
from model.runtime.openvino_switches import apply_switches
from model.runtime.protocol import (
    Floats,
    Peaks,
    Pixels,
    RuntimeUnavailableError,
    TenCropOutput,
    find_peaks_of_layers,
)

CPU = "CPU"
MAX_JOINED_IMAGES = 2
"""Images of several threads in a pass of ten crops: two take 0.8 × the time of two passes; more
would save little, and take memory."""
KEPT_SECONDS = 60.0
"""How long a graph that few requests need stays compiled after it was used: each takes 120 to 230
MB in every process, and half a second to compile."""


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


class Spare(NamedTuple):
    """A compiled graph, and what will discard it."""

    request: Any
    timer: threading.Timer


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
        self.spares: dict[str, Spare] = {}
        self.joined = JoinedPasses(self.run_joined, MAX_JOINED_IMAGES)
        with explain_failures():
            self.ten_crops = self.compile(graphs.open_ten_crops())

    def run_ten_crops(self, images: Pixels) -> TenCropOutput:
        """Run the ten crops of each image: uint8 [N, 256, 256, 3].

        Single images of threads that ask while another pass is computed are joined.
        """
        if len(images) == 1:
            return self.joined.compute(images)
        probabilities, fc7 = self.infer(self.ten_crops, images)
        return TenCropOutput(probabilities, fc7)

    def run_joined(self, images: Sequence[Pixels]) -> list[TenCropOutput]:
        """Run the ten crops of several single images, uint8 [1, 256, 256, 3] each."""
        found = self.infer(self.ten_crops, np.concatenate(images))
        return [TenCropOutput(*(one[n : n + 1] for one in found)) for n in range(len(images))]

    def run_centre_crop(self, images: Pixels) -> Floats:
        """Compute fc7 of the centre crops: uint8 [N, 256, 256, 3] → float32 [N, 4096]."""
        (fc7,) = self.infer(self.compile_spare("centre crop"), images)
        return fc7

    def run_layers(self, image: Pixels, gains: Sequence[Floats] | None = None) -> list[Floats]:
        """Compute what each layer with weights gives before its activation, for the centre crop.

        uint8 [256, 256, 3] → float32 [maps, side, side] each, or [neurons]; always in float32.
        gains: as of `Runtime`.
        """
        return [one[0] for one in self.infer_layers(image[None], gains)]

    def run_logits(self, images: Pixels, gains: Sequence[Floats] | None = None) -> Floats:
        """Compute fc8 of the centre crops: uint8 [N, 256, 256, 3] → float32 [N, classes].

        The same graph as of `run_layers`, so that the weights are in memory once.
        """
        (logits,) = self.infer_layers(images, gains, only=-1)
        return logits

    def find_peaks(self, images: Pixels) -> Peaks:
        """Find the largest output of each unit for the centre crops: uint8 [N, 256, 256, 3].

        In the runtime's own precision: a build asks this of thousands of images, and the layers in
        float32 take three times as long. Sixteen images at a time take a third of one by one.
        """
        return find_peaks_of_layers(self.infer(self.compile_spare("peaks"), images))

    def infer_layers(
        self, images: Pixels, gains: Sequence[Floats] | None = None, only: int | None = None
    ) -> list[Floats]:
        """Compute the graph of all layers. gains: as of `Runtime`; None: ones."""
        request = self.compile_spare("layers")
        shapes = [list(one.get_partial_shape()) for one in request.model_inputs[1:]]
        sizes = [[length.get_length() for length in shape] for shape in shapes]
        if gains is None:
            gains = [np.ones(size, np.float32) for size in sizes]
        filled = [gain.reshape(size) for gain, size in zip(gains, sizes, strict=True)]
        return self.infer(request, images, *filled, only=only)

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
            return find_all_weights(self.graphs.open_layers())

    @cached_property
    def mean(self) -> Floats:
        """The mean image, likewise."""
        with explain_failures():
            return find_mean(self.graphs.open_layers())

    def run_switched(
        self, image: Pixels, config: AlexNetConfig, switches: Switches
    ) -> list[Floats]:
        """As `run_layers`, with the network changed: float32 [samples, maps, side, side] each.

        The changed graph is compiled for this one call: keeping it would take as much memory as the
        network itself. Raises RuntimeUnavailableError.
        """
        graph = self.graphs.open_layers()
        apply_switches(graph, config, switches)
        with self.lock, explain_failures():
            changed = self.compile(graph, "f32")
        return self.infer(changed, np.repeat(image[None], switches.samples, axis=0))

    def compile_spare(self, name: Literal["centre crop", "layers", "peaks"]) -> Any:
        """Return a graph that few requests need, discarded KEPT_SECONDS after its last use."""
        with self.lock, explain_failures():
            if (spare := self.spares.get(name)) is not None:
                spare.timer.cancel()
                request = spare.request
            elif name == "layers":
                request = self.compile(add_gains(self.graphs.open_layers()), "f32")
            elif name == "peaks":
                request = self.compile(self.graphs.open_layers())
            else:
                request = self.compile(self.graphs.open_centre_crop())
            timer = threading.Timer(KEPT_SECONDS, self.spares.pop, (name, None))
            timer.daemon = True
            self.spares[name] = Spare(request, timer)
            timer.start()
        return request

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
