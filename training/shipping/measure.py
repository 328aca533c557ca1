"""What is measured of the weights that ship: file, layers, conv1, and the photographs' size."""

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from model.dataset.folder import scan_folder
from model.visualization.kernels import (
    compute_colour_selectivity,
    compute_low_frequency_share,
    find_noise_share,
    split_towers,
)
from model.weights.checkpoint import load_weights
from storage.machine import read_processor_name

READINGS = 3
"""How often the file is read, to time it."""
MAX_PHOTOGRAPHS = 1000
"""Training photographs whose size is read."""


def measure_weights(file: Path) -> dict[str, Any]:
    """Measure a weights file, its layers and conv1: the content of measurements.json.

    read_seconds: the median time to read and decode the file, wall clock; read_cpu_seconds: the
    same in processor time. colour_selectivity: the mean of each tower's kernels. low_frequency: the
    share of their energy at low frequencies; noise has low_frequency_of_noise.
    """
    wall, cpu = [], []
    for _ in range(READINGS):
        start, used = time.perf_counter(), time.process_time()
        weights = load_weights(file)
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)
    kernels = weights.state["conv1.weight"]
    halves = split_towers(kernels, weights.config.towers)
    return {
        "bytes": file.stat().st_size,
        "parameters": sum(tensor.numel() for tensor in weights.state.values()),
        "read_seconds": round(statistics.median(wall), 2),
        "read_cpu_seconds": round(statistics.median(cpu), 2),
        "processor": read_processor_name(),
        "layers": [
            {
                "name": name.removesuffix(".weight"),
                "weights": tensor.numel(),
                "nonzero": int(tensor.count_nonzero()),
                "values": len(np.unique(tensor.numpy())),
            }
            for name, tensor in weights.state.items()
            if name.endswith(".weight")
        ],
        "colour_selectivity": [
            round(float(compute_colour_selectivity(half).mean()), 3) for half in halves
        ],
        "low_frequency": round(compute_low_frequency_share(kernels), 3),
        "low_frequency_of_noise": round(find_noise_share(*kernels.shape[2:]), 3),
    }


def measure_photographs(root: Path) -> dict[str, Any]:
    """Return the size that all training photographs have, [width, height]; None if they differ.

    Raises FolderError if the folder is not here, and OSError if a photograph cannot be read.
    """
    photographs = scan_folder(root).train
    sizes = set()
    for photograph in photographs[:: -(-len(photographs) // MAX_PHOTOGRAPHS)]:
        with Image.open(root / photograph.path) as image:
            sizes.add(image.size)
    return {"photograph_size": list(sizes.pop()) if len(sizes) == 1 else None}
