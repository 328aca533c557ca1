"""float16 rows become float32 with torch and without, also while another thread imports torch."""

import subprocess
import sys

WHILE_IMPORTED = """
import sys, threading
import numpy as np
from index.vectors import widen

assert "torch" not in sys.modules
rows = np.random.default_rng(0).standard_normal((500, 4096)).astype(np.float16)
# Every number that is finite, zeros of both signs and subnormal ones among them.
every = np.arange(65536, dtype=np.uint16).view(np.float16)
rows.ravel()[:65536] = np.where(np.isfinite(every), every, 0)
truth, ways = rows.astype(np.float32), set()


def is_same(found, wanted):
    return np.array_equal(found.view(np.uint32), wanted.view(np.uint32))


assert is_same(widen(truth), truth)
assert is_same(widen(rows[::3]), truth[::3])
thread = threading.Thread(target=__import__, args=("torch",))
thread.start()
while True:
    ways.add("torch" in sys.modules)
    assert is_same(widen(rows), truth)
    if not thread.is_alive():
        break
out = np.empty_like(truth)
assert widen(rows, out) is out and is_same(out, truth)
print(True in ways)
"""


def test_rows_are_the_same_however_they_are_widened() -> None:
    done = subprocess.run([sys.executable, "-c", WHILE_IMPORTED], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
