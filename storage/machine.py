"""What the operating system says of this machine's processor."""

import platform
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")


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
