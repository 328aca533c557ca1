"""What the machine offers."""

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from storage.parallel import cores
from training.device import has_bf16, read_peak_memory, should_compile

ROOT = Path(__file__).resolve().parents[2]

MAPPED = """if True:
    import ctypes
    import sys

    import torch

    from training.device import keep_freed_memory

    class Mallinfo2(ctypes.Structure):
        names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
        _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = Mallinfo2
    if sys.argv[1] == "keep":
        assert keep_freed_memory()
    before = mallinfo2().hblkhd
    block = torch.ones(16_000_000)
    print(mallinfo2().hblkhd - before)
"""
"""Prints how many bytes of a block of 64 MB the allocator mapped, to unmap them when freed."""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_large_blocks_come_from_memory_that_is_kept() -> None:
    def mapped(how: str) -> int:
        # In a process of its own, since the setting lasts.
        command = [sys.executable, "-c", MAPPED, how]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert mapped("as it is") >= 64_000_000
    assert mapped("keep") == 0


def test_bf16_only_where_it_is_native() -> None:
    assert has_bf16(torch.device("cpu")) in (True, False)
    assert not has_bf16(torch.device("mps"))
    # Only processors that say so; a program that asks the kernel sees the same flags.
    done = subprocess.run(["grep", "-cE", "avx512_bf16|amx_bf16", "/proc/cpuinfo"], check=False)
    if Path("/proc/cpuinfo").exists():
        assert has_bf16(torch.device("cpu")) == (done.returncode == 0)


def ask(program: str, **variables: str) -> str:
    """What a program prints that starts anew, as settings of a process last."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


SHARED = """if True:
    import os, torch
    from training.device import share_cores
    os.sched_getaffinity = lambda _pid: set(range(16))
    before = torch.get_num_threads()
    share_cores()
    print(before, torch.get_num_threads())
"""


@pytest.mark.parametrize(("processes", "threads"), [(2, 8), (4, 4), (8, 2), (16, 1), (32, 1)])
def test_processes_share_the_cores(processes: int, threads: int) -> None:
    assert ask(SHARED, LOCAL_WORLD_SIZE=str(processes)).split()[1] == str(threads)


def test_a_process_alone_keeps_its_threads() -> None:
    before, after = ask(SHARED, OMP_NUM_THREADS="1").split()
    assert before == after == "1"


def test_the_cores_are_those_that_this_process_may_use() -> None:
    one = min(os.sched_getaffinity(0))
    program = f"import os; os.sched_setaffinity(0, [{one}]); "
    assert ask(program + "from storage.parallel import cores; print(cores())") == "1"
    assert cores() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("wanted", [True, False])
def test_deterministic_is_torchs_own_mode(wanted: bool) -> None:
    program = f"""if True:
        import os, torch
        from training.device import use_deterministic_algorithms
        if {wanted}:
            use_deterministic_algorithms()
        print(torch.are_deterministic_algorithms_enabled(), "CUBLAS_WORKSPACE_CONFIG" in os.environ)
    """
    assert ask(program) == f"{wanted} {wanted}"


def test_the_peak_of_memory_counts_what_was_freed() -> None:
    program = """if True:
        import torch
        from training.device import read_peak_memory
        before = read_peak_memory(torch.device("cpu"))
        block = torch.ones(2**28)
        del block
        print(read_peak_memory(torch.device("cpu")) - before)
    """
    assert float(ask(program)) == pytest.approx(1, abs=0.3)
    assert 0.1 < read_peak_memory(torch.device("cpu")) < 64


@pytest.mark.parametrize(
    ("wanted", "device", "images", "expected"),
    [
        ("on", "cpu", 1, True),
        ("off", "cuda", 10**9, False),
        ("auto", "cuda", 1, True),
        ("auto", "cpu", 100, False),
        ("auto", "cpu", 9_469 * 90, True),
        ("auto", "mps", 10**9, False),
    ],
)
def test_compiling_pays_on_gpus_and_in_long_runs(
    wanted: str, device: str, images: int, expected: bool
) -> None:
    assert should_compile(wanted, device, images) is expected  # type: ignore[arg-type]


@pytest.mark.slow
def test_without_a_compiler_the_run_goes_on_and_says_so(
    begin: Callable[..., subprocess.Popen[str]],
    end: Callable[..., tuple[str, str]],
    tmp_path: Path,
) -> None:
    said, errors = end(
        begin(
            tmp_path / "home",
            *("--variant", "cifar-lrn", "--epochs", "1", "--batch", "8", "--compile", "on"),
            PATH="/nonexistent",
            CC="/nonexistent/cc",
            CXX="/nonexistent/c++",
            TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"),
        )
    )
    assert "not compiled, since torch.compile fails here: " in said
    assert "epoch   1/1" in said
    assert errors == ""
