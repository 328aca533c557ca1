"""Make a weights file's content out of a file of others' weights, whatever its format.

The format is recognised by what the file contains, not by its name.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model.dataset.folder import ClassName, read_wordnet_labels
from model.formats.caffe import PUBLISHED, read_caffemodel, read_compressed_alexnet, read_mean_image
from model.formats.deep_compression import HEADER_BYTES, read_counts
from model.formats.network import ILSVRC, Colour, ForeignNetwork, FormatError
from model.formats.state_dict import (
    read_classes,
    read_own_names,
    read_pickle,
    read_safetensors,
)
from model.formats.torchvision import has_torchvision_names, read_torchvision
from model.network.architectures import VARIANTS
from model.weights.checkpoint import Pca, Weights, check_finite, load_weights
from model.weights.header import IMPORTED, UNKNOWN, Provenance

ZIP_START, PICKLE_START, HDF5_START = b"PK\x03\x04", b"\x80", b"\x89HDF"
CAFFE_STARTS = (b"\n", b"\x12", b"\xa2\x06")
"""The tags of a Caffe network's name, its first layer in the old format, or in the new one."""
READABLE = (
    "a state dict (safetensors, or .pth as torch saves it), a .caffemodel of bvlc_alexnet or "
    "bvlc_reference_caffenet, or bvlc_alexnet as Deep Compression published it"
)
COLOURS = 3


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What to take for granted about a file that does not say it.

    variant: the network, by its name in model/network/architectures.py. mean: the mean colour or
    mean image; None: that of the network's authors. classes: names of the outputs, in their order;
    None: those of ILSVRC-2012 for a thousand outputs. data: what it was trained on; None: what
    the file, or its digest, says.
    """

    variant: str | None = None
    mean: Colour | Path | None = None
    classes: tuple[ClassName, ...] | None = None
    data: str | None = None


@dataclass(frozen=True, kw_only=True)
class ImportedWeights:
    """Weights made of a file of others'.

    few_values: whether they compress well. assumptions: what was taken for granted, in sentences.
    """

    weights: Weights
    few_values: bool = False
    assumptions: tuple[str, ...] = ()


def import_weights(path: Path, options: ImportOptions | None = None) -> ImportedWeights:
    """Read a file of others' weights as this project's.

    Also reads this project's own weights files. Raises FormatError or WeightsError for a file that
    is missing, damaged, dangerous, of another format, or that does not fit its network.
    """
    options = options or ImportOptions()
    head = read_head(path)
    if is_safetensors(head):
        tensors, metadata = read_safetensors(path)
        if "format" in metadata and "provenance" in metadata:
            return ImportedWeights(weights=load_weights(path))
        digest = digest_file(path, "sha256")
        if has_torchvision_names(tensors):
            network = read_torchvision(tensors, path, digest, read_classes(metadata, path))
        else:
            network = read_own_names(tensors, metadata, path, options.variant)
        return finish(network, path, digest, options)
    digest = digest_file(path, "sha256")
    return finish(read_network(path, head, digest, options), path, digest, options)


def read_network(path: Path, head: bytes, digest: str, options: ImportOptions) -> ForeignNetwork:
    """Read a file that is not a safetensors file. Raises FormatError."""
    if head.startswith((ZIP_START, PICKLE_START)):
        tensors = read_pickle(path)
        if has_torchvision_names(tensors):
            return read_torchvision(tensors, path, digest)
        return read_own_names(tensors, {}, path, options.variant)
    if head.startswith(HDF5_START):
        raise FormatError(f"{path} is an HDF5 file, which is not read; what is read: {READABLE}")
    if read_counts(head) is not None or path.suffix == ".net":
        return read_compressed_alexnet(path)
    if path.suffix == ".caffemodel" or head.startswith(CAFFE_STARTS):
        variant = options.variant if options.variant in PUBLISHED else None
        return read_caffemodel(path, digest_file(path, "sha1"), variant)
    raise FormatError(f"{path} is of no format that is read: {READABLE}")


def finish(
    network: ForeignNetwork, path: Path, sha256: str, options: ImportOptions
) -> ImportedWeights:
    """Add to a network what a weights file has besides: classes, mean image, provenance.

    Raises FormatError for classes or a mean image that do not fit, or numbers that are not finite.
    """
    if options.variant and VARIANTS[options.variant].config.net != network.config.net:
        raise FormatError(f"{path} is {network.source}, not the network {options.variant}")
    classes, assumed = choose_classes(network, options, path)
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    weights = Weights(
        config=network.config,
        classes=classes,
        mean=make_mean_image(network, options.mean),
        # Unknown, and needed only to train on the same photographs: without noise.
        pca=Pca(torch.zeros(COLOURS), torch.eye(COLOURS)),
        provenance=Provenance(
            data=options.data or network.data,
            images=None,
            epochs=None,
            preset=IMPORTED,
            top1_error=None,
            top5_error=None,
            commit=UNKNOWN,
            created=now,
            source=network.source,
            source_sha256=sha256,
        ),
        state=network.state,
    )
    check_finite(weights)
    return ImportedWeights(
        weights=weights,
        few_values=network.few_values,
        assumptions=(*network.assumptions, *assumed),
    )


def choose_classes(
    network: ForeignNetwork, options: ImportOptions, path: Path
) -> tuple[tuple[ClassName, ...], tuple[str, ...]]:
    """Name a network's outputs; also return what had to be assumed. Raises FormatError."""
    count, classes = network.config.classes, options.classes or network.classes
    if classes is not None:
        if len(classes) != count:
            raise FormatError(f"{path} has {count:,} outputs, but {len(classes):,} classes' names")
        return tuple(classes), ()
    ilsvrc = tuple(ClassName(wnid, label) for wnid, label in read_wordnet_labels().items())
    if count == len(ilsvrc):
        if (options.data or network.data) == ILSVRC:
            return ilsvrc, ()
        return ilsvrc, (
            f"Its {count:,} outputs are taken for the classes of ILSVRC-2012 in order of their "
            "WordNet ids.",
        )
    numbered = tuple(ClassName(str(number), f"class {number}") for number in range(count))
    return numbered, (
        f"It does not name its {count:,} classes, which are numbered; --classes FILE names them.",
    )


def make_mean_image(network: ForeignNetwork, mean: Colour | Path | None) -> Tensor:
    """Return the mean image, float32 [3, side, side]. Raises FormatError for one that is not."""
    side = network.config.side
    if not isinstance(mean, Path):
        colour = torch.tensor(mean or network.mean, dtype=torch.float32)
        return colour[:, None, None].expand(COLOURS, side, side).contiguous()
    image = read_mean_file(mean, bgr=network.bgr)
    if image.shape != (COLOURS, side, side):
        raise FormatError(
            f"{mean} holds a mean image of {list(image.shape)}, expected {[COLOURS, side, side]}"
        )
    return torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))


def read_mean_file(path: Path, *, bgr: bool) -> np.ndarray:
    """Read a mean image as [3, height, width], red first: NumPy's format, or a protocol buffer.

    bgr: whether an array of NumPy's has blue first. Raises FormatError.
    """
    if read_head(path)[:6] != b"\x93NUMPY":
        return read_mean_image(path)
    try:
        image: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise FormatError(f"{path} cannot be read as an array: {error}") from error
    if image.ndim == COLOURS and image.shape[-1] == COLOURS and image.shape[0] != COLOURS:
        image = image.transpose(2, 0, 1)
    if not np.issubdtype(image.dtype, np.number) or not np.isfinite(image).all():
        raise FormatError(f"{path} holds {image.dtype}, not finite numbers")
    return image[::-1] if bgr else image


def read_head(path: Path) -> bytes:
    """Return the first bytes of a file. Raises FormatError if it cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(HEADER_BYTES)
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}") from error
    if not head:
        raise FormatError(f"{path} is empty")
    return head


def is_safetensors(head: bytes) -> bool:
    """Return whether a file begins as safetensors files do: a length, and then JSON."""
    return head[8:9] == b"{" and not head.startswith(ZIP_START)


def digest_file(path: Path, algorithm: str) -> str:
    """Return a file's digest in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def check_variant(name: str) -> str:
    """Return the name of a variant. Raises FormatError for one that does not exist."""
    if name not in VARIANTS:
        raise FormatError(f"there is no network {name}; choose from {', '.join(VARIANTS)}")
    return name
