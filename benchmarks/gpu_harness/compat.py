"""Fit this project to a machine: to an older torch, and a carried FAISS to torch's CUDA.

Import it before anything of model/ or training/. As a command it runs a script of this project:
`python -m benchmarks.gpu_harness.compat SCRIPT ARGUMENTS`.
"""

import runpy
import sys
from pathlib import Path

import torch
import torch.distributed._functional_collectives as collectives

from benchmarks.gpu_harness import SITE
from benchmarks.gpu_harness.libraries import fit_faiss_to_cuda

if (SITE / "faiss").exists():
    fit_faiss_to_cuda(SITE, torch.version.cuda or "")
if not hasattr(collectives, "all_gather_single"):
    # Before torch 2.12 it had another name.
    collectives.all_gather_single = collectives.all_gather_tensor


def main() -> None:
    """Run the script that the command line names, with its arguments."""
    script = Path(sys.argv[1])
    sys.argv = sys.argv[1:]
    sys.path[0] = str(script.resolve().parent)
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main()
