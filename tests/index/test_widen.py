"""float16 rows become float32 with torch and without, also while another thread imports torch."""

import subprocess
import sys

WHILE_IMPORTED = """
import sys, threading
import numpy as np
from index.vectors import widen

assert "torch" not in sys.modules
rows = np.random.default_rng(0).standard_normal((500, 4096)).astype(np.float16)
truth, ways = rows.astype(np.float32), set()
thread = threading.Thread(target=__import__, args=("torch",))
thread.start()
while True:
    ways.add("torch" in sys.modules)
    assert np.array_equal(widen(rows), truth)
    if not thread.is_alive():
        break
out = np.empty_like(truth)
assert widen(rows, out) is out and np.array_equal(out, truth)
print(True in ways)
"""


def test_rows_are_the_same_however_they_are_widened() -> None:
    done = subprocess.run([sys.executable, "-c", WHILE_IMPORTED], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
