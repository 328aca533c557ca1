"""What the machine offers: its memory allocator, and bf16."""

import ctypes
import ctypes.util
import sys
from pathlib import Path

import torch

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""Of glibc's malloc.h."""


def keep_memory() -> bool:
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
