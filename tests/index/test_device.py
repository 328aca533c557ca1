"""Where the vectors go is decided from what there is, and a failing GPU is no failure."""

import faiss
import numpy as np
import pytest

from index.device import SPARE, Placement, Searcher, place

GIB = 1 << 30


@pytest.mark.parametrize(
    ("device", "gpus", "needed", "free", "on_gpu"),
    [
        ("auto", 0, GIB, 0, False),
        ("auto", 1, GIB, 8 * GIB, True),
        ("auto", 2, GIB, 8 * GIB, True),
        ("cuda", 1, GIB, 8 * GIB, True),
        ("cuda", 0, GIB, 0, False),
        ("cpu", 1, GIB, 8 * GIB, False),
        ("mps", 1, GIB, 8 * GIB, False),
        ("auto", 1, 8 * GIB, 8 * GIB, False),
        ("auto", 1, 8 * GIB - SPARE, 8 * GIB, True),
        ("auto", 1, 8 * GIB - SPARE + 1, 8 * GIB, False),
    ],
)
def test_placement(device: str, gpus: int, needed: int, free: int, on_gpu: bool) -> None:
    placement = place(device, gpus, needed, free)
    assert placement.on_gpu is on_gpu
    assert bool(placement.reason) is not on_gpu


def test_the_reason_says_what_lacks() -> None:
    assert place("auto", 0, 1, 0) == Placement(False, "FAISS sees no GPU")
    assert "5 bytes" in place("auto", 1, 5, 4).reason


class FailingGpu:
    """What FAISS does when a GPU runs out of memory in the middle of a search."""

    def search(self, queries: object, k: int) -> None:
        raise RuntimeError("cudaMalloc failed")


def test_a_gpu_that_fails_gives_way_to_the_cpu(caplog: pytest.LogCaptureFixture) -> None:
    flat = faiss.IndexFlatL2(4)
    flat.add(np.eye(4, dtype=np.float32))
    searcher = Searcher(flat, "cpu")
    searcher.searched = FailingGpu()
    distances, positions = searcher.search(np.eye(4, dtype=np.float32)[2:3], 1)
    assert positions.tolist() == [[2]]
    assert distances.tolist() == [[0]]
    assert not searcher.on_gpu
    assert "cudaMalloc failed" in caplog.text
