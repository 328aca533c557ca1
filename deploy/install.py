"""`python deploy/install.py`: install the project and what it needs into this Python's environment.

Where `nvidia-smi` finds no GPU, FAISS comes without its part for GPUs, and torch without CUDA if a
build without is offered: by the registry that pip is configured with, or by the index that the
variable TORCH_INDEX names. Otherwise torch comes with CUDA, which a machine without a GPU does not
use; that is said, with the switch that avoids it. The Makefile and the Dockerfile call this.

With `--serving`, what only training, indexing and preparing need is left out: for machines that
serve a home that was prepared elsewhere (docs/serving.md).
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CPU_SUFFIX = "+cpu"
"""What the version of a build of torch without CUDA ends with."""
TORCH_PACKAGES = ("torch", "torchvision")
PACKAGES_FOR_TRAINING = {
    "torch": "torch",
    "torchvision": "torchvision",
    "opentsne": "openTSNE",
    "protobuf": "google.protobuf",
    "scikit-image": "skimage",
    "scikit-learn": "sklearn",
    "tensorboard": "tensorboard",
    "tyro": "tyro",
    "webdataset": "webdataset",
}
"""Packages that no page and no answer needs once a network is prepared, and their modules."""
CUDA_NOTE = (
    "There is no NVIDIA GPU here, but pip is offered no build of torch without CUDA, so that it "
    "downloads CUDA's libraries for nothing; Ctrl-C ends that."
)
HOW = (
    "The selector on PyTorch's site names the package index with builds for CPUs: set the variable "
    "TORCH_INDEX to its address, as in `make demo TORCH_INDEX=https://…`."
)
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


def main() -> None:
    """Install."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--build",
        choices=("auto", "cpu", "cuda"),
        default=os.environ.get("TORCH") or "auto",
        help="builds of torch and FAISS: without CUDA, with it, or as nvidia-smi says; by default "
        "the variable TORCH",
    )
    parser.add_argument(
        "--torch-index",
        default=os.environ.get("TORCH_INDEX", ""),
        metavar="URL",
        help="package index with builds of torch without CUDA; by default the variable TORCH_INDEX",
    )
    parser.add_argument("--extra", action="append", default=[], help="extra of pyproject.toml")
    parser.add_argument(
        "--serving", action="store_true", help="leave out what only training and indexing need"
    )
    parser.add_argument("--no-project", action="store_true", help="install only what it needs")
    parser.add_argument("--print", action="store_true", help="print the requirements, install none")
    options = parser.parse_args()
    cpu = options.build == "cpu" or (options.build == "auto" and not finds_gpu())
    index = ("--extra-index-url", options.torch_index) if options.torch_index else ()
    requirements = list_requirements(options.extra)
    if options.serving:
        requirements = [one for one in requirements if get_name(one) not in PACKAGES_FOR_TRAINING]
    if cpu and not is_cpu_only_platform():
        requirements = [choose_cpu_build(one) for one in requirements]
        if not is_offered([one for one in requirements if one.endswith(CPU_SUFFIX)], index):
            if options.build == "cpu":
                sys.exit(f"{options.torch_index or 'pip'}: no build of torch without CUDA. {HOW}")
            sys.stderr.write(f"{CUDA_NOTE} {HOW}\n")
            requirements = [one.replace(CPU_SUFFIX, "") for one in requirements]
    if options.print:
        sys.stdout.write("\n".join(requirements) + "\n")
        return
    pip_install("-c", ROOT / "constraints.txt", *index, *requirements)
    if not options.no_project:
        pip_install("--no-deps", "-e", ROOT)


def finds_gpu() -> bool:
    """Whether nvidia-smi lists a GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    done = subprocess.run([program, "-L"], capture_output=True, text=True, check=False)
    return done.returncode == 0 and "GPU" in done.stdout


def is_cpu_only_platform() -> bool:
    """Whether the ordinary packages have no CUDA anyway."""
    return platform.system() != "Linux"


def list_requirements(extras: list[str]) -> list[str]:
    """Return what pyproject.toml says is needed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: list[str] = list(project["dependencies"])
    for extra in extras:
        found += project["optional-dependencies"][extra]
    return found


def get_name(requirement: str) -> str:
    """Return the package that a requirement is of."""
    return re.split(r"[\[=<>; ]", requirement)[0]


def choose_cpu_build(requirement: str) -> str:
    """Return the requirement of the same package without CUDA."""
    name = get_name(requirement)
    if name in TORCH_PACKAGES:
        return f"{requirement}{CPU_SUFFIX}"
    if name == "faiss-gpu":
        return requirement.replace("faiss-gpu", "faiss-cpu")
    return requirement


def is_offered(requirements: list[str], index: tuple[str, ...]) -> bool:
    """Whether pip finds these packages."""
    asked = [*PIP, "install", "--dry-run", "--no-deps", "--ignore-installed", *index]
    done = subprocess.run([*asked, *requirements], capture_output=True, check=False)
    return done.returncode == 0


def pip_install(*words: str | Path) -> None:
    """Install, showing pip's progress."""
    done = subprocess.run([*PIP, "install", *words], check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
