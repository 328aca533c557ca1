"""What the machine offers: its memory allocator, and bf16."""

import ctypes
import os
import resource
import sys
from pathlib import Path

import torch

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""Of glibc's malloc.h."""


def keep_freed_memory() -> bool:
    """Tell glibc's allocator to keep freed memory instead of returning it; False elsewhere.

    Each step frees and asks for the same gigabytes again; without this the page faults of
    freshly mapped buffers take a good part of the time.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    most = 2**31 - 1
    settings = {M_MMAP_THRESHOLD: most, M_TRIM_THRESHOLD: most, M_TOP_PAD: 64 << 20}
    taken = [bool(mallopt(name, value)) for name, value in settings.items()]
    return all(taken)


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 numbers natively."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text().split()) if info.exists() else set()
    return bool({"avx512_bf16", "amx_bf16"} & flags)


def set_thread_count() -> None:
    """Have as many threads as cores fall to this process, where several were started here."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if processes > 1:
        torch.set_num_threads(max(1, cores() // processes))


def cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def use_deterministic_algorithms(wanted: bool) -> None:
    """Have a GPU give the same numbers each time, at some speed; the CPU does in any case."""
    if wanted:
        # cuBLAS reads it when it is first used.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False


def read_peak_memory(device: torch.device) -> float:
    """The most memory that was held so far, in GiB: on a GPU its own, else this process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage, which there counts the process that started this one, too.
        kib = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(kib.split()[1]) / 2**20
    # Kibibytes, on macOS bytes.
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
