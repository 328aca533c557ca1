"""Compile the project's C for this processor, with the system's compiler, and run it."""

import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FLAGS = (
    *("-O3", "-march=native", "-shared", "-fPIC"),
    # What allows vector instructions, while NaN and infinity stay what they are.
    *("-fno-math-errno", "-fno-trapping-math"),
)
WIDE = ("-mprefer-vector-width=512",)
"""For x86, where compilers by default use half of AVX-512's width."""
MAX_SECONDS = 60


class CompilerError(RuntimeError):
    """There is no C compiler here, or it does not compile this; in words."""


def compile_library(source: Path, *, contract: bool = True) -> ctypes.CDLL:
    """Compile a C file and load it. Nothing remains on the disk.

    contract: whether a product and a sum may be rounded once, together. The compiler is the one
    that the environment variable CC names, or cc. Raises CompilerError.
    """
    name = os.environ.get("CC") or "cc"
    compiler = shutil.which(name)
    if compiler is None:
        raise CompilerError(f"there is no C compiler {name}")
    wide = WIDE if platform.machine() in ("x86_64", "AMD64") else ()
    try:
        with tempfile.TemporaryDirectory(prefix="alexnet-") as folder:
            library = Path(folder) / f"{source.stem}.so"
            rounding = f"-ffp-contract={'fast' if contract else 'off'}"
            names = ["-o", str(library), str(source), "-lm"]
            command = [compiler, *FLAGS, *wide, rounding, *names]
            subprocess.run(command, check=True, capture_output=True, timeout=MAX_SECONDS)
            return ctypes.CDLL(str(library))
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines()
        raise CompilerError(lines[0] if lines else f"{name} failed") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CompilerError(str(error)) from None


def run_on_threads(loop: Callable[..., int], values: tuple[Any, ...], count: int) -> list[int]:
    """Call a loop for 0 to `count`, in as many parts as torch uses threads; return the results.

    The values come first, tensors as pointers; then where the part begins and where it ends.
    """
    given = [value.data_ptr() if isinstance(value, Tensor) else value for value in values]
    threads = max(1, min(torch.get_num_threads(), count))
    borders = [count * part // threads for part in range(threads + 1)]

    def run_part(part: int) -> int:
        return loop(*given, borders[part], borders[part + 1])

    if threads == 1:
        return [run_part(0)]
    return list(start_threads(threads).map(run_part, range(threads)))


@cache
def start_threads(count: int) -> ThreadPoolExecutor:
    """Return threads for the loops, during which Python's lock is free."""
    return ThreadPoolExecutor(count, thread_name_prefix="loop")
