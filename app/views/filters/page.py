"""The 96 kernels of conv1, 48 of each GPU apart, as in Figure 3, and what excites each of them."""

from collections.abc import Sequence, Sized
from dataclasses import dataclass

import numpy as np
from flask import Blueprint, Response, abort, render_template, url_for
from PIL import Image

from app import context
from app.database.images import CatalogueImage, find_images
from app.http_cache import not_modified
from app.inference.loader import NotReady, Ready
from app.views.current_image import CurrentImage, get_current_image
from app.views.filters.kernels import (
    Kernel,
    KernelPatch,
    SelectivityContrast,
    compare_selectivities,
    list_kernels,
    list_patches,
)
from app.views.format import describe_provenance
from app.views.layers import activations
from app.views.layers.activations import Peak
from app.views.pictures import encode_png, picture_response
from model.predict import Predictor
from model.sheets import sheet
from model.visualize import kernel_picture, towers

blueprint = Blueprint("filters", __name__, url_prefix="/filters")
blueprint.context_processor(activations.template_functions)
blueprint.add_app_template_filter(activations.format_response, "response")
KERNEL_RULE = "/<int(min=1, max=9999):number>"
KERNEL_PIXELS, KERNEL_STEP = 44, 48
"""Pixels of a kernel in its block, and from one to the next."""
PATCH_SCALE, RESPONSE_SCALE = 8, 4


@dataclass(frozen=True, kw_only=True)
class KernelBlock:
    """One GPU's half of conv1, as the page shows it."""

    gpu: int
    kernels: Sequence[Kernel]
    selectivity: float
    url: str
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class TopPatches:
    """The training patches that excite a kernel most, strongest first, and their images by id.

    count, whole: of how many images, and whether these are all that are indexed.
    """

    patches: list[KernelPatch]
    images: dict[int, CatalogueImage]
    sprite: str
    count: int
    whole: bool


@blueprint.get("")
def show_filters() -> str:
    """Show both GPUs' kernels."""
    return render_filters(context.require_predictor(), None)


@blueprint.get(KERNEL_RULE)
def show_kernel(number: int) -> str:
    """Show both GPUs' kernels, and one of them closer."""
    return render_filters(context.require_predictor(), number)


@blueprint.get("/gpu-<int(min=1, max=2):number>.png")
def gpu_picture(number: int) -> Response:
    """Give the picture of one GPU's 48 kernels."""
    predictor = context.require_predictor()
    parts = towers(predictor.conv1(), predictor.weights.config.towers)
    if number > len(parts):
        abort(404)
    etag = f"{predictor.identity}-gpu-{number}"
    if fresh := not_modified(etag, version=etag):
        return fresh
    return picture_response(
        encode_png(kernel_picture(parts[number - 1])), etag, "image/png", version=etag
    )


@blueprint.get(f"{KERNEL_RULE}/patches.png")
def patches_picture(number: int) -> Response:
    """Give the patches that excite a kernel most, side by side, each pixel a square of eight."""
    state = context.require_ready()
    check_kernel_number(state.predictor.conv1(), number)
    if state.sample is None:
        abort(404, "This index knows no patches.")
    etag = f"{state.version.name}-patches-{number}"
    if fresh := not_modified(etag, version=etag):
        return fresh
    row = np.concatenate(list(state.sample.patches.pixels[number - 1]), axis=1)
    enlarged = row.repeat(PATCH_SCALE, axis=0).repeat(PATCH_SCALE, axis=1)
    return picture_response(encode_png(Image.fromarray(enlarged)), etag, "image/png", version=etag)


@blueprint.get(f"{KERNEL_RULE}/response.png")
def response_picture(number: int) -> Response:
    """Give a kernel's response to an image, where it is above zero."""
    check_kernel_number(context.require_predictor().conv1(), number)
    subject = activations.require_current_image()
    name = f"response-{number}"
    if fresh := activations.picture_not_modified(subject, name):
        return fresh
    values = np.maximum(activations.compute_activations(subject).conv1[number - 1], 0)
    picture = sheet(values[None], 1, scale=RESPONSE_SCALE, largest=float(values.max()), gap=0)
    return activations.send_picture(subject, name, picture)


def render_filters(predictor: Predictor, number: int | None) -> str:
    """Show the kernels, one of them chosen or none."""
    found = list_kernels(predictor)
    chosen = None if number is None else find_kernel(found, number)
    subject = get_current_image() if chosen else None
    return render_template(
        "filters.html",
        blocks=list_kernel_blocks(predictor, found),
        kernels=found,
        size=predictor.conv1().shape[-1],
        contrast=compare_gpus(predictor, found),
        chosen=chosen,
        exciting=find_top_patches(chosen.number) if chosen else None,
        subject=subject,
        spot=find_kernel_peak(subject, chosen.number) if subject and chosen else None,
        examples=activations.list_examples() if chosen and not subject else [],
        config=predictor.weights.config,
        origin=describe_provenance(predictor.weights.provenance),
    )


def find_kernel(found: list[Kernel], number: int) -> Kernel:
    """Find a kernel by its number, or answer 404."""
    check_kernel_number(found, number)
    return found[number - 1]


def check_kernel_number(kernels: Sized, number: int) -> None:
    """Answer 404 where there are fewer kernels."""
    if number > len(kernels):
        abort(404, f"conv1 has the kernels 1 to {len(kernels)}.")


def list_kernel_blocks(predictor: Predictor, found: list[Kernel]) -> list[KernelBlock]:
    """Give what the page shows of each GPU."""
    return [
        KernelBlock(
            gpu=gpu,
            kernels=own,
            selectivity=float(np.mean([k.selectivity for k in own])),
            url=url_for("filters.gpu_picture", number=gpu, v=predictor.identity[:12]),
            width=KERNEL_STEP * max(k.column for k in own) + KERNEL_PIXELS,
            height=KERNEL_STEP * max(k.row for k in own) + KERNEL_PIXELS,
        )
        for gpu, own in group_by_gpu(found).items()
    ]


def group_by_gpu(found: list[Kernel]) -> dict[int, list[Kernel]]:
    """Give the kernels of each GPU."""
    return {gpu: [k for k in found if k.gpu == gpu] for gpu in sorted({k.gpu for k in found})}


def compare_gpus(predictor: Predictor, found: list[Kernel]) -> SelectivityContrast | None:
    """Compare two GPUs; None for a network of one."""
    values = [[k.selectivity for k in own] for own in group_by_gpu(found).values()]
    if len(values) != 2:
        return None
    return activations.activation_cache().get(
        ("contrast", predictor.identity), lambda: compare_selectivities(*values)
    )


def find_top_patches(number: int) -> TopPatches | NotReady | None:
    """Give the patches that excite a kernel; what is missing, or None where the index is older."""
    state = context.loader().state()
    if not isinstance(state, Ready) or state.sample is None:
        return None if isinstance(state, Ready) else state
    best = list_patches(state.sample, number)
    return TopPatches(
        patches=best,
        images=find_images(context.sessions(), [patch.image for patch in best]),
        sprite=url_for("filters.patches_picture", number=number, v=state.version.name),
        count=len(state.sample.ids),
        whole=state.sample.whole,
    )


def find_kernel_peak(subject: CurrentImage, number: int) -> Peak:
    """Find the place of an image that excites a kernel most."""
    found = activations.compute_activations(subject)
    field = found.stages[0].stage.field
    return activations.find_peak(
        found.conv1[number - 1], field, context.require_predictor().weights.config
    )
