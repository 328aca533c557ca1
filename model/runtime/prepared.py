"""Networks that were prepared for serving, so that a process that only answers imports no torch.

Preparing takes a process of its own, which measures the runtimes, stores the graph of the one
chosen and ends, and torch's memory with it. What it found is valid for one file of weights, by its
checksum, on one machine. Wherever that fails, the network is read with torch.

Where torch is not installed, what was prepared on another machine is taken as it is.
"""

import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from model.predict import Predictor
from model.runtime.machine import describe_machine
from model.runtime.names import TORCH
from model.runtime.protocol import (
    Runtime,
    RuntimeChoice,
    RuntimeUnavailableError,
    parse_runtime_choice,
)
from model.weights.header import WeightsError, read_weights_header
from storage.files import lock_file, write_atomically
from storage.tolerant_json import read_json_object

if TYPE_CHECKING:
    from model.runtime.graph_file import StoredGraphs
    from model.weights.checkpoint import Weights
    from model.weights.loaded_network import LoadedNetwork

ROOT = Path(__file__).resolve().parents[2]
EXACT = "openvino-f32"
"""The runtime that every processor has, and that agrees with torch."""
DEVICES = ("auto", "cpu")
"""Values of ALEXNET_DEVICE with which OpenVINO may compute."""
MAX_BYTES = 100_000
"""The largest record that is read."""
TIMEOUT = 600
"""Seconds that preparing may take."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Record:
    """What preparing found. graph: the graph's checksum; None where torch computes."""

    identity: str
    choice: RuntimeChoice
    graph: str | None


def open_predictor(
    file: Path,
    device: str,
    wish: str,
    folder: Path,
    load: "Callable[[Path], Weights]",
) -> Predictor:
    """Return a predictor of a weights file, without torch where its graph serves.

    device, wish: ALEXNET_DEVICE and ALEXNET_RUNTIME. folder: where graphs and measurements are
    stored. load: reads and checks the whole file. Raises WeightsError.
    """
    record = None
    if device in DEVICES and wish != TORCH and find_spec("openvino"):
        record = find_record(file, device, wish, folder)
        if record and (predictor := open_stored_graph(file, record, folder, load)):
            return predictor
    if not is_torch_installed():
        raise WeightsError(
            f"{file} is not prepared for serving in {folder}, and torch, which does that, is not "
            "installed; start the server once with these settings where it is, and copy the folder"
        )
    predictor = Predictor.from_weights(load(file), device, record.choice.name if record else wish)
    if record and predictor.choice.name == record.choice.name:
        predictor.choice = record.choice  # with what was measured
    return predictor


def is_torch_installed() -> bool:
    """Whether torch can be imported."""
    try:
        return find_spec("torch") is not None
    except ValueError:  # it is marked as missing in sys.modules
        return False


def find_record(file: Path, device: str, wish: str, folder: Path) -> Record | None:
    """Return what was found for a file of weights, preparing it if nothing was; None if it fails.

    Raises WeightsError if there is no such file.
    """
    place = locate_record(file, device, wish, folder)
    if (record := read_record(place)) or not is_torch_installed():
        return record
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with lock_file(folder / "prepare.lock"):
            # Another process may have prepared it meanwhile.
            if (record := read_record(place)) is None:
                prepare_weights(file, device, wish, folder)
                record = read_record(place)
            return record
    except OSError as error:
        logger.warning("The network cannot be prepared in %s: %s", folder, error.strerror or error)
        return None


def locate_record(file: Path, device: str, wish: str, folder: Path) -> Path:
    """Return where what was found for a file's content is stored. Raises WeightsError."""
    try:
        with file.open("rb") as content:
            checksum = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{file} cannot be read: {error.strerror}") from error
    return folder / f"{checksum[:32]}-{device}-{wish}.json"


def read_record(file: Path) -> Record | None:
    """Read what was found; None if nothing was, on another machine, or the file is damaged."""
    stored = read_json_object(file, MAX_BYTES)
    choice, graph = parse_runtime_choice(stored.get("choice")), stored.get("graph")
    identity = stored.get("identity")
    if choice is None:
        return None
    if is_torch_installed() and stored.get("machine") != describe_machine():
        return None
    if not isinstance(identity, str) or not (graph is None or isinstance(graph, str)):
        return None
    return Record(identity=identity, choice=choice, graph=graph)


def prepare_weights(file: Path, device: str, wish: str, folder: Path) -> None:
    """Prepare a file of weights in a process of its own; only warn if that fails."""
    words = [sys.executable, "-m", "model.runtime.prepare", str(file), device, wish, str(folder)]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        done = subprocess.run(
            words,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        logger.warning("Preparing %s took over %d seconds", file, TIMEOUT)
        return
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        logger.warning("%s could not be prepared: %s", file, reason)


def store_record(record: Record, file: Path) -> None:
    """Store what was found. Raises OSError."""
    values = {"machine": describe_machine(), **asdict(record)}
    write_atomically(file, json.dumps(values, indent=2) + "\n")


def open_stored_graph(
    file: Path, record: Record, folder: Path, load: "Callable[[Path], Weights]"
) -> Predictor | None:
    """Compile a network's stored graph; None, with a warning, if it is missing or damaged."""
    if record.graph is None:
        return None
    # Not above: OpenVINO is optional, and takes time and memory.
    from model.runtime.graph_file import StoredGraphs, digest_graph

    graphs = StoredGraphs(folder / f"{record.identity}.xml")
    try:
        header = read_weights_header(file)
        if digest_graph(graphs.file) != record.graph:
            raise RuntimeUnavailableError(f"{graphs.file} is damaged")
        runtime, choice = compile_graphs(graphs, record.choice)
        conv1 = graphs.read_conv1()
    except (OSError, RuntimeUnavailableError) as error:
        logger.warning("The stored graph of %s cannot be used: %s", file, error)
        return None

    def load_network() -> "LoadedNetwork":
        """Read the network with torch, for those that look into it."""
        from model.weights.loaded_network import LoadedNetwork

        weights = load(file)
        if weights.identity != record.identity:
            raise WeightsError(f"{file} no longer holds the weights in service")
        return LoadedNetwork.from_weights(weights, "cpu")

    return Predictor(header, record.identity, runtime, choice, "cpu", conv1, load_network)


def compile_graphs(graphs: "StoredGraphs", choice: RuntimeChoice) -> tuple[Runtime, RuntimeChoice]:
    """Compile as was chosen; without torch in float32 if this processor has no bf16.

    Raises RuntimeUnavailableError.
    """
    from model.runtime.openvino_runtime import OpenVinoRuntime

    try:
        return OpenVinoRuntime(graphs, choice.name), choice
    except RuntimeUnavailableError as error:
        if is_torch_installed() or choice.name == EXACT:
            raise
        reason = f"{choice.name} was chosen on another machine, but here {error}."
        return OpenVinoRuntime(graphs, EXACT), RuntimeChoice(name=EXACT, reason=reason)
