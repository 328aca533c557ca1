"""The 96 kernels of conv1, 48 of each GPU apart, as in Figure 3."""

import io
from dataclasses import dataclass

from flask import Blueprint, Response, abort, render_template, url_for
from torch import Tensor

from app.views import pictures, rooms
from app.views.wording import origin
from model.filters import colour_selectivity, kernel_picture, towers

blueprint = Blueprint("filters", __name__, url_prefix="/filters")


@dataclass(frozen=True, kw_only=True)
class Tower:
    """One GPU's half of conv1, as the page shows it."""

    number: int
    count: int
    selectivity: float
    url: str
    width: int
    height: int


@blueprint.get("")
def show() -> str:
    """Show both GPUs' kernels."""
    predictor = rooms.predictor()
    conv1 = predictor.conv1()
    parts = towers(conv1, predictor.weights.config.towers)
    blocks = [describe(n, part, predictor.identity) for n, part in enumerate(parts, 1)]
    return render_template(
        "filters.html",
        towers=blocks,
        kernels=len(conv1),
        size=conv1.shape[-1],
        origin=origin(predictor.weights.provenance),
    )


@blueprint.get("/gpu-<int(min=1, max=2):number>.png")
def kernels(number: int) -> Response:
    """Give the picture of one GPU's 48 kernels."""
    predictor = rooms.predictor()
    parts = towers(predictor.conv1(), predictor.weights.config.towers)
    if number > len(parts):
        abort(404)
    etag = f"{predictor.identity}-gpu-{number}"
    if fresh := pictures.not_modified(etag):
        return fresh
    out = io.BytesIO()
    kernel_picture(parts[number - 1]).save(out, "PNG")
    return pictures.picture(out.getvalue(), etag, "image/png")


def describe(number: int, kernels: Tensor, identity: str) -> Tower:
    """Give what the page says of one GPU."""
    width, height = kernel_picture(kernels).size
    return Tower(
        number=number,
        count=len(kernels),
        selectivity=float(colour_selectivity(kernels).mean()),
        url=url_for(".kernels", number=number, v=identity[:12]),
        width=width,
        height=height,
    )
