"""Times on a device, whose work goes on after a call has returned."""

import time
from collections.abc import Callable
from statistics import median

import torch


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_call(call: Callable[[], object], device: torch.device) -> float:
    """Return the seconds that a call and its work on the device take."""
    synchronise(device)
    start = time.perf_counter()
    call()
    synchronise(device)
    return time.perf_counter() - start


def median_seconds(
    call: Callable[[], object], device: torch.device, rounds: int, warm_up: int = 3
) -> float:
    """Return the median of several times, after some calls that do not count."""
    for _ in range(warm_up):
        call()
    return median(time_call(call, device) for _ in range(rounds))
