"""Chooses the runtime of a network by measuring the candidates once on the machine at hand.

A candidate must agree with torch (model/runtime/agreement.py) and be faster. What was measured is
stored by model/runtime/prepared.py.
"""

import time
from collections.abc import Mapping
from importlib.util import find_spec
from statistics import median

from torch import Tensor

from model.network.alexnet import AlexNet
from model.runtime.agreement import make_test_images, measure_disagreement
from model.runtime.names import AUTO, OPENVINO_PRECISIONS, TORCH
from model.runtime.protocol import (
    Pixels,
    Runtime,
    RuntimeChoice,
    RuntimeUnavailableError,
)
from model.runtime.torch_runtime import TorchRuntime

ROUNDS = 3
"""Passes over one image that a candidate and torch take in turn; the medians are compared."""


def choose_runtime(
    network: AlexNet, mean: Tensor, wish: str = AUTO
) -> tuple[Runtime, RuntimeChoice]:
    """Return the runtime for a network and why it was chosen; whatever fails, torch is left.

    mean: float32 [3, side, side], on the network's device. wish: one of RUNTIMES; all but "auto"
    decide without measuring times, and torch computes if what was wished cannot or does not agree.
    """
    reference = TorchRuntime(network, mean)
    if wish == TORCH:
        return reference, RuntimeChoice(name=TORCH, reason="ALEXNET_RUNTIME is torch.")
    if mean.device.type != "cpu":
        reason = f"The network computes on {mean.device.type}."
        return reference, RuntimeChoice(name=TORCH, reason=reason)
    if find_spec("openvino") is None:
        return reference, RuntimeChoice(name=TORCH, reason="OpenVINO is not installed.")
    return find_best(network, mean, reference, wish)


def find_best(
    network: AlexNet, mean: Tensor, reference: Runtime, wish: str
) -> tuple[Runtime, RuntimeChoice]:
    """Take the first precision of OpenVINO that agrees with torch, if it is also faster."""
    images = make_test_images(network.config.side)
    refused = []
    for name in OPENVINO_PRECISIONS if wish == AUTO else (wish,):
        try:
            runtime = make_openvino(network, mean, name)
        except RuntimeUnavailableError as error:
            refused.append(f"{name}: {error}")
            continue
        found = measure_disagreement(runtime, reference, images)
        if not found.is_small:
            refused.append(
                f"{name}: a probability changes by {found.probability:.3f} and fc7 by "
                f"{found.feature:.1%}"
            )
            continue
        if wish != AUTO:
            reason = f"ALEXNET_RUNTIME is {wish}."
            return runtime, RuntimeChoice(name=name, reason=reason, disagreement=found)
        times = measure_alternately({name: runtime, TORCH: reference}, images[:1])
        if times[name] < times[TORCH]:
            reason = f"Ten crops take {times[name]:.0f} ms, with torch {times[TORCH]:.0f} ms."
            return runtime, RuntimeChoice(
                name=name, reason=reason, milliseconds=times, disagreement=found
            )
        reason = f"Ten crops take {times[TORCH]:.0f} ms, with {name} {times[name]:.0f} ms."
        return reference, RuntimeChoice(name=TORCH, reason=reason, milliseconds=times)
    return reference, RuntimeChoice(
        name=TORCH, reason=f"OpenVINO was refused: {'; '.join(refused)}."
    )


def make_openvino(network: AlexNet, mean: Tensor, name: str) -> Runtime:
    """Compile a network with OpenVINO. Raises RuntimeUnavailableError."""
    try:
        # Not above: OpenVINO is optional, and takes time and memory.
        from model.runtime.openvino_graph import BuiltGraphs
        from model.runtime.openvino_runtime import OpenVinoRuntime
    except ImportError as error:
        raise RuntimeUnavailableError(f"OpenVINO cannot be imported: {error}") from error
    return OpenVinoRuntime(BuiltGraphs(network, mean), name)


def measure_alternately(runtimes: Mapping[str, Runtime], images: Pixels) -> dict[str, float]:
    """Let runtimes take turns, so that other load meets all; return medians in milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in runtimes}
    for number in range(ROUNDS + 1):
        for name, runtime in runtimes.items():
            start = time.perf_counter()
            runtime.run_ten_crops(images)
            if number:  # the first pass of a batch size also prepares
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: median(some) for name, some in times.items()}
