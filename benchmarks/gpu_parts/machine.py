"""The machine: its card, cores and versions, and the two rates that limit everything else."""

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import torch

from benchmarks.gpu_harness.job import ROOT, Job
from benchmarks.gpu_parts.cards import find_peak
from benchmarks.gpu_parts.timing import median_seconds
from storage.machine import read_processor_name
from storage.parallel import cores
from training.optimisation.device import has_bf16
from training.records.run_folder import read_commit

COMMIT = ROOT / "COMMIT"
"""Written by the pack, whose folder is not a clone."""
PACKAGES = ("torch", "torchvision", "triton", "numpy", "pillow", "safetensors", "faiss-gpu")
NVIDIA_SMI = (
    "nvidia-smi",
    "--query-gpu=name,memory.total,driver_version,clocks.max.sm,power.limit,compute_cap",
    "--format=csv,noheader",
)


def measure(job: Job) -> None:
    """Describe the machine, and measure a large product and a large copy."""
    device = job.torch_device
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else read_processor_name()
    job.record(
        card=name,
        cards=torch.cuda.device_count(),
        python=platform.python_version(),
        system=platform.platform(),
        processor=read_processor_name(),
        cores=cores(),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        packages={package: read_version(package) for package in PACKAGES},
        cuda=torch.version.cuda,
        nccl=".".join(map(str, torch.cuda.nccl.version())) if cuda else None,  # type: ignore[no-untyped-call]
        cudnn=torch.backends.cudnn.version() if cuda else None,  # type: ignore[no-untyped-call]
        bf16=has_bf16(device),
        compiler=shutil.which("gcc") or shutil.which("cc") or "none",
        peak_bf16=find_peak(name),
        commit=COMMIT.read_text() if COMMIT.exists() else read_commit(),
    )
    if cuda:
        done = subprocess.run(NVIDIA_SMI, capture_output=True, text=True, check=False)
        properties = torch.cuda.get_device_properties(device)
        job.record(
            nvidia_smi=done.stdout.strip().splitlines(),
            gpu_memory_gib=round(properties.total_memory / 2**30, 1),
            multiprocessors=properties.multi_processor_count,
        )
    small = job.quick or not cuda
    job.record(
        product_bf16=measure_product(device, 512 if small else 8192, torch.bfloat16),
        product_tf32=measure_product(device, 512 if small else 8192, torch.float32, tf32=True),
        product_f32=measure_product(device, 512 if small else 8192, torch.float32),
        copy_bytes_per_second=measure_copy(device, 2**22 if small else 2**32),
    )
    print(job.figures, file=sys.stderr)  # noqa: T201


def read_version(package: str) -> str | None:
    """Return a package's version; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def measure_product(
    device: torch.device, side: int, dtype: torch.dtype, tf32: bool = False
) -> float:
    """Measure a product of square matrices of random numbers, in FLOP/s."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    seconds = median_seconds(lambda: a @ b, device, rounds=10)
    torch.backends.cuda.matmul.allow_tf32 = before
    return 2 * side**3 / seconds


def measure_copy(device: torch.device, size: int) -> float:
    """Measure a copy within the device's memory, in bytes read and written a second."""
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / median_seconds(lambda: target.copy_(source), device, rounds=10)
