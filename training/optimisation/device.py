"""Set up the computation: device, precision, threads, memory and torch.compile."""

import ctypes
import logging
import os
import resource
import sys
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from model.network.cpu.c_library import CompilerError
from model.network.cpu.folding import fold_convolutions
from model.network.cpu.normalisation import fuse_normalisations
from model.network.cpu.rounded_weights import list_rounded, round_weights
from model.network.lrn import LocalResponseNorm
from model.weights.loaded_network import find_device
from storage.parallel import cores, local_processes, local_rank
from training.batches.augment import compile_augmentation
from training.optimisation.precision import Precision
from training.optimisation.state import TrainingState
from training.recipe.config import RecipeError
from training.recipe.options import Options

FAST_F16 = (7, 0)
"""The compute capability from which GPUs multiply float16 faster than float32; most of those before
are slower."""
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""Parameters of mallopt, from glibc's malloc.h."""
MIN_IMAGES_TO_COMPILE = 2000
"""Images to train on, over all epochs, above which compiling on a CPU surely saves more than the
one or two seconds it takes."""


def select_device(options: Options) -> torch.device:
    """Return this process's device; with several GPUs, the one of its local rank.

    Raises RecipeError if there are fewer GPUs than processes, and ConfigError for a device that
    torch does not find.
    """
    device = find_device(options.device)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise RecipeError("--device mps: torch finds no such GPU here; use --device cpu")
    if device.type != "cuda":
        return device
    gpus, processes = torch.cuda.device_count(), local_processes()
    if processes > gpus:
        raise RecipeError(
            f"--device {options.device} needs a GPU for each process, but torch finds {gpus} GPUs "
            f"for {processes} processes; use --device cpu"
        )
    device = torch.device("cuda", local_rank())
    torch.cuda.set_device(device)
    return device


def choose_precision(options: Options, device: torch.device) -> Precision:
    """Return the precision asked for, by default the fastest that the device has natively."""
    # DEVIATION: layers compute in bf16 where the processor has it because such processors multiply
    # it several times as fast; weights, update and softmax stay float32, --precision f32 forces it.
    # DEVIATION: layers compute in float16 on GPUs without bf16 from compute capability 7.0 on
    # because these multiply it several times as fast; the loss is scaled
    # (training/optimisation/precision.py), weights, update and softmax stay float32, --precision
    # f32 forces it.
    if options.precision != "auto":
        return options.precision
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    return choose_fastest(has_bf16(device), capability)


def choose_fastest(bf16: bool, capability: tuple[int, int] | None) -> Precision:
    """Return the fastest precision of a device.

    bf16: whether it has that natively. capability: a GPU's with CUDA; None for other devices.
    """
    if bf16:
        return "bf16"
    return "f16" if capability is not None and capability >= FAST_F16 else "f32"


def has_bf16(device: torch.device) -> bool:
    """Return whether the device multiplies bf16 numbers natively."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    return bool({"avx512_bf16", "amx_bf16"} & read_processor_flags())


def read_processor_flags() -> set[str]:
    """Return the names of the processor's instructions, on Linux; elsewhere none."""
    info = Path("/proc/cpuinfo")
    return set(info.read_text().split()) if info.exists() else set()


def set_tf32(enabled: bool) -> None:
    """Let a GPU's products of float32 round their factors to 11 bits, or not.

    torch itself lets convolutions do so, but not matrix products.
    """
    # DEVIATION: with --tf32, a GPU rounds the factors of float32 products to 11 bits because it
    # multiplies these several times as fast.
    torch.backends.cuda.matmul.allow_tf32 = enabled
    torch.backends.cudnn.allow_tf32 = enabled


def uses_tf32() -> bool:
    """Return whether `set_tf32` let products round their factors."""
    return bool(torch.backends.cuda.matmul.allow_tf32)


def use_deterministic_algorithms() -> None:
    """Make a GPU compute the same numbers every time, at some cost in speed; a CPU does anyway."""
    # cuBLAS reads this when it is first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def share_cores() -> None:
    """Divide the cores among the processes of this machine, as numbers of torch threads."""
    processes = local_processes()
    if processes > 1:
        torch.set_num_threads(max(1, cores() // processes))


def trains_on_all_cores(device: torch.device) -> bool:
    """Return whether this process's layers run on all cores, of more than one."""
    return device.type == "cpu" and 1 < cores() <= torch.get_num_threads()


def keep_freed_memory() -> bool:
    """Make glibc's allocator keep freed memory instead of returning it to the system.

    Every step frees and allocates the same gigabytes; without this, page faults of newly mapped
    buffers take a good part of the time. Returns False if the allocator is not glibc's.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    largest = 2**31 - 1
    settings = {M_MMAP_THRESHOLD: largest, M_TRIM_THRESHOLD: largest, M_TOP_PAD: 64 << 20}
    accepted = [bool(mallopt(name, value)) for name, value in settings.items()]
    return all(accepted)


def read_peak_memory(device: torch.device) -> float:
    """Return the peak memory so far in GiB: the GPU's if the device is one, else the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage, whose peak on Linux is inherited from the process that started this one.
        kib = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(kib.split()[1]) / 2**20
    # In KiB; on macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def compile_network(
    state: TrainingState,
    mode: Literal["auto", "on", "off"],
    images: int,
    precision: Precision,
) -> str:
    """Compile the network on a GPU; on a CPU, what lies between its library's kernels, and the
    augmentation.

    Without a working compiler nothing is compiled.

    images: how many the run trains on, over all epochs. precision: of the layers' arithmetic.

    Returns what was done, in a few words.
    """
    device = state.device
    if not should_compile(mode, device.type, images):
        return "not compiled"
    if device.type == "cpu":
        try:
            return compile_for_cpu(state, precision)
        except CompilerError as error:
            return f"not compiled: {error}"
    # It warns about a missing CUDA that is not needed.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    if reason := find_compiler_error(device):
        return f"not compiled, since torch.compile fails here: {reason}"
    for layer in find_lrn_layers(state.network):
        layer.expand()
    state.forward = torch.compile(state.forward)  # type: ignore[assignment]
    return "compiled"


def compile_for_cpu(state: TrainingState, precision: Precision) -> str:
    """Compile the augmentation, response normalisation and, for bf16, the update of fc6 and fc7.

    Returns what was done, in a few words. Raises CompilerError.
    """
    compile_augmentation()
    done = ["augmentation"] + ["normalisation"] * bool(fuse_normalisations(state.network))
    if precision == "bf16":
        if "amx_bf16" in read_processor_flags():
            fold_convolutions(state.network)
        # DistributedDataParallel sums gradients in the dtype of the weights.
        if state.mesh.replicas == 1 and round_weights(state.network):
            state.sgd.keep_copies(
                {layer.weight: own.copy for layer, own in list_rounded(state.network)}
            )
            done.append("update")
    return f"{', '.join(done)} compiled"


def should_compile(mode: Literal["auto", "on", "off"], device: str, images: int) -> bool:
    """Return whether to compile for training on this many images on a device of this type."""
    if mode != "auto":
        return mode == "on"
    return device == "cuda" or (device == "cpu" and images >= MIN_IMAGES_TO_COMPILE)


def find_compiler_error(device: torch.device) -> str:
    """Return why torch.compile does not work on this machine, or "" if it does."""
    try:
        torch.compile(nn.Tanh())(torch.zeros(8, device=device))
    except Exception as error:  # noqa: BLE001 - training does not need it
        lines = [line for line in str(error).splitlines() if line.strip()]
        return lines[0] if lines else type(error).__name__
    return ""


def find_lrn_layers(network: nn.Module) -> list[LocalResponseNorm]:
    """Return the network's local response normalisations."""
    return [module for module in network.modules() if isinstance(module, LocalResponseNorm)]


def stop_expanding(network: nn.Module) -> None:
    """Return to the normalisation that is fast without a compiler, once training is done."""
    for layer in find_lrn_layers(network):
        layer.expand(enabled=False)
