"""The kernels of conv1: how much colour each sees, its weights, what excites it."""

from typing import Any

from flask import url_for
from marshmallow import Schema, fields

from app import context
from app.api import etags, schemas
from app.api.openapi import ApiBlueprint
from app.views.filters.kernels import (
    KERNEL_PIXELS,
    KERNEL_STEP,
    Kernel,
    KernelBlock,
    SelectivityContrast,
    TopPatches,
    compare_gpus,
    find_kernel,
    find_top_patches,
    list_kernel_blocks,
    list_kernels,
)

blueprint = ApiBlueprint("filters", "The kernels of conv1, of each GPU apart (Figure 3).")


class KernelPictureSchema(Schema):
    """A picture, and the square in it where a kernel lies, in pixels."""

    url = fields.String(required=True, metadata={"format": "uri-reference"})
    left = fields.Integer(required=True)
    top = fields.Integer(required=True)
    side = fields.Integer(required=True)


class KernelSchema(Schema):
    """A kernel of conv1."""

    number = fields.Integer(required=True, metadata={"description": "from 1, through both GPUs"})
    gpu = fields.Integer(required=True)
    selectivity = fields.Float(
        required=True, metadata={"description": "the share of its energy that is colour, 0–1"}
    )
    place = fields.Integer(
        required=True, metadata={"description": "by selectivity among its GPU's, from 1"}
    )
    picture = fields.Nested(KernelPictureSchema, required=True)
    page = fields.String(required=True, metadata={"format": "uri-reference"})


class GpuSchema(Schema):
    """A GPU's kernels."""

    gpu = fields.Integer(required=True)
    kernels = fields.Integer(required=True, metadata={"description": "how many"})
    selectivity = fields.Float(required=True, metadata={"description": "their mean"})
    picture = fields.String(required=True, metadata={"format": "uri-reference"})
    width = fields.Integer(required=True)
    height = fields.Integer(required=True)


class ContrastSchema(Schema):
    """How far the two GPUs' mean selectivities lie apart, and how often chance does as much."""

    difference = fields.Float(required=True)
    beyond = fields.Integer(
        required=True, metadata={"description": "random splits at least as far apart"}
    )
    splits = fields.Integer(required=True, metadata={"description": "random splits tried"})


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
    weights = fields.String(required=True)


class PatchSchema(Schema):
    """A place of a training image that excites the kernel."""

    id = fields.Integer(required=True, metadata={"description": "the image's"})
    label = fields.String(required=True)
    response = fields.Float(required=True, metadata={"description": "before the ReLU"})
    row = fields.Integer(required=True, metadata={"description": "in the kernel's map"})
    column = fields.Integer(required=True)
    thumbnail = fields.String(required=True, metadata={"format": "uri-reference"})
    page = fields.String(required=True, metadata={"format": "uri-reference"})


class FilterSchema(KernelSchema):
    """A kernel with its weights and what excites it."""

    values = fields.List(
        fields.List(fields.List(fields.Float())),
        required=True,
        metadata={"description": "its weights, by row, column and colour: 11 × 11 × 3"},
    )
    patches = fields.List(
        fields.Nested(PatchSchema),
        required=True,
        allow_none=True,
        metadata={"description": "strongest first; null where no index knows them"},
    )
    sampled = fields.Integer(
        required=True,
        allow_none=True,
        metadata={"description": "images looked at for patches"},
    )
    weights = fields.String(required=True, metadata={"description": "which weights it is of"})
    index = fields.String(
        required=True, allow_none=True, metadata={"description": "which version knows the patches"}
    )


@blueprint.get("/filters", lasting=True)
@blueprint.doc(operationId="filters")
@blueprint.response(200, FiltersSchema)
def list_filters() -> dict[str, Any]:
    """List the kernels"""
    predictor = context.require_predictor()
    etags.etag_by_version(predictor.identity)
    kernels = list_kernels(predictor)
    blocks, contrast = list_kernel_blocks(predictor, kernels), compare_gpus(predictor, kernels)
    return {
        "kernels": [dump_kernel(kernel, block) for block in blocks for kernel in block.kernels],
        "gpus": [dump_gpu(block) for block in blocks],
        "contrast": dump_contrast(contrast) if contrast else None,
        "weights": predictor.identity,
    }


@blueprint.get("/filters/<int(min=1, max=9999):number>", lasting=True)
@blueprint.doc(operationId="filter")
@blueprint.response(200, FilterSchema)
def get_filter(number: int) -> dict[str, Any]:
    """Tell of a kernel, its weights and the training patches that excite it most"""
    predictor = context.require_predictor()
    kernels, version = list_kernels(predictor), patch_index_name()
    kernel, top = find_kernel(kernels, number), find_top_patches(number)
    etags.etag_by_version(version or predictor.identity, immutable=version is not None)
    (block,) = [b for b in list_kernel_blocks(predictor, kernels) if b.gpu == kernel.gpu]
    patches = top if isinstance(top, TopPatches) else None
    return {
        **dump_kernel(kernel, block),
        "values": predictor.conv1_kernels()[number - 1].permute(1, 2, 0).tolist(),
        "patches": dump_patches(patches) if patches else None,
        "sampled": patches.count if patches else None,
        "weights": predictor.identity,
        "index": version,
    }


def patch_index_name() -> str | None:
    """Name the version of the index that knows patches, if there is one."""
    version = getattr(context.loader().state(), "version", None)
    return version.name if version else None


def dump_kernel(kernel: Kernel, block: KernelBlock) -> dict[str, Any]:
    """Tell of a kernel, and where it lies in its GPU's picture."""
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
    """Tell of a GPU."""
    return {
        "gpu": block.gpu,
        "kernels": len(block.kernels),
        "selectivity": block.selectivity,
        "picture": block.url,
        "width": block.width,
        "height": block.height,
    }


def dump_contrast(contrast: SelectivityContrast) -> dict[str, Any]:
    """Tell how the GPUs differ."""
    return {
        "difference": contrast.difference,
        "beyond": contrast.as_extreme,
        "splits": contrast.splits,
    }


def dump_patches(top: TopPatches) -> list[dict[str, Any]]:
    """Tell the patches, strongest first."""
    return [
        {
            "id": patch.image,
            "label": top.images[patch.image].label if patch.image in top.images else "",
            "response": patch.response,
            "row": patch.row,
            "column": patch.column,
            **schemas.image_urls(patch.image),
        }
        for patch in top.patches
    ]
