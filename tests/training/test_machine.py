"""What the machine offers."""

import subprocess
import sys

import pytest
import torch

from training.machine import has_bf16


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_is_kept() -> None:
    # In a process of its own, since the setting lasts: blocks of 64 MB, which the allocator
    # otherwise maps anew each time, come from memory whose pages are there already.
    code = """if True:
        import resource
        import sys

        import torch

        from training.machine import keep_memory

        if sys.argv[1] == "keep":
            assert keep_memory()
        for _ in range(5):
            torch.ones(16_000_000)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            torch.ones(16_000_000)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    """

    def faults(how: str) -> int:
        command = [sys.executable, "-c", code, how]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults("keep") < faults("return") / 4


def test_bf16_only_where_it_is_native() -> None:
    assert has_bf16(torch.device("cpu")) in (True, False)
    assert not has_bf16(torch.device("mps"))
