"""Training a network on a data set: started, stopped and resumed from its page."""

from collections.abc import Callable

from flask import Blueprint, Response, current_app, make_response, redirect, request, url_for
from werkzeug.wrappers import Response as Redirect

from app import context
from app.classroom.datasets import ClassroomDataset, DatasetError
from app.classroom.training_process import (
    SCRATCH,
    resume_training,
    start_training,
    stop_training,
)
from app.inference.served_weights import find_weights_source
from app.views.new.dataset import find_dataset, render_dataset


def add_training_actions(blueprint: Blueprint) -> None:
    """Add what the page of a data set does about training to the classroom's."""
    blueprint.post("/<name>/train")(train_on_dataset)
    blueprint.post("/<name>/train/stop")(stop_training_on_dataset)
    blueprint.post("/<name>/train/resume")(resume_training_on_dataset)


def train_on_dataset(name: str) -> Redirect | Response:
    """Start to train a network."""
    home = context.settings().home

    def start(dataset: ClassroomDataset) -> None:
        text = request.form.get("epochs", "")
        epochs = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
        weights = None
        if request.form.get("from") != SCRATCH:
            weights = find_weights_source(home).file
            if weights is None:
                raise DatasetError("There are no weights in service; start from random ones.", 409)
        start_training(home, dataset, weights, epochs)

    return act(name, "started", start)


def stop_training_on_dataset(name: str) -> Redirect | Response:
    """Have the training save a checkpoint and end."""
    home = context.settings().home
    return act(name, "stopped", lambda dataset: stop_training(home, dataset))


def resume_training_on_dataset(name: str) -> Redirect | Response:
    """Resume the last run."""
    home = context.settings().home
    return act(name, "resumed", lambda dataset: resume_training(home, dataset))


def act(name: str, done: str, action: Callable[[ClassroomDataset], None]) -> Redirect | Response:
    """Do something about the training on a data set; say on its page if that is impossible."""
    dataset = find_dataset(name)
    try:
        action(dataset)
    except DatasetError as error:
        return make_response(render_dataset(dataset, str(error)), error.status)
    current_app.logger.warning("%s training on the data set %s", done, name)
    return redirect(url_for(".show_dataset", name=name, _anchor="whole"), 303)
