"""What the page Why shows: probabilities with a tower silenced, occlusion, Grad-CAM, gradients."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flask import abort, current_app, request

from app import context
from app.inference.lru_cache import LruCache
from app.views.current_image import CurrentImage
from app.views.layers.activations import check_network
from model.attribution.explain import (
    GradCam,
    backpropagate_guided,
    compute_grad_cam,
    isolate_tower,
    trace_forward_pass,
)
from model.attribution.gradients import ForwardPass
from model.attribution.occlusion import compute_softmax, list_batches, measure_occlusion
from model.dataset.folder import ClassName
from model.predict import Floats, Predictor

MAX_CACHED_PASSES = 2
"""Forward passes in memory at a time: 8 MB each for the paper's network."""
MAX_CACHED_PARTS = 64
"""Parts of occlusion, and probabilities, in memory: at most 0.3 MB each for a thousand labels."""


class ExplanationState:
    """What requests for explanations share."""

    def __init__(self) -> None:
        self.passes, self.parts = LruCache(MAX_CACHED_PASSES), LruCache(MAX_CACHED_PARTS)


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked: why this image has this label.

    label: the index of the class. tower: the tower that answers alone, the others silenced; 0 for
    all together.
    """

    image: CurrentImage
    label: int
    tower: int


@dataclass(frozen=True, kw_only=True)
class TowerAnswer:
    """The label's probability if one tower answers alone; tower 0 stands for all together."""

    tower: int
    probability: float


def read_question(predictor: Predictor, image: CurrentImage) -> Question:
    """Read the label and the tower from the address; 404 if the network does not have them.

    Without a label it is the most probable one of the whole network.
    """
    tower = request.args.get("tower", "0")
    if tower not in {"0"} | set(list_tower_names(predictor)):
        abort(404, "The network has no such tower.")
    folder = request.args.get("label", "")
    label = find_class_index(predictor.classes, folder)
    if label is None and folder:
        abort(404, "The network has no such label.")
    if label is None:
        label = int(get_probabilities(image, 0).argmax())
    return Question(image=image, label=label, tower=int(tower))


def list_tower_names(predictor: Predictor) -> list[str]:
    """List the towers that can answer alone; none if the network has only one."""
    towers = predictor.config.towers
    return [str(number) for number in range(1, towers + 1)] if towers > 1 else []


def find_class_index(classes: Sequence[ClassName], folder: str) -> int | None:
    """Return the index of the class of a folder; None if there is none."""
    return next((index for index, own in enumerate(classes) if own.folder == folder), None)


def find_label_folder(label: str) -> str | None:
    """Return the folder by which the page Why knows a label of the network in service."""
    classes = context.require_predictor().classes
    return next((own.folder for own in classes if own.label == label), None)


def get_probabilities(image: CurrentImage, tower: int) -> Floats:
    """Return the labels' probabilities for the centre crop: float32 [classes], cached."""
    predictor = context.require_predictor()
    check_network(image, predictor)

    def compute() -> Floats:
        with context.compute_slot():
            square = image.read_square(predictor)
            logits = predictor.runtime.run_logits(square[None], list_gains(predictor, tower))
            return compute_softmax(logits[0])

    key = ("probabilities", predictor.identity, image.key, tower)
    return get_state().parts.get(key, compute)


def list_tower_answers(question: Question) -> list[TowerAnswer]:
    """List the label's probability by all towers together and by each alone."""
    towers = [0, *map(int, list_tower_names(context.require_predictor()))]
    return [
        TowerAnswer(
            tower=tower,
            probability=float(get_probabilities(question.image, tower)[question.label]),
        )
        for tower in towers
    ]


def get_occlusion(image: CurrentImage, tower: int, part: int) -> Floats:
    """Return the labels' probabilities with each cell of a part covered, cached.

    float32 [81, classes], row by row. Between two batches others may compute.
    """
    predictor = context.require_predictor()
    check_network(image, predictor)

    def compute() -> Floats:
        gains, found = list_gains(predictor, tower), []
        with context.compute_slot():
            square = image.read_square(predictor)
        for cells in list_batches(part):
            with context.compute_slot():
                found.append(measure_occlusion(predictor, square, cells, gains))
        return np.concatenate(found)

    key = ("occlusion", predictor.identity, image.key, tower, part)
    return get_state().parts.get(key, compute)


def get_grad_cam(question: Question) -> GradCam:
    """Return Grad-CAM of a label."""
    predictor, forward = context.require_predictor(), get_forward_pass(question)
    with context.compute_slot():
        return compute_grad_cam(forward, predictor.config, question.label)


def get_guided_gradient(question: Question) -> Floats:
    """Return guided backpropagation of a label to the pixels: float32 [3, crop, crop]."""
    forward = get_forward_pass(question)
    with context.compute_slot():
        return backpropagate_guided(forward, question.label)


def get_forward_pass(question: Question) -> ForwardPass:
    """Return what all layers compute, cached for the few requests that a page makes."""
    predictor, image, tower = context.require_predictor(), question.image, question.tower
    check_network(image, predictor)

    def compute() -> ForwardPass:
        with context.compute_slot():
            square = image.read_square(predictor)
            return trace_forward_pass(predictor, square, list_gains(predictor, tower))

    return get_state().passes.get((predictor.identity, image.key, tower), compute)


def list_gains(predictor: Predictor, tower: int) -> list[Floats] | None:
    """Return the gains of a tower that answers alone; None for all together."""
    return isolate_tower(predictor.config, tower) if tower else None


def get_state() -> ExplanationState:
    """Return the application's state for explanations."""
    state: ExplanationState = current_app.extensions["explanations"]
    return state
