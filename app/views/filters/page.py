"""The 96 kernels of conv1, 48 of each GPU apart, as in Figure 3, and what excites each of them."""

from collections.abc import Sequence, Sized
from dataclasses import dataclass

import numpy as np
from flask import Blueprint, Response, abort, render_template, url_for
from PIL import Image

from app import context
from app.database import images as catalogue
from app.database.images import Picture
from app.http_cache import not_modified
from app.inference.loader import NotReady, Ready
from app.views.current_image import Subject, asked
from app.views.filters.kernels import Contrast, Kernel, Patch, contrast, kernels, patches
from app.views.format import origin
from app.views.layers import activations
from app.views.layers.activations import Spot
from app.views.pictures import encode_png, picture_response
from model.predict import Predictor
from model.sheets import sheet
from model.visualize import kernel_picture, towers

blueprint = Blueprint("filters", __name__, url_prefix="/filters")
blueprint.context_processor(activations.addresses)
blueprint.add_app_template_filter(activations.response)
KERNEL = "/<int(min=1, max=9999):number>"
TILE, STEP = 44, 48
"""Pixels of a kernel in its block, and from one to the next."""
PATCH_SCALE, RESPONSE_SCALE = 8, 4


@dataclass(frozen=True, kw_only=True)
class Block:
    """One GPU's half of conv1, as the page shows it."""

    gpu: int
    kernels: Sequence[Kernel]
    selectivity: float
    url: str
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class Exciting:
    """The training patches that excite a kernel most, strongest first, and their images by id.

    count, whole: of how many images, and whether these are all that are indexed.
    """

    patches: list[Patch]
    images: dict[int, Picture]
    sprite: str
    count: int
    whole: bool


@blueprint.get("")
def show() -> str:
    """Show both GPUs' kernels."""
    return page(context.predictor(), None)


@blueprint.get(KERNEL)
def kernel(number: int) -> str:
    """Show both GPUs' kernels, and one of them closer."""
    return page(context.predictor(), number)


@blueprint.get("/gpu-<int(min=1, max=2):number>.png")
def block_picture(number: int) -> Response:
    """Give the picture of one GPU's 48 kernels."""
    predictor = context.predictor()
    parts = towers(predictor.conv1(), predictor.weights.config.towers)
    if number > len(parts):
        abort(404)
    etag = f"{predictor.identity}-gpu-{number}"
    if fresh := not_modified(etag, version=etag):
        return fresh
    return picture_response(
        encode_png(kernel_picture(parts[number - 1])), etag, "image/png", version=etag
    )


@blueprint.get(f"{KERNEL}/patches.png")
def patches_picture(number: int) -> Response:
    """Give the patches that excite a kernel most, side by side, each pixel a square of eight."""
    state = context.ready()
    check_number(state.predictor.conv1(), number)
    if state.sample is None:
        abort(404, "This index knows no patches.")
    etag = f"{state.version.name}-patches-{number}"
    if fresh := not_modified(etag, version=etag):
        return fresh
    row = np.concatenate(list(state.sample.patches.pixels[number - 1]), axis=1)
    enlarged = row.repeat(PATCH_SCALE, axis=0).repeat(PATCH_SCALE, axis=1)
    return picture_response(encode_png(Image.fromarray(enlarged)), etag, "image/png", version=etag)


@blueprint.get(f"{KERNEL}/response.png")
def response_picture(number: int) -> Response:
    """Give a kernel's response to an image, where it is above zero."""
    check_number(context.predictor().conv1(), number)
    subject = activations.named()
    name = f"response-{number}"
    if fresh := activations.unchanged(subject, name):
        return fresh
    values = np.maximum(activations.seen(subject).conv1[number - 1], 0)
    picture = sheet(values[None], 1, scale=RESPONSE_SCALE, largest=float(values.max()), gap=0)
    return activations.draw(subject, name, picture)


def page(predictor: Predictor, number: int | None) -> str:
    """Show the kernels, one of them chosen or none."""
    found = kernels(predictor)
    chosen = None if number is None else of_number(found, number)
    subject = asked() if chosen else None
    return render_template(
        "filters.html",
        blocks=blocks(predictor, found),
        kernels=found,
        size=predictor.conv1().shape[-1],
        contrast=compared(predictor, found),
        chosen=chosen,
        exciting=exciting(chosen.number) if chosen else None,
        subject=subject,
        spot=spot(subject, chosen.number) if subject and chosen else None,
        examples=activations.examples() if chosen and not subject else [],
        config=predictor.weights.config,
        origin=origin(predictor.weights.provenance),
    )


def of_number(found: list[Kernel], number: int) -> Kernel:
    """Find a kernel by its number, or answer 404."""
    check_number(found, number)
    return found[number - 1]


def check_number(kernels: Sized, number: int) -> None:
    """Answer 404 where there are fewer kernels."""
    if number > len(kernels):
        abort(404, f"conv1 has the kernels 1 to {len(kernels)}.")


def blocks(predictor: Predictor, found: list[Kernel]) -> list[Block]:
    """Give what the page shows of each GPU."""
    return [
        Block(
            gpu=gpu,
            kernels=own,
            selectivity=float(np.mean([k.selectivity for k in own])),
            url=url_for("filters.block_picture", number=gpu, v=predictor.identity[:12]),
            width=STEP * max(k.column for k in own) + TILE,
            height=STEP * max(k.row for k in own) + TILE,
        )
        for gpu, own in by_gpu(found).items()
    ]


def by_gpu(found: list[Kernel]) -> dict[int, list[Kernel]]:
    """Give the kernels of each GPU."""
    return {gpu: [k for k in found if k.gpu == gpu] for gpu in sorted({k.gpu for k in found})}


def compared(predictor: Predictor, found: list[Kernel]) -> Contrast | None:
    """Compare two GPUs; None for a network of one."""
    values = [[k.selectivity for k in own] for own in by_gpu(found).values()]
    if len(values) != 2:
        return None
    return activations.kept().get(("contrast", predictor.identity), lambda: contrast(*values))


def exciting(number: int) -> Exciting | NotReady | None:
    """Give the patches that excite a kernel; what is missing, or None where the index is older."""
    state = context.engine().state()
    if not isinstance(state, Ready) or state.sample is None:
        return None if isinstance(state, Ready) else state
    best = patches(state.sample, number)
    return Exciting(
        patches=best,
        images=catalogue.pictures_by_id(context.sessions(), [patch.image for patch in best]),
        sprite=url_for("filters.patches_picture", number=number, v=state.version.name),
        count=len(state.sample.ids),
        whole=state.sample.whole,
    )


def spot(subject: Subject, number: int) -> Spot:
    """Find the place of an image that excites a kernel most."""
    found = activations.seen(subject)
    field = found.stages[0].stage.field
    return activations.strongest(found.conv1[number - 1], field, context.predictor().weights.config)
