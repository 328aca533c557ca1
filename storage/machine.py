"""What the operating system says of this machine's processor and graphics cards."""

import platform
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")


def list_gpu_devices() -> list[str]:
    """List what the system has of graphics cards that can compute: the names of their devices.

    Without reading a driver: where the list is empty, no library need be asked.
    """
    patterns = ("nvidia[0-9]*", "dxg", "kfd")  # NVIDIA; in Windows' subsystem for Linux; AMD
    return sorted(path.name for pattern in patterns for path in Path("/dev").glob(pattern))


def read_processor_name() -> str:
    """Return the processor's name."""
    return read_cpu_info().get("model name") or platform.processor()


def read_cpu_info() -> dict[str, str]:
    """Return what Linux says of the first processor, by name; empty on other systems."""
    try:
        first, *_ = CPU_INFO.read_text().split("\n\n")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
