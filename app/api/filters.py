"""conv1's kernels: their colour selectivity, weights and strongest training patches."""

from typing import Any

from flask import url_for
from marshmallow import Schema, fields

from app import context
from app.api import etags, schemas
from app.api.openapi import ApiBlueprint
from app.inference.state import Ready
from app.views.filters.kernels import (
    KERNEL_PIXELS,
    KERNEL_STEP,
    Kernel,
    KernelBlock,
    KernelPatches,
    compare_gpus,
    find_kernel,
    find_top_patches,
    list_kernel_blocks,
    list_kernels,
)
from model.visualization.kernels import SelectivityContrast, find_noise_share

blueprint = ApiBlueprint("filters", "The kernels of conv1 by GPU (Figure 3).")


class KernelPictureSchema(Schema):
    """A picture, and the position of a kernel in it, in pixels."""

    url = fields.String(required=True, metadata={"format": "uri-reference"})
    left = fields.Integer(required=True)
    top = fields.Integer(required=True)
    side = fields.Integer(required=True)


class KernelSchema(Schema):
    """A kernel of conv1."""

    number = fields.Integer(
        required=True, metadata={"description": "from 1, counted through both GPUs"}
    )
    gpu = fields.Integer(required=True)
    selectivity = fields.Float(
        required=True,
        metadata={"description": "share of its energy orthogonal to the grey axis, 0–1"},
    )
    place = fields.Integer(
        required=True, metadata={"description": "rank by selectivity on its GPU, from 1"}
    )
    picture = fields.Nested(KernelPictureSchema, required=True)
    page = fields.String(required=True, metadata={"format": "uri-reference"})


class GpuSchema(Schema):
    """A GPU's kernels."""

    gpu = fields.Integer(required=True)
    kernels = fields.Integer(required=True, metadata={"description": "number of kernels"})
    selectivity = fields.Float(required=True, metadata={"description": "mean of its kernels"})
    low_frequency = fields.Float(
        required=True,
        metadata={"description": "share of its kernels' energy at low frequencies, 0–1"},
    )
    picture = fields.String(required=True, metadata={"format": "uri-reference"})
    width = fields.Integer(required=True)
    height = fields.Integer(required=True)


class ContrastSchema(Schema):
    """The difference of the two GPUs' mean selectivities, and a permutation test of it."""

    difference = fields.Float(required=True)
    beyond = fields.Integer(
        required=True,
        metadata={"description": "number of random splits with at least this difference"},
    )
    splits = fields.Integer(required=True, metadata={"description": "number of random splits"})


class FiltersSchema(Schema):
    """All kernels of conv1."""

    kernels = fields.List(fields.Nested(KernelSchema), required=True)
    gpus = fields.List(fields.Nested(GpuSchema), required=True)
    contrast = fields.Nested(
        ContrastSchema,
        required=True,
        allow_none=True,
        metadata={"description": "null for a network of one tower"},
    )
    noise = fields.Float(
        required=True,
        metadata={"description": "low_frequency of white noise, as in an initial network"},
    )
    weights = fields.String(required=True)


class PatchSchema(Schema):
    """A patch of a training image that activates the kernel."""

    id = fields.Integer(required=True, metadata={"description": "id of the image"})
    label = fields.String(required=True)
    response = fields.Float(required=True, metadata={"description": "before the ReLU"})
    row = fields.Integer(required=True, metadata={"description": "in the feature map, from 0"})
    column = fields.Integer(required=True)
    thumbnail = fields.String(required=True, metadata={"format": "uri-reference"})
    page = fields.String(required=True, metadata={"format": "uri-reference"})


class FilterSchema(KernelSchema):
    """A kernel with its weights and its strongest training patches."""

    values = fields.List(
        fields.List(fields.List(fields.Float())),
        required=True,
        metadata={"description": "weights by row, column and colour channel: 11 × 11 × 3"},
    )
    patches = fields.List(
        fields.Nested(PatchSchema),
        required=True,
        allow_none=True,
        metadata={"description": "strongest first; null if the index has none"},
    )
    sampled = fields.Integer(
        required=True,
        allow_none=True,
        metadata={"description": "number of images searched for patches"},
    )
    weights = fields.String(required=True, metadata={"description": "identity of the weights"})
    index = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "version of the index with the patches"},
    )


@blueprint.get("/filters", immutable=True)
@blueprint.doc(operationId="filters")
@blueprint.response(200, FiltersSchema)
def list_filters() -> dict[str, Any]:
    """List the kernels"""
    predictor = context.require_predictor()
    etags.set_version_etag(predictor.identity)
    kernels = list_kernels(predictor)
    blocks, contrast = list_kernel_blocks(predictor, kernels), compare_gpus(predictor, kernels)
    return {
        "kernels": [dump_kernel(kernel, block) for block in blocks for kernel in block.kernels],
        "gpus": [dump_gpu(block) for block in blocks],
        "contrast": dump_contrast(contrast) if contrast else None,
        "noise": find_noise_share(*predictor.conv1.shape[2:]),
        "weights": predictor.identity,
    }


@blueprint.get("/filters/<int(min=1, max=9999):number>", immutable=True)
@blueprint.doc(operationId="filter")
@blueprint.response(200, FilterSchema)
def get_filter(number: int) -> dict[str, Any]:
    """Get a kernel, its weights and its strongest training patches"""
    predictor = context.require_predictor()
    kernels, version = list_kernels(predictor), get_patch_index_name()
    kernel, top = find_kernel(kernels, number), find_top_patches(number)
    etags.set_version_etag(version or predictor.identity, immutable=version is not None)
    (block,) = [b for b in list_kernel_blocks(predictor, kernels) if b.gpu == kernel.gpu]
    patches = top if isinstance(top, KernelPatches) else None
    return {
        **dump_kernel(kernel, block),
        "values": predictor.conv1[number - 1].transpose(1, 2, 0).tolist(),
        "patches": dump_patches(patches) if patches else None,
        "sampled": patches.count if patches else None,
        "weights": predictor.identity,
        "index": version,
    }


def get_patch_index_name() -> str | None:
    """Return the name of the index version, if there is one."""
    state = context.loader().get_state()
    return state.version.name if isinstance(state, Ready) else None


def dump_kernel(kernel: Kernel, block: KernelBlock) -> dict[str, Any]:
    """Return a kernel and its position in its GPU's picture as JSON."""
    square = {
        "left": KERNEL_STEP * kernel.column,
        "top": KERNEL_STEP * kernel.row,
        "side": KERNEL_PIXELS,
    }
    return {
        "number": kernel.number,
        "gpu": kernel.gpu,
        "selectivity": kernel.selectivity,
        "place": kernel.rank,
        "picture": {"url": block.url, **square},
        "page": url_for("filters.show_kernel", number=kernel.number),
    }


def dump_gpu(block: KernelBlock) -> dict[str, Any]:
    """Return a GPU's kernels as JSON."""
    return {
        "gpu": block.gpu,
        "kernels": len(block.kernels),
        "selectivity": block.selectivity,
        "low_frequency": block.low_frequency,
        "picture": block.url,
        "width": block.width,
        "height": block.height,
    }


def dump_contrast(contrast: SelectivityContrast) -> dict[str, Any]:
    """Return the comparison of the GPUs as JSON."""
    return {
        "difference": contrast.difference,
        "beyond": contrast.as_extreme,
        "splits": contrast.splits,
    }


def dump_patches(top: KernelPatches) -> list[dict[str, Any]]:
    """Return the patches as JSON, strongest first."""
    return [
        {
            "id": patch.image,
            "label": top.images[patch.image].label if patch.image in top.images else "",
            "response": patch.response,
            "row": patch.row,
            "column": patch.column,
            **schemas.make_image_urls(patch.image),
        }
        for patch in top.patches
    ]
