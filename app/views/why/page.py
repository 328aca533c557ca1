"""The page Why: what in an image speaks for a label, and which tower."""

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, render_template, url_for
from PIL import Image

from app import context
from app.views.current_image import get_current_image
from app.views.layers import activations
from app.views.layers.activations import Rectangle
from app.views.layers.page import explain_other_network
from app.views.why.explanation import (
    Question,
    find_label_folder,
    get_grad_cam,
    get_guided_gradient,
    get_occlusion,
    get_probabilities,
    list_tower_answers,
    read_question,
)
from app.views.why.overlay import draw_gradient, draw_shade
from model.attribution.explain import find_centre_crop
from model.attribution.occlusion import COARSE_SIDE, FINE_SIDE, PARTS
from model.network.config import AlexNetConfig
from model.visualization.receptive_field import list_weighted_layers

blueprint = Blueprint("why", __name__, url_prefix="/why")
blueprint.context_processor(activations.list_template_functions)
blueprint.add_app_template_global(find_label_folder, "label_folder")


@blueprint.get("")
def show_why() -> str:
    """Show what speaks for a label of the current image, or examples to choose from."""
    predictor, image = context.require_predictor(), get_current_image()
    if image is None:
        return render_template("why.html", image=None, examples=activations.list_examples())
    if not image.is_of(predictor):
        return explain_other_network(image, "why.show_why")
    question, config = read_question(predictor, image), predictor.config
    probabilities = get_probabilities(image, 0)
    maps = [layer for layer in list_weighted_layers(config) if layer.kind == "maps"][-1]
    assert maps.receptive_field is not None
    return render_template(
        "why.html",
        image=image,
        question=question,
        label=predictor.classes[question.label],
        classes=sorted(predictor.classes, key=lambda one: one.label.casefold()),
        answers=list_tower_answers(question),
        guesses=predictor.top5(probabilities),
        maps=maps,
        map_place=activations.locate_map(maps.receptive_field, maps.side, config),
        crop_place=locate_crop(config),
        sides=(COARSE_SIDE, FINE_SIDE),
        part_count=PARTS,
        url=lambda endpoint, **values: make_question_url(question, endpoint, **values),
        config=config,
    )


@blueprint.get("/occlusion.png")
def occlusion_picture() -> Response:
    """Return the image's shade by the coarse grid of occlusion."""

    def draw(question: Question) -> Image.Image:
        uncovered = get_probabilities(question.image, question.tower)[question.label]
        covered = get_occlusion(question.image, question.tower, 0)[:, question.label]
        return draw_shade((uncovered - covered).reshape(COARSE_SIDE, COARSE_SIDE), smooth=False)

    return send_explanation("occlusion", draw)


@blueprint.get("/grad-cam.png")
def grad_cam_picture() -> Response:
    """Return the image's shade by Grad-CAM."""
    return send_explanation(
        "grad-cam", lambda question: draw_shade(get_grad_cam(question).heat, smooth=True)
    )


@blueprint.get("/guided.png")
def guided_picture() -> Response:
    """Return guided backpropagation to the pixels of the centre crop."""
    return send_explanation("guided", lambda question: draw_gradient(get_guided_gradient(question)))


def send_explanation(name: str, draw: Callable[[Question], Image.Image]) -> Response:
    """Return a picture that answers the question in the address."""
    image = activations.require_current_image()
    question = read_question(context.require_predictor(), image)
    name = f"{name}-{question.label}-{question.tower}"
    if fresh := activations.check_picture_not_modified(image, name):
        return fresh
    return activations.send_picture(image, name, draw(question))


def locate_crop(config: AlexNetConfig) -> Rectangle:
    """Return where the centre crop lies in the image."""
    rows, columns = find_centre_crop(config)
    return Rectangle(left=columns.start, top=rows.start, width=config.crop, height=config.crop)


def make_question_url(question: Question, endpoint: str, **values: Any) -> str:
    """Return the address of a picture or of data that answers the question."""
    return url_for(
        endpoint,
        of=question.image.of,
        label=context.require_predictor().classes[question.label].folder,
        tower=question.tower or None,
        v=activations.make_picture_version(question.image),
        **values,
    )
