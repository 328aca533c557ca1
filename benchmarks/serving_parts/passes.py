"""What takes part in the comparison of passes: this project's runtimes, and torchvision's."""

import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torchvision.models import alexnet

from model.predict import Predictor
from model.runtime.choice import make_openvino
from model.runtime.names import OPENVINO_PRECISIONS
from model.runtime.protocol import Runtime, RuntimeUnavailableError
from model.weights.checkpoint import Weights

Pass = Callable[[], object]


def make_runtimes(weights: Weights) -> dict[str, Runtime]:
    """Make every runtime that can compute the weights here, torch first."""
    predictor = Predictor.from_weights(weights, "cpu")
    found: dict[str, Runtime] = {"torch": predictor.runtime}
    for name in OPENVINO_PRECISIONS:
        try:
            found[name] = make_openvino(predictor.network, predictor.loaded.mean, name)
        except RuntimeUnavailableError:
            continue
    return found


def make_peers(folder: Path) -> dict[str, Pass]:
    """Make the passes of torchvision's AlexNet over ten crops, float32 [10, 3, 224, 224]."""
    import onnxruntime
    import openvino

    torch.manual_seed(0)
    network = alexnet().eval()
    crops = torch.randn(10, 3, 224, 224)
    file = folder / "alexnet.onnx"
    with warnings.catch_warnings():
        # The exporter warns about its own future.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(network, (crops,), dynamo=True, verbose=False)
    assert program is not None
    program.save(str(file))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"])
    name, array = session.get_inputs()[0].name, crops.numpy()
    core = openvino.Core()
    hints = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "bf16",
    }
    request = core.compile_model(core.read_model(file), "CPU", hints).create_infer_request()

    @torch.inference_mode()
    def run_torch() -> object:
        return network(crops)

    return {
        "torchvision, torch": run_torch,
        "torchvision, ONNX Runtime f32": lambda: session.run(None, {name: array}),
        "torchvision, OpenVINO bf16": lambda: request.infer([np.asarray(array)]),
    }


def time_alternately(passes: Mapping[str, Pass], rounds: int) -> dict[str, list[float]]:
    """Let the passes take turns, so that other load meets all; return milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in passes}
    for run in passes.values():
        run()  # the first pass of a shape also prepares
    for _ in range(rounds):
        for name, run in passes.items():
            start = time.perf_counter()
            run()
            times[name].append(1000 * (time.perf_counter() - start))
    return times
