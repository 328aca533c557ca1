"""What a choice of runtime depends on besides the weights: the machine and its libraries."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from storage.machine import list_gpu_devices, read_cpu_info, read_processor_name


def describe_machine() -> dict[str, str]:
    """Describe the processor, the threads and GPUs that may be used, and the libraries."""
    gpus = list_gpu_devices()
    return {
        "processor": read_processor(),
        "threads": str(read_thread_limit() or os.cpu_count()),
        "gpus": " ".join([*gpus, os.environ.get("CUDA_VISIBLE_DEVICES", "")]).strip(),
        "torch": read_package_version("torch"),
        "openvino": read_package_version("openvino"),
    }


def read_thread_limit() -> int | None:
    """Return how many threads a network may compute with, as torch does; None if nobody said."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) if text.isdecimal() and int(text) > 0 else None


def read_processor() -> str:
    """Return the processor's name and what it has for bf16, or what the platform calls it."""
    flags = read_cpu_info().get("flags", "").split()
    known = [flag for flag in ("avx2", "avx512_bf16", "amx_bf16") if flag in flags]
    return " ".join([read_processor_name(), *known]).strip() or platform.machine()


def read_package_version(package: str) -> str:
    """Return the version of an installed package, or nothing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
