"""What the machine offers."""

import platform
import subprocess
import sys

import pytest
import torch

from training.machine import has_bf16

MAPPED = """if True:
    import ctypes
    import sys

    import torch

    from training.machine import keep_memory

    class Mallinfo2(ctypes.Structure):
        names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
        _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = Mallinfo2
    if sys.argv[1] == "keep":
        assert keep_memory()
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
