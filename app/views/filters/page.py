"""The page Filters: conv1's 96 kernels, 48 on each GPU (Figure 3), and each one's responses."""

import numpy as np
from flask import Blueprint, Response, abort, render_template, request
from PIL import Image

from app import context
from app.views.current_image import CurrentImage, get_current_image
from app.views.filters.figure3 import render_figure3_png, render_figure3_svg
from app.views.filters.kernels import (
    KERNEL_PIXELS,
    KERNEL_STEP,
    check_kernel_number,
    compare_gpus,
    find_kernel,
    find_top_patches,
    list_kernel_blocks,
    list_kernels,
)
from app.views.format import describe_provenance
from app.views.layers import activations
from app.views.layers.activations import Peak
from app.views.pictures import encode_png, make_picture_response
from app.web import check_not_modified
from model.visualization.feature_maps import draw_maps, draw_responses
from model.visualization.kernels import (
    compute_low_frequency_share,
    draw_kernels,
    find_noise_share,
    split_towers,
)

blueprint = Blueprint("filters", __name__, url_prefix="/filters")
blueprint.context_processor(activations.list_template_functions)
blueprint.add_app_template_filter(activations.format_response, "response")
KERNEL_RULE = "/<int(min=1, max=9999):number>"
PATCH_SCALE, RESPONSE_SCALE = 8, 4


@blueprint.get("")
def show_filters() -> str:
    """Show both GPUs' kernels."""
    return render_filters(None)


@blueprint.get(KERNEL_RULE)
def show_kernel(number: int) -> str:
    """Show both GPUs' kernels, and one of them in detail."""
    return render_filters(number)


@blueprint.get("/gpu-<int(min=1, max=2):number>.png")
def gpu_picture(number: int) -> Response:
    """Return the picture of one GPU's 48 kernels."""
    predictor = context.require_predictor()
    parts = split_towers(predictor.conv1, predictor.config.towers)
    if number > len(parts):
        abort(404)
    etag = f"{predictor.identity}-gpu-{number}"
    if fresh := check_not_modified(etag, version=etag):
        return fresh
    return make_picture_response(
        encode_png(draw_kernels(parts[number - 1])), etag, "image/png", version=etag
    )


@blueprint.get("/figure-3.<any('png', 'svg'):suffix>")
def figure3_file(suffix: str) -> Response:
    """Return all kernels as Figure 3, as a file to download."""
    predictor = context.require_predictor()
    etag = f"{predictor.identity}-figure-3-{suffix}"
    if (response := check_not_modified(etag, version=etag)) is None:
        caption = (
            f"The {len(predictor.conv1)} kernels of conv1, those of GPU 1 above those of GPU 2, "
            f"each scaled to its own largest weight. {describe_provenance(predictor.provenance)}."
        )
        render, mimetype = {
            "png": (render_figure3_png, "image/png"),
            "svg": (render_figure3_svg, "image/svg+xml"),
        }[suffix]
        data = render(predictor.conv1, predictor.config.towers, caption)
        response = make_picture_response(data, etag, mimetype, version=etag)
    response.headers.set("Content-Disposition", "attachment", filename=f"figure-3.{suffix}")
    return response


@blueprint.get(f"{KERNEL_RULE}/patches.png")
def patches_picture(number: int) -> Response:
    """Return the patches that activate a kernel most, side by side, enlarged eight times."""
    state = context.require_ready()
    check_kernel_number(number, len(state.predictor.conv1))
    if state.sample is None:
        abort(404, "This index has no patches.")
    etag = f"{state.version.name}-patches-{number}"
    if fresh := check_not_modified(etag, version=etag):
        return fresh
    row = np.concatenate(list(state.sample.patches.pixels[number - 1]), axis=1)
    enlarged = row.repeat(PATCH_SCALE, axis=0).repeat(PATCH_SCALE, axis=1)
    return make_picture_response(
        encode_png(Image.fromarray(enlarged)), etag, "image/png", version=etag
    )


@blueprint.get(f"{KERNEL_RULE}/response.png")
def response_picture(number: int) -> Response:
    """Return a kernel's response to an image, where it is positive."""
    check_kernel_number(number, len(context.require_predictor().conv1))
    image, name = activations.require_current_image(), f"response-{number}"
    if fresh := activations.check_picture_not_modified(image, name):
        return fresh
    values = np.maximum(activations.compute_activations(image).conv1[number - 1], 0)
    picture = draw_maps(values[None], 1, scale=RESPONSE_SCALE, largest=float(values.max()), gap=0)
    return activations.send_picture(image, name, picture)


@blueprint.get("/responses-<int(min=1, max=2):number>.png")
def responses_picture(number: int) -> Response:
    """Return the responses of one GPU's kernels to an image, to lie over the kernels."""
    towers = context.require_predictor().config.towers
    if number > towers:
        abort(404)
    image, name = activations.require_current_image(), f"responses-{number}"
    if fresh := activations.check_picture_not_modified(image, name):
        return fresh
    responses = np.maximum(activations.compute_activations(image).conv1, 0)
    own = np.split(responses, towers)[number - 1]
    picture = draw_responses(own, float(responses.max()), KERNEL_PIXELS, KERNEL_STEP)
    return activations.send_picture(image, name, picture)


def render_filters(number: int | None) -> str:
    """Render the page, with one kernel in detail if there is a number; 404 if it is unknown."""
    predictor = context.require_predictor()
    kernels, weights = list_kernels(predictor), predictor.conv1
    kernel = None if number is None else find_kernel(kernels, number)
    image = get_current_image(or_last=kernel is not None)
    other = image if image and not image.is_of(predictor) else None
    image = None if other else image
    return render_template(
        "filters.html",
        blocks=list_kernel_blocks(predictor, kernels),
        overlaid=image is not None and "of" in request.args,
        kernels=kernels,
        size=weights.shape[-1],
        low_frequency=compute_low_frequency_share(weights),
        noise=find_noise_share(*weights.shape[2:]),
        contrast=compare_gpus(predictor, kernels),
        kernel=kernel,
        top_patches=find_top_patches(kernel.number) if kernel else None,
        image=image,
        other=other,
        peak=find_kernel_peak(image, kernel.number) if image and kernel else None,
        examples=activations.list_examples() if kernel and not image else [],
        config=predictor.config,
        origin=describe_provenance(predictor.provenance),
    )


def find_kernel_peak(image: CurrentImage, number: int) -> Peak:
    """Find where an image activates a kernel most."""
    computed = activations.compute_activations(image)
    return activations.find_peak(
        computed.conv1[number - 1],
        computed.layers[0].layer.receptive_field,
        context.require_predictor().config,
    )
