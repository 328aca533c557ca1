"""The device: native bf16, threads, memory, deterministic algorithms, compilation."""

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from training.optimisation.device import (
    has_bf16,
    share_cores,
    should_compile,
    trains_on_all_cores,
    use_deterministic_algorithms,
)

ROOT = Path(__file__).resolve().parents[3]

MEMORY = """if True:
    import ctypes

    import torch

    from training.optimisation.device import keep_freed_memory, read_peak_memory

    class Mallinfo2(ctypes.Structure):
        names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
        _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = Mallinfo2

    def mapped_bytes():
        before = mallinfo2().hblkhd
        block = torch.ones(16_000_000)
        return mallinfo2().hblkhd - before

    peak = read_peak_memory(torch.device("cpu"))
    block = torch.ones(2**27)
    del block
    peak_rise = read_peak_memory(torch.device("cpu")) - peak
    mapped = mapped_bytes()
    assert keep_freed_memory()
    print(peak_rise, mapped, mapped_bytes())
"""
"""Prints by how many GiB half a GiB raises the peak, and how many bytes of a block of 64 MB the
allocator maps, to unmap them when freed, before and after `keep_freed_memory`."""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_large_blocks_come_from_memory_that_is_kept_and_the_peak_counts_what_was_freed() -> None:
    # In a process of its own, since the setting and the peak last.
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], cwd=ROOT, capture_output=True, text=True, check=True
    )
    peak_rise, mapped, mapped_when_kept = map(float, done.stdout.split())
    assert peak_rise == pytest.approx(0.5, abs=0.2)
    assert mapped >= 64_000_000
    assert mapped_when_kept == 0


def test_bf16_only_where_it_is_native() -> None:
    assert not has_bf16(torch.device("mps"))
    info = Path("/proc/cpuinfo")
    if info.exists():
        flags = info.read_text()
        assert has_bf16(torch.device("cpu")) == ("avx512_bf16" in flags or "amx_bf16" in flags)


@pytest.fixture
def restored_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("restored_threads")
def test_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(16)))
    for processes, threads in ((2, 8), (4, 4), (16, 1), (32, 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        share_cores()
        assert torch.get_num_threads() == threads


@pytest.mark.usefixtures("restored_threads")
def test_a_single_process_keeps_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    torch.set_num_threads(1)
    share_cores()
    assert torch.get_num_threads() == 1


def test_deterministic_algorithms_are_torchs_own_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    assert not torch.are_deterministic_algorithms_enabled()
    use_deterministic_algorithms()
    try:
        assert torch.are_deterministic_algorithms_enabled()
        assert "CUBLAS_WORKSPACE_CONFIG" in os.environ
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("mode", "device", "images", "expected"),
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
    mode: str, device: str, images: int, expected: bool
) -> None:
    assert should_compile(mode, device, images) is expected  # type: ignore[arg-type]


@pytest.mark.slow
def test_without_a_compiler_the_run_goes_on_and_says_so(
    start_training: Callable[..., subprocess.Popen[str]],
    wait_for_exit: Callable[..., tuple[str, str]],
    tmp_path: Path,
) -> None:
    words = ["--variant", "cifar-lrn", "--epochs", "1", "--batch", "8", "--compile", "on"]
    process = start_training(
        tmp_path / "home",
        *words,
        PATH="/nonexistent",
        CC="/nonexistent/cc",
    )
    printed, errors = wait_for_exit(process)
    assert "not compiled: there is no C compiler /nonexistent/cc" in printed
    assert "epoch   1/1" in printed
    assert errors == ""


@pytest.mark.usefixtures("restored_threads")
def test_a_process_with_threads_on_all_cores_has_none_to_prepare_batches_on_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("training.optimisation.device.cores", lambda: 2)
    for threads, device, expected in (
        (2, "cpu", True),
        (1, "cpu", False),
        (2, "meta", False),
    ):
        torch.set_num_threads(threads)
        assert trains_on_all_cores(torch.device(device)) is expected
    monkeypatch.setattr("training.optimisation.device.cores", lambda: 1)
    assert not trains_on_all_cores(torch.device("cpu"))
