"""Export weights for others: as a state dict, as ONNX, or described in a model card."""

import json
from pathlib import Path

import torch

from model.formats.model_card import write_model_card
from model.formats.onnx_export import ExportError, export_onnx
from model.formats.torchvision import rename_for_torchvision
from model.weights.checkpoint import Weights, write_tensors
from model.weights.header import describe_network
from storage.files import replace_atomically, write_atomically

EXPORT_SUFFIXES = {
    ".safetensors": "a state dict",
    ".pth": "a state dict for torch.load",
    ".onnx": "ONNX",
    ".md": "a model card",
}
"""What a file of each suffix becomes."""


def check_suffix(path: Path) -> None:
    """Raise ExportError unless the file's suffix says what to write."""
    if path.suffix not in EXPORT_SUFFIXES:
        known = ", ".join(f"{suffix} ({what})" for suffix, what in EXPORT_SUFFIXES.items())
        raise ExportError(f"{path}: its suffix must say what to write: {known}")


def export_weights(weights: Weights, path: Path, *, ten_crops: bool = False) -> str:
    """Write weights in the format that the file's suffix names; return a sentence about it.

    The state dict of a network of torchvision's has torchvision's names, and any other this
    project's. ten_crops: whether ONNX averages over the ten crops, instead of the centre crop.
    Raises ExportError and OSError.
    """
    check_suffix(path)
    if path.suffix == ".md":
        write_atomically(path, write_model_card(weights))
        return f"Wrote a model card to {path}."
    if path.suffix == ".onnx":
        difference = export_onnx(weights, path, ten_crops=ten_crops)
        crops = "ten crops" if ten_crops else "the centre crop"
        return (
            f"Wrote ONNX with {crops} to {path}; with ONNX Runtime its outputs differ by "
            f"{difference:.1e} at most."
        )
    write_state_dict(weights, path)
    return f"Wrote a state dict of {len(weights.state)} tensors to {path}."


def write_state_dict(weights: Weights, path: Path) -> None:
    """Write the network's tensors alone. Raises OSError."""
    state = dict(weights.state)
    if weights.config.net == "torchvision":
        state = rename_for_torchvision(state)
    if path.suffix == ".pth":
        with replace_atomically(path) as part:
            torch.save(state, part)
        return
    description = {key: json.dumps(value) for key, value in describe_network(weights).items()}
    write_tensors(state, path, {"format": "pt", **description})
