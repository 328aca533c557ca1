"""Caffe's bvlc_alexnet and bvlc_reference_caffenet: their `.caffemodel` files and mean images.

The files are protocol buffers. Their schema is Caffe's `caffe.proto`, of which only the few fields
that are needed are written down here, under the same numbers.

Caffe's authors trained with OpenCV, which has blue first. Here everything is turned around as it is
read, conv1's kernels and the mean image: the network's numbers stay the same, and whatever shows or
trains it further need not know.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from torch import Tensor

from model.formats.deep_compression import SHAPES, read_deep_compression
from model.formats.network import (
    ILSVRC,
    ForeignNetwork,
    FormatError,
    count_classes,
    fit_tensors,
)
from model.network.architectures import VARIANTS
from model.weights.header import UNKNOWN


class PublishedModel(NamedTuple):
    """A model that Caffe's authors published: what it is called, and its file's SHA-1."""

    name: str
    sha1: str


PUBLISHED = {
    "caffe-alexnet": PublishedModel("bvlc_alexnet", "9116a64c0fbe4459d18f4bb6b56d647b63920377"),
    "caffenet": PublishedModel(
        "bvlc_reference_caffenet", "4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46"
    ),
}
"""Caffe's two models, by this project's names for their networks."""
NORMALISATION = {"local_size": 5, "alpha": 1e-4, "beta": 0.75, "norm_region": 0, "k": 1.0}
"""The parameters of both networks' normalisation; its α is divided by n."""
NETWORKS_BY_INPUT = {"conv1": "caffe-alexnet", "pool1": "caffenet"}
"""Which network it is by what norm1 normalises: CaffeNet's pooling comes first."""
Floats = npt.NDArray[np.float32]


def read_caffemodel(path: Path, sha1: str, variant: str | None) -> ForeignNetwork:
    """Read a `.caffemodel` of either network, with any number of classes.

    variant: which of the two it is; None: the file says. Raises FormatError.
    """
    message = parse_message("Net", path)
    layers = [*message.layers, *message.layer]
    if not layers:
        raise FormatError(f"{path} is not a Caffe model: it holds no layers")
    check_normalisation(layers, path)
    variant = variant or find_caffe_variant(layers, path)
    tensors = read_layers(layers, path)
    published = PUBLISHED[variant]
    known = sha1 == published.sha1
    return make_caffe_network(
        tensors,
        variant,
        path,
        source=f"Caffe's {published.name}" + ("" if known else f", from {path.name}"),
        data=ILSVRC if known else UNKNOWN,
    )


def read_compressed_alexnet(path: Path) -> ForeignNetwork:
    """Read bvlc_alexnet as Deep Compression published it. Raises FormatError."""
    network = make_caffe_network(
        read_deep_compression(path),
        "caffe-alexnet",
        path,
        source="Caffe's bvlc_alexnet, compressed by Deep Compression",
        data=UNKNOWN,
    )
    return replace(network, few_values=True)


def make_caffe_network(
    tensors: Mapping[str, Tensor], variant: str, path: Path, *, source: str, data: str
) -> ForeignNetwork:
    """Describe a network of Caffe's, given its tensors in Caffe's order of colours."""
    classes = count_classes(tensors, "fc8.bias", path)
    config = replace(VARIANTS[variant].config, classes=classes, resize="warp")
    state = fit_tensors(tensors, config, path)
    state["conv1.weight"] = state["conv1.weight"].flip(1).contiguous()
    return ForeignNetwork(config=config, state=state, source=source, data=data, bgr=True)


def find_caffe_variant(layers: Sequence[Any], path: Path) -> str:
    """Return which of the two networks the layers are of. Raises FormatError."""
    for layer in layers:
        if layer.name == "norm1" and layer.bottom and layer.bottom[0] in NETWORKS_BY_INPUT:
            return NETWORKS_BY_INPUT[layer.bottom[0]]
    raise FormatError(
        f"{path} does not say whether it normalises before or after pooling; name its network "
        f"with --variant: {' or '.join(PUBLISHED)}"
    )


def check_normalisation(layers: Sequence[Any], path: Path) -> None:
    """Raise FormatError for a network that normalises otherwise than the two that are known."""
    for layer in layers:
        if layer.HasField("lrn_param"):
            for name, expected in NORMALISATION.items():
                found = getattr(layer.lrn_param, name)
                if not math.isclose(found, expected, rel_tol=1e-6):
                    raise FormatError(
                        f"{path} is neither of Caffe's two networks: {layer.name} has {name} "
                        f"{found:g}, expected {expected:g}"
                    )


def read_layers(layers: Sequence[Any], path: Path) -> dict[str, Tensor]:
    """Read weights and biases of conv1, …, fc8. Raises FormatError, naming what is wrong."""
    with_weights = {layer.name: layer.blobs for layer in layers if layer.blobs}
    tensors = {}
    for name, shape in SHAPES.items():
        blobs = with_weights.get(name, ())
        if len(blobs) != 2:
            found = ", ".join(sorted(with_weights)) or "none"
            raise FormatError(
                f"{path}: layer {name} is missing or has not weights and biases; it has {found}"
            )
        weights, biases = (read_blob(blob, f"{path}: {name}") for blob in blobs)
        # Older files give all shapes four dimensions.
        dimensions = [size for size in weights.shape if size > 1] if len(shape) == 2 else []
        if len(dimensions) == 2:
            weights = weights.reshape(dimensions)
        tensors[f"{name}.weight"] = torch.from_numpy(weights)
        tensors[f"{name}.bias"] = torch.from_numpy(biases.ravel())
    return tensors


def read_mean_image(path: Path) -> Floats:
    """Read a mean image as Caffe's tools write it: float32 [3, side, side], red first.

    Raises FormatError.
    """
    blob = read_blob(parse_message("Blob", path), str(path))
    image = blob.reshape(blob.shape[-3:]) if blob.ndim == 4 and len(blob) == 1 else blob
    if image.ndim != 3 or len(image) != 3:
        raise FormatError(f"{path} is not a mean image: it has the shape {list(blob.shape)}")
    return np.ascontiguousarray(image[::-1])


def read_blob(blob: Any, name: str) -> Floats:
    """Read a blob's numbers in its shape. Raises FormatError."""
    legacy = (blob.num, blob.channels, blob.height, blob.width)
    shape = tuple(blob.shape.dim) if blob.HasField("shape") else legacy
    kind, data = ("<f8", blob.double_data) if blob.double_data else ("<f4", blob.data)
    size = np.dtype(kind).itemsize
    if any(length < 1 for length in shape) or math.prod(shape) * size != len(data):
        raise FormatError(
            f"{name}: a blob of shape {list(shape)} has {len(data) / size:,.0f} numbers"
        )
    return np.frombuffer(data, kind).astype(np.float32).reshape(shape)


def parse_message(kind: str, path: Path) -> Any:
    """Parse a file as a message of `SCHEMA`. Raises FormatError."""
    message = load_schema()[kind]()
    try:
        message.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise FormatError(
            f"{path} cannot be read as a file of Caffe's; it may be damaged or not downloaded "
            "completely"
        ) from error
    return message


Type = descriptor_pb2.FieldDescriptorProto
SCHEMA: dict[str, dict[str, tuple[int, str, str]]] = {
    "Shape": {"dim": (1, "int64", "repeated")},
    "Blob": {
        "num": (1, "int64", "0"),
        "channels": (2, "int64", "0"),
        "height": (3, "int64", "0"),
        "width": (4, "int64", "0"),
        # Packed numbers are bytes on the wire, and read as such many times faster.
        "data": (5, "bytes", ""),
        "shape": (7, "Shape", ""),
        "double_data": (8, "bytes", ""),
    },
    "Normalisation": {
        "local_size": (1, "uint32", "5"),
        "alpha": (2, "float", "1"),
        "beta": (3, "float", "0.75"),
        "norm_region": (4, "int32", "0"),
        "k": (5, "float", "1"),
    },
    "Layer": {
        "name": (1, "string", ""),
        "bottom": (3, "string", "repeated"),
        "blobs": (7, "Blob", "repeated"),
        "lrn_param": (118, "Normalisation", ""),
    },
    "OldLayer": {
        "bottom": (2, "string", "repeated"),
        "name": (4, "string", ""),
        "blobs": (6, "Blob", "repeated"),
        "lrn_param": (18, "Normalisation", ""),
    },
    "Net": {
        "name": (1, "string", ""),
        "layers": (2, "OldLayer", "repeated"),
        "layer": (100, "Layer", "repeated"),
    },
}
"""The messages: of each field its number, its type, and its default value or "repeated"."""


@cache
def load_schema() -> dict[str, Any]:
    """Return the classes of the messages, by name."""
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    for message, known_fields in SCHEMA.items():
        described = file.message_type.add(name=message)
        for name, (number, kind, rest) in known_fields.items():
            field = described.field.add(name=name, number=number)
            repeated = rest == "repeated"
            field.label = Type.LABEL_REPEATED if repeated else Type.LABEL_OPTIONAL
            if kind in SCHEMA:
                field.type, field.type_name = Type.TYPE_MESSAGE, f".caffe.{kind}"
            else:
                field.type = Type.Type.Value(f"TYPE_{kind.upper()}")
            if rest and not repeated:
                field.default_value = rest
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{name}"))
        for name in SCHEMA
    }
