"""Weights and everything needed to use them, in one safetensors file.

Besides the network's tensors the file holds the mean image and the PCA of its training set, and
in its header, as JSON, the configuration, the class names and the weights' provenance. Nothing
is ever unpickled. The tensors may be coded in fewer bytes (model/weights/compressed.py).
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from model.dataset.folder import ClassName
from model.network.alexnet import AlexNet
from model.network.config import AlexNetConfig, ConfigError
from model.weights.compressed import CodingError, compress_tensors, decompress_tensors
from model.weights.header import (
    COMPRESSION,
    COMPRESSION_FORMAT,
    WEIGHTS_FORMAT,
    Provenance,
    WeightsError,
    describe_network,
    describe_provenance,
    open_safetensors,
    parse_header,
)
from storage.files import replace_atomically

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""What safetensors' headers call a dtype."""
MEAN, EIGENVALUES, EIGENVECTORS = "mean_image", "pca.eigenvalues", "pca.eigenvectors"


@dataclass(frozen=True)
class Pca:
    """Principal components of the RGB values of the training set (§4.1), scaled to 0–1.

    eigenvalues:  float32 [3], descending: λ.
    eigenvectors: float32 [3, 3], one per column: p.
    """

    eigenvalues: Tensor
    eigenvectors: Tensor


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A trained network and what is needed to use it.

    mean:  float32 [3, side, side], the training set's mean image, 0–255.
    state: the network's tensors by name, float32.
    """

    config: AlexNetConfig
    classes: tuple[ClassName, ...]
    mean: Tensor
    pca: Pca
    provenance: Provenance
    state: Mapping[str, Tensor]

    @property
    def identity(self) -> str:
        """A digest, 32 hex digits, of everything that the network's predictions depend on."""
        digest = hashlib.sha256(json.dumps(describe_network(self), sort_keys=True).encode())
        for name, tensor in sorted(collect_tensors(self).items()):
            digest.update(name.encode())
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()[:32]

    def build_network(self) -> AlexNet:
        """Build the network with these weights, in evaluation mode."""
        with torch.device("meta"):
            net = AlexNet(self.config)
        net.load_state_dict(dict(self.state), assign=True)
        return net.eval()


def save_weights(weights: Weights, path: Path, *, compressed: bool = False) -> None:
    """Write weights to a temporary file, make it durable, then rename it into place.

    compressed: code the tensors in fewer bytes, without loss. Worth it for weights whose layers
    are pruned and share few values, as training/compress.py makes them.

    Raises OSError if it cannot be written; then nothing is left behind.
    """
    header = {
        "format": str(WEIGHTS_FORMAT),
        "identity": weights.identity,
        "provenance": json.dumps(describe_provenance(weights.provenance)),
        **{key: json.dumps(value) for key, value in describe_network(weights).items()},
    }
    tensors = collect_tensors(weights)
    if compressed:
        entry = {
            "version": COMPRESSION_FORMAT,
            "coding": "pruned and shared weights, Huffman-coded; see docs/training.md",
            "shapes": {name: list(tensor.shape) for name, tensor in tensors.items()},
        }
        header[COMPRESSION] = json.dumps(entry)
        tensors = compress_tensors(tensors)
    write_tensors(tensors, path, header)


def write_tensors(
    values: Mapping[str, Tensor],
    path: Path,
    header: dict[str, str],
    *,
    keep_as: Path | None = None,
) -> None:
    """Write a safetensors file atomically and durably; the old one stays as `keep_as`.

    Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replace_atomically(path, keep_as=keep_as) as part:
            # safetensors makes its files private; give this one the default mode of a new file.
            part.unlink(missing_ok=True)
            part.touch()
            mode = part.stat().st_mode & 0o777
            save_file({k: v.contiguous() for k, v in values.items()}, part, metadata=header)
            part.chmod(mode)
    except SafetensorError as error:
        raise OSError(f"cannot write {path}: {error}") from error


def load_weights(path: Path) -> Weights:
    """Read a weights file, compressed or not.

    Raises WeightsError if it does not exist, is damaged, is from another version, or if its
    tensors do not match its configuration.
    """
    metadata, values = read_tensors(path)
    header = parse_header(metadata, path)
    try:
        shapes = list_shapes(header.config)
        if header.compressed:
            values = decompress_tensors(values, shapes)
    except (ConfigError, CodingError) as error:
        raise WeightsError(f"{path}: {error}") from error
    try:
        weights = Weights(
            config=header.config,
            classes=header.classes,
            provenance=header.provenance,
            mean=values.pop(MEAN),
            pca=Pca(values.pop(EIGENVALUES), values.pop(EIGENVECTORS)),
            state=values,
        )
    except KeyError as error:
        raise WeightsError(f"{path} is not a weights file of this project: {error}") from error
    check_shapes(weights, shapes, path)
    # A changed codebook would change thousands of weights, and nothing else would show it.
    if header.compressed and weights.identity != header.identity:
        raise WeightsError(f"{path} is damaged: its tensors are not those that it was written with")
    return weights


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read the header and the tensors of a safetensors file. Raises WeightsError.

    The tensors are read, not mapped: a file that is overwritten or cut while it is in use would
    change mapped tensors, or kill the process.
    """
    with open_safetensors(path) as file:
        metadata, slices = file.metadata() or {}, {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
        shapes = {key: known.get_shape() for key, known in slices.items()}
    try:
        with path.open("rb") as raw:
            before = os.fstat(raw.fileno())
            header_bytes = int.from_bytes(raw.read(8), "little")
            entries = json.loads(raw.read(header_bytes))
            tensors = {
                key: read_tensor(raw, 8 + header_bytes, entries[key]).reshape(shape)
                for key, shape in shapes.items()
            }
            after = os.fstat(raw.fileno())
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise WeightsError(f"{path} changed while it was read: {error}") from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise WeightsError(f"{path} changed while it was read")
    return metadata, tensors


def read_tensor(file: BinaryIO, start: int, entry: Mapping[str, Any]) -> Tensor:
    """Read one tensor, flat, as its entry in the header describes it; the data begin at `start`.

    Raises KeyError, OSError, and EOFError if the file is too short.
    """
    first, end = entry["data_offsets"]
    content = torch.empty(end - first, dtype=torch.uint8)
    file.seek(start + first)
    if file.readinto(content.numpy()) != end - first:  # type: ignore[attr-defined]
        raise EOFError("it is too short")
    return content.view(DTYPES[entry["dtype"]])


def list_shapes(config: AlexNetConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a weights file, by its name in the file.

    Raises ConfigError for sizes that no tensor can have.
    """
    mean = (3, config.side, config.side)
    return list_network_shapes(config) | {MEAN: mean, EIGENVALUES: (3,), EIGENVECTORS: (3, 3)}


def list_network_shapes(config: AlexNetConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a network by name. Raises ConfigError as above."""
    try:
        with torch.device("meta"):
            return {k: tuple(v.shape) for k, v in AlexNet(config).state_dict().items()}
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"no such network can be built: {error}") from error


def check_shapes(weights: Weights, expected: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Raise WeightsError unless every tensor is present in the shape the configuration requires."""
    actual = {name: tuple(tensor.shape) for name, tensor in collect_tensors(weights).items()}
    for name in sorted(set(actual) ^ set(expected)):
        state = "missing" if name in expected else "unexpected"
        raise WeightsError(f"{path}: tensor {name} is {state}")
    for name, shape in expected.items():
        if actual[name] != shape:
            raise WeightsError(f"{path}: {name} has shape {actual[name]}, expected {shape}")
    if any(tensor.dtype != torch.float32 for tensor in collect_tensors(weights).values()):
        raise WeightsError(f"{path}: every tensor must be float32")
    if len(weights.classes) != weights.config.classes:
        raise WeightsError(
            f"{path} has {len(weights.classes)} class names for {weights.config.classes} classes"
        )


def check_finite(weights: Weights) -> None:
    """Raise WeightsError if a value is NaN or infinite: such weights cannot classify anything."""
    for name, tensor in collect_tensors(weights).items():
        if not torch.isfinite(tensor).all():
            raise WeightsError(
                f"{name} contains NaN or infinity, as after a training run that diverged; "
                "train again with `python training/run.py`, perhaps at a lower --rate"
            )


def collect_tensors(weights: Weights) -> dict[str, Tensor]:
    """Collect the tensors of a weights file, by their names in the file."""
    pca = {EIGENVALUES: weights.pca.eigenvalues, EIGENVECTORS: weights.pca.eigenvectors}
    return {**weights.state, MEAN: weights.mean, **pca}
