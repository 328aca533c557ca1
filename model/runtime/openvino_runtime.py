"""OpenVINO on the CPU, in float32 or bf16.

The compiled network is not stored: compiling takes as long as reading it would (0.3 against 0.9
seconds), and the stored one would hold the weights in float32 a second time, in a file and in
memory, where the graph refers to those that torch has.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import openvino as ov
import torch
from torch import Tensor

from model.alexnet import AlexNet
from model.runtime.openvino_graph import build_centre_crop_graph, build_ten_crop_graph
from model.runtime.protocol import Floats, Pixels, RuntimeUnavailableError, TenCropOutput

CPU = "CPU"


class OpenVinoRuntime:
    """A network on the CPU, compiled when it is made.

    precision: "f32", or "bf16" for processors that multiply it. Raises RuntimeUnavailableError if
    this network cannot be compiled, or the processor has no bf16.
    """

    def __init__(self, network: AlexNet, mean: Tensor, precision: str) -> None:
        self.network, self.mean, self.precision = network, mean, precision
        self.name = f"openvino-{precision}"
        self.core = ov.Core()
        if precision == "bf16" and not self.has_bf16():
            raise RuntimeUnavailableError("the processor does not compute in bf16")
        self.lock = threading.Lock()
        with explain_failures():
            self.ten_crops = self.compile(build_ten_crop_graph(network, mean))

    def run_ten_crops(self, images: Pixels) -> TenCropOutput:
        """Run the ten crops of each image: uint8 [N, 256, 256, 3]."""
        probabilities, fc7 = self.infer(self.ten_crops, images)
        return TenCropOutput(probabilities, fc7)

    def run_centre_crop(self, images: Pixels) -> Floats:
        """Compute fc7 of the centre crops: uint8 [N, 256, 256, 3] → float32 [N, 4096]."""
        (fc7,) = self.infer(self.centre_crop, images)
        return fc7

    @cached_property
    def centre_crop(self) -> Any:
        """The graph of the centre crop, compiled when it is first needed: it takes memory too."""
        with self.lock, explain_failures():
            return self.compile(build_centre_crop_graph(self.network, self.mean))

    def infer(self, request: Any, images: Pixels) -> list[Floats]:
        """Compute a graph's outputs. One image after another: each has all cores."""
        with self.lock:
            found = request.infer([np.ascontiguousarray(images)], share_inputs=True)
            return [np.array(found[number], np.float32) for number in range(len(found))]

    def compile(self, graph: ov.Model) -> Any:
        """Compile a graph and make a request of it."""
        # DEVIATION: layers compute in bf16 when answering, on processors that have it, because
        # they then take half the time; only where the answers agree (model/runtime/agreement.py).
        options = {
            "INFERENCE_PRECISION_HINT": self.precision,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
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
