"""torch.compile where it pays; without a compiler the network runs as it is, and says so."""

import logging
from typing import Literal

import torch
from torch import nn

from model.lrn import LocalResponseNorm
from training.state import TrainingState

CompileMode = Literal["auto", "on", "off"]
MIN_IMAGES_TO_COMPILE = 20_000
"""Images to be trained on in all from which on a CPU wins back the half minute of compiling."""


def compile_network(state: TrainingState, wanted: CompileMode, images: int) -> str:
    """Compile what pays on the run's device: on a GPU the whole network, on a CPU the response
    normalisation, since the other layers are libraries' kernels there. Gives what was done.

    images: how many are going to be trained on, all epochs together.
    """
    if not should_compile(wanted, state.device.type, images):
        return "not compiled"
    norms = find_lrn_layers(state.network)
    if state.device.type == "cpu" and not norms:
        return "nothing to compile"
    # It warns of a CUDA that it does not need.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    if why := find_compiler_error(state.device):
        return f"not compiled, since torch.compile fails here: {why}"
    if state.device.type == "cpu":
        for module in norms:
            module.fuse()
        return "normalisation compiled"
    state.forward = torch.compile(state.forward)  # type: ignore[assignment]
    return "compiled"


def find_lrn_layers(network: nn.Module) -> list[LocalResponseNorm]:
    """The layers that a CPU compiles."""
    return [module for module in network.modules() if isinstance(module, LocalResponseNorm)]


def unfuse_lrn(network: nn.Module) -> None:
    """Go back to the plain layers, once training is done."""
    for module in find_lrn_layers(network):
        module.fuse(wanted=False)


def should_compile(wanted: CompileMode, device: str, images: int) -> bool:
    """Whether to compile for a run over so many images on a device of this type."""
    if wanted != "auto":
        return wanted == "on"
    return device == "cuda" or (device == "cpu" and images >= MIN_IMAGES_TO_COMPILE)


def find_compiler_error(device: torch.device) -> str:
    """Why torch.compile does not work on this machine; empty where it does."""
    try:
        torch.compile(nn.Tanh())(torch.zeros(8, device=device))
    except Exception as error:  # noqa: BLE001 - whatever the compiler lacks, the run goes on
        lines = [line for line in str(error).splitlines() if line.strip()]
        return lines[0] if lines else type(error).__name__
    return ""
