"""What runs the parts of benchmarks/gpu.py, packs what they need and makes a page of the report.

Packages that were carried along lie in `site` beside this project's folders; those that the machine
has itself come first.
"""

import sys
from pathlib import Path

SITE = Path(__file__).resolve().parents[2] / "site"
if SITE.is_dir() and str(SITE) not in sys.path:
    sys.path.append(str(SITE))
