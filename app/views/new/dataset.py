"""A data set's page: its photographs, and the classifier that is made of their features."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime

from flask import (
    Blueprint,
    Response,
    abort,
    current_app,
    make_response,
    redirect,
    render_template,
    request,
    url_for,
)
from werkzeug.wrappers import Response as Redirect

from app import context
from app.classroom.datasets import (
    PHOTOGRAPH_PATH,
    ClassroomDataset,
    DatasetError,
    delete_dataset,
    read_dataset,
)
from app.classroom.fitting import MAX_FITTED, FittingState
from app.classroom.head import Head
from app.classroom.training_process import MAX_EPOCHS, read_training_progress
from app.inference.state import NotReady
from app.uploads.receive import describe_upload_limits, list_sent_files, make_decode_request
from app.views.pictures import serve_image_file
from app.views.runs.status import determine_run_status
from app.web import revalidate_by_content
from model.predict import LabelProbability
from model.runtime.prepared import is_torch_installed
from storage.activity import read_activity

EXAMPLES_PER_CLASS = 6
MAX_CLASSES_WITH_EXAMPLES = 24
MAX_MISTAKES = 12
GUESSES, NEIGHBOURS = 5, 6
DEFAULT_EPOCHS = 10


@dataclass(frozen=True, kw_only=True)
class ShownClass:
    """A class on the page. examples: the paths of a few of its photographs."""

    label: str
    count: int
    examples: list[str]


@dataclass(frozen=True, kw_only=True)
class ShownPhotograph:
    """A photograph on the page. guess: what it was taken for; distance: to what was classified."""

    path: str
    label: str
    guess: str = ""
    distance: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the classifier says of an image: the most probable classes, the nearest photographs."""

    filename: str
    guesses: list[LabelProbability]
    nearest: list[ShownPhotograph]


def add_pages(blueprint: Blueprint) -> None:
    """Add the pages of a data set to the classroom's."""
    blueprint.get("/<name>")(show_dataset)
    blueprint.post("/<name>/delete")(remove_dataset)
    blueprint.get("/<name>/photographs/<path:path>")(serve_photograph)
    blueprint.post("/<name>/head")(make_head)
    blueprint.post("/<name>/classify")(classify_with_head)


def show_dataset(name: str) -> Response:
    """Show a data set, and what can be taught with it."""
    return revalidate_by_content(make_response(render_dataset(find_dataset(name))))


def render_dataset(
    dataset: ClassroomDataset, problem: str = "", answer: Answer | None = None
) -> str:
    """Render the page. problem: why nothing was done; answer: to an image just sent."""
    settings, state = context.settings(), context.loader().get_state()
    fitting = context.head_fitter().read_state(dataset)
    training = read_training_progress(settings.home, dataset)
    return render_template(
        "new_dataset.html",
        dataset=dataset,
        classes=describe_classes(dataset),
        problem=problem,
        answer=answer,
        fitting=fitting,
        mistakes=find_mistakes(fitting),
        max_fitted=MAX_FITTED,
        identity="" if isinstance(state, NotReady) else state.predictor.identity,
        limits=describe_upload_limits(settings),
        training=training,
        status=determine_run_status(training.run, datetime.now(UTC)) if training.run else None,
        preparing=read_activity(settings.home.training_activity) if training.running else None,
        can_train=is_torch_installed(),
        max_epochs=MAX_EPOCHS,
        default_epochs=DEFAULT_EPOCHS,
    )


def describe_classes(dataset: ClassroomDataset) -> list[ShownClass]:
    """Describe the classes; of a few, with some photographs of each."""
    paths: list[list[str]] = [[] for _ in dataset.classes]
    for photograph in dataset.photographs:
        paths[photograph.class_index].append(photograph.path)
    most = EXAMPLES_PER_CLASS if len(paths) <= MAX_CLASSES_WITH_EXAMPLES else 0
    return [
        ShownClass(label=label, count=len(own), examples=own[:most])
        for label, own in zip(dataset.classes, paths, strict=True)
    ]


def find_mistakes(fitting: FittingState) -> list[ShownPhotograph]:
    """Return the first photographs that the classifier takes for another class when left out."""
    head = fitting.head
    if head is None:
        return []
    wrong = (head.left_out != head.labels).nonzero()[0][:MAX_MISTAKES].tolist()
    return [
        ShownPhotograph(
            path=head.paths[number],
            label=head.classes[head.labels[number]],
            guess=head.classes[head.left_out[number]],
        )
        for number in wrong
    ]


def make_head(name: str) -> Redirect | Response:
    """Make the classifier with the network in service."""
    dataset, predictor = find_dataset(name), context.require_predictor()
    try:
        context.head_fitter().start(dataset, predictor)
    except DatasetError as error:
        return make_response(render_dataset(dataset, str(error)), error.status)
    current_app.logger.warning("fitting a head to %s with %s", name, predictor.identity)
    return redirect(url_for(".show_dataset", name=name, _anchor="quick"), 303)


def classify_with_head(name: str) -> str | Response:
    """Classify an image with the classifier; with `part` in the address, only the answer."""
    dataset, predictor = find_dataset(name), context.require_predictor()
    head = context.head_fitter().read_state(dataset).head
    if head is None or head.identity != predictor.identity:
        problem = "There is no classifier for the network in service; make it first."
        return make_response(render_dataset(dataset, problem), 409)
    (sent, *_) = list_sent_files(request, context.settings())
    upload = context.accept_upload(sent)
    with context.compute_slot():
        limits = make_decode_request(context.settings())
        square = context.decode_square(predictor, upload.data, limits)
        with context.metrics().stage_seconds.labels("network").time():
            features = predictor.extract_features(square[None])
    (probabilities,) = head.compute_probabilities(features)
    order = (-probabilities).argsort(kind="stable")[:GUESSES].tolist()
    answer = Answer(
        filename=upload.filename,
        guesses=[LabelProbability(head.classes[i], float(probabilities[i])) for i in order],
        nearest=[
            describe_neighbour(head, number, distance)
            for number, distance in head.find_nearest(features[0], NEIGHBOURS)
        ],
    )
    if "part" in request.args:
        return render_template("new_answer.html", answer=answer, dataset=dataset)
    return render_dataset(dataset, answer=answer)


def describe_neighbour(head: Head, number: int, distance: float) -> ShownPhotograph:
    """Describe a photograph that is near to what was classified."""
    label = head.classes[head.labels[number]]
    return ShownPhotograph(path=head.paths[number], label=label, distance=distance)


def remove_dataset(name: str) -> Redirect | Response:
    """Delete a data set, unless a network is just being trained on it."""
    dataset = find_dataset(name)
    if read_training_progress(context.settings().home, dataset).running:
        problem = "A network is being trained on it; stop the training first."
        return make_response(render_dataset(dataset, problem), 409)
    delete_dataset(dataset)
    current_app.logger.warning("deleted the data set %s", name)
    return redirect(url_for(".show_datasets"), 303)


def serve_photograph(name: str, path: str) -> Response:
    """Return the central square of a photograph, by its path in the data set."""
    dataset = find_dataset(name)
    if not PHOTOGRAPH_PATH.fullmatch(path):
        abort(404, "The data set has no such photograph.")
    made = dataset.created_at.timestamp() if dataset.created_at else 0
    etag = hashlib.sha256(f"{name} {made} {path}".encode()).hexdigest()[:32]
    return serve_image_file((dataset.folder / path).read_bytes, etag, whole=False)


def find_dataset(name: str) -> ClassroomDataset:
    """Find a data set; 404 if there is none of this name."""
    found = read_dataset(context.settings().home, name)
    return found or abort(404, "There is no data set of this name; it may have been deleted.")
