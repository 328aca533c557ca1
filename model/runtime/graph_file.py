"""A network's graphs in a file, which a process compiles without torch.

The file of the weights is mapped, so that all processes of a server share its memory; its checksum
is verified first. It holds the float32 weights, 228 MB for the paper's network.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import openvino as ov

from model.runtime.openvino_runtime import NetworkGraphs
from model.runtime.protocol import Floats, RuntimeUnavailableError
from storage.files import fsync

CONV1 = "conv1"
"""The name of the constant that holds the kernels of the layer that sees the image."""
SUFFIXES = (".xml", ".bin")
"""Of a graph's two files: its operations, and their weights."""
MAX_GRAPHS = 2
"""Networks whose graphs are kept: that in service, and the one before or the next."""


@dataclass(frozen=True)
class StoredGraphs:
    """The graphs of a file; `file` is the one of its operations.

    Raises RuntimeUnavailableError for a file that OpenVINO cannot read.
    """

    file: Path

    def open_ten_crops(self) -> ov.Model:
        """Read the graph of the ten crops."""
        return self.open_part(0, slice(0, 2))

    def open_centre_crop(self) -> ov.Model:
        """Read the graph of the centre crop."""
        return self.open_part(1, slice(2, 3))

    def open_layers(self) -> ov.Model:
        """Read the graph of all layers."""
        return self.open_part(2, slice(3, None))

    def open_part(self, place: int, outputs: slice) -> ov.Model:
        """Read one of the graphs that `save_graphs` joined."""
        whole = self.read()
        inputs, results = whole.get_parameters(), whole.get_results()[outputs]
        if len(inputs) != 3 or not results:
            raise RuntimeUnavailableError(f"{self.file} holds other graphs")
        return ov.Model(results, [inputs[place]], f"graph {place}")

    def read_conv1(self) -> Floats:
        """Read the kernels of the layer that sees the image: float32 [96, 3, 11, 11]."""
        for node in self.read().get_ops():
            if node.get_friendly_name() == CONV1:
                return np.array(node.data, np.float32)
        raise RuntimeUnavailableError(f"{self.file} does not hold the first kernels")

    def read(self) -> ov.Model:
        """Read the file; its weights are mapped."""
        try:
            return ov.Core().read_model(self.file)
        except RuntimeError as error:
            raise RuntimeUnavailableError(f"OpenVINO cannot read {self.file}: {error}") from error


def save_graphs(graphs: NetworkGraphs, conv1: Floats, file: Path) -> str:
    """Store a network's graphs in `file`, which ends in .xml; return their checksum.

    conv1: the kernels by which the constant that holds them is found. Older graphs of the folder
    are deleted beyond MAX_GRAPHS. Raises OSError, and RuntimeUnavailableError for a network that
    has no graphs.
    """
    # What they share, the weights, is stored once.
    parts = [graphs.open_ten_crops(), graphs.open_centre_crop(), graphs.open_layers()]
    parameters = [one for part in parts for one in part.get_parameters()]
    results = [one for part in parts for one in part.get_results()]
    whole = ov.Model(results, parameters, "ten crops, centre crop, layers")
    for node in whole.get_ops():
        if node.get_type_name() == "Constant" and tuple(node.get_output_shape(0)) == conv1.shape:
            node.set_friendly_name(CONV1)
    file.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".graph-", dir=file.parent) as folder:
        part = Path(folder) / file.name
        with explain_failed_save(file):
            # Its default would round the weights to float16.
            ov.save_model(whole, part, compress_to_fp16=False)
        checksum = digest_graph(part)
        for suffix in SUFFIXES:
            fsync(part.with_suffix(suffix))
            part.with_suffix(suffix).replace(file.with_suffix(suffix))
    delete_old_graphs(file)
    return checksum


@contextmanager
def explain_failed_save(file: Path) -> Iterator[None]:
    """Turn what OpenVINO raises when a file cannot be written into OSError."""
    try:
        yield
    except RuntimeError as error:
        free = shutil.disk_usage(file.parent).free
        raise OSError(
            f"{file} cannot be written, with {free / 1e6:.0f} MB free: {error}"
        ) from error


def digest_graph(file: Path) -> str:
    """Compute the checksum of both files of a graph: 64 hex digits. Raises OSError."""
    digest = hashlib.sha256()
    for suffix in SUFFIXES:
        with file.with_suffix(suffix).open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def delete_old_graphs(newest: Path) -> None:
    """Delete the graphs of a folder that were used longest ago, beyond MAX_GRAPHS."""
    os.utime(newest)
    graphs = sorted(newest.parent.glob("*.xml"), key=lambda file: file.stat().st_mtime)
    for file in graphs[:-MAX_GRAPHS]:
        for suffix in SUFFIXES:
            file.with_suffix(suffix).unlink(missing_ok=True)
