"""State dicts: tensors by name, as torch saves them or as a safetensors file.

A file of torch's is a pickle, which could run any code when it is read. Only tensors are taken out
of it, with torch's own unpickler for that (`weights_only`); whatever else it holds is refused.
"""

import json
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.dataset.folder import ClassName
from model.formats.network import ForeignNetwork, FormatError, count_classes, fit_tensors
from model.network.architectures import VARIANTS
from model.network.config import CIFAR_NETS, AlexNetConfig, ConfigError
from model.weights.checkpoint import list_network_shapes, read_tensors
from model.weights.header import parse_dataclass

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Entries in which training scripts commonly save a state dict beside other things."""
PARALLEL_PREFIX = "module."
"""What torch's data parallelism puts before every name."""
MAX_PICKLE_BYTES = 2 << 30
"""Bytes that a zipped file may unpack to: AlexNet with 21,841 classes in float64 has 1.2 GB."""
FORBIDDEN_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
"""How torch's unpickler names what a pickle wanted to import."""
UNKNOWN_PICKLE = re.compile(r"WeightsUnpickler error:\s*(.+)")
"""How it names anything else that it does not read."""
PICKLE_ERRORS = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, ImportError, LookupError),
    *(MemoryError, OSError, RuntimeError, TypeError, ValueError),
    *(pickle.UnpicklingError, struct.error, zipfile.BadZipFile),
)
"""What torch raises on broken bytes; its reader parses as it goes."""


def read_pickle(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file that `torch.save` wrote, without running any code in it.

    Raises FormatError if it is damaged, or holds anything but tensors.
    """
    try:
        check_unpacked_size(path)
        with warnings.catch_warnings():
            # torch warns of pickles of other protocols than its own, which it then refuses.
            warnings.simplefilter("ignore", UserWarning)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except PICKLE_ERRORS as error:
        if wanted := FORBIDDEN_GLOBAL.search(str(error)):
            raise FormatError(
                f"{path} is refused: it is a pickle that would run {wanted[1]} when it is read; "
                "only tensors are read"
            ) from error
        if unknown := UNKNOWN_PICKLE.search(str(error)):
            raise FormatError(
                f"{path} is refused: it is a pickle of another kind than torch's "
                f"({unknown[1].strip()}); only tensors that torch has saved are read"
            ) from error
        reason = re.split(r"\. |\n", str(error))[0].strip() or type(error).__name__
        raise FormatError(f"{path} cannot be read as a file of tensors: {reason}") from error
    return select_tensors(content, path)


def check_unpacked_size(path: Path) -> None:
    """Raise FormatError for a zip file that unpacks to far more than it should."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        total = sum(entry.file_size for entry in archive.infolist())
    if total > MAX_PICKLE_BYTES:
        raise FormatError(
            f"{path} is refused: it unpacks to {total / 1e9:.1f} GB, more than any AlexNet has"
        )


def select_tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the state dict in what a file holds. Raises FormatError if it holds none."""
    if isinstance(content, Mapping):
        wrapped = next((content[key] for key in WRAPPERS if key in content), content)
        content = wrapped if isinstance(wrapped, Mapping) else content
    if not isinstance(content, Mapping) or not content:
        raise FormatError(f"{path} holds no state dict: tensors by their names")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise FormatError(f"{path} holds no state dict: {str(name)[:60]} is not a tensor")
    tensors = {str(name): value.detach() for name, value in content.items()}
    if all(name.startswith(PARALLEL_PREFIX) for name in tensors):
        tensors = {name.removeprefix(PARALLEL_PREFIX): value for name, value in tensors.items()}
    return tensors


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors of a safetensors file and its metadata. Raises WeightsError."""
    metadata, tensors = read_tensors(path)
    return select_tensors(tensors, path), metadata


def read_own_names(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], path: Path, variant: str | None
) -> ForeignNetwork:
    """Read a state dict of this project's names: conv1.weight, …, fc8.bias.

    The network is the one named by `variant`, else by the file's metadata, else the first variant
    whose tensors have these shapes. Raises FormatError.
    """
    described = read_description(metadata, path)
    assumptions: tuple[str, ...] = ()
    if variant is None and described is not None:
        config = described
    elif variant is not None:
        config = set_classes(VARIANTS[variant].config, tensors, path)
    else:
        config, assumptions = guess_network(tensors, path)
    return ForeignNetwork(
        config=config,
        state=fit_tensors(tensors, config, path),
        source=f"the state dict {path.name}",
        classes=read_classes(metadata, path),
        assumptions=assumptions,
    )


def read_description(metadata: Mapping[str, str], path: Path) -> AlexNetConfig | None:
    """Read the network's configuration, if the metadata has it. Raises FormatError."""
    if "config" not in metadata:
        return None
    try:
        return parse_dataclass(AlexNetConfig, json.loads(metadata["config"]))
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise FormatError(f"{path}: its description of the network is wrong: {error}") from error


def read_classes(metadata: Mapping[str, str], path: Path) -> tuple[ClassName, ...] | None:
    """Read the classes' names, if the metadata has them. Raises FormatError."""
    if "classes" not in metadata:
        return None
    try:
        pairs = [(str(folder), str(label)) for folder, label in json.loads(metadata["classes"])]
    except (TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"{path}: its list of classes is wrong: {error}") from error
    return tuple(ClassName(*pair) for pair in pairs)


def guess_network(
    tensors: Mapping[str, Tensor], path: Path
) -> tuple[AlexNetConfig, tuple[str, ...]]:
    """Find the variants whose tensors have these shapes; the first counts.

    Returns its configuration and what had to be assumed. Raises FormatError if none fits.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    configs = {n: set_classes(v.config, tensors, path) for n, v in VARIANTS.items()}
    fitting = [name for name, config in configs.items() if list_network_shapes(config) == shapes]
    if not fitting:
        fit_tensors(tensors, configs["paper"], path)  # raises: it names what does not fit
    first, *others = fitting
    if not others:
        return configs[first], ()
    return configs[first], (
        f"Its tensors fit {', '.join(fitting)}; taken for {first}. --variant names another.",
    )


def set_classes(config: AlexNetConfig, tensors: Mapping[str, Tensor], path: Path) -> AlexNetConfig:
    """Return a variant's configuration with as many classes as the tensors have outputs."""
    last = "fc10.bias" if config.net in CIFAR_NETS else "fc8.bias"
    if last not in tensors:
        return config
    try:
        return replace(config, classes=count_classes(tensors, last, path))
    except ConfigError as error:
        raise FormatError(f"{path}: {error}") from error
