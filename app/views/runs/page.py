"""The pages of training runs: the list, one run, and several side by side."""

import hashlib
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from flask import Blueprint, Response, abort, make_response, render_template, request
from PIL import Image

from app import context
from app.views.format import format_time_ago
from app.views.pictures import encode_png, make_missing_picture_response, make_picture_response
from app.views.runs import evaluation
from app.views.runs.learning_curves import (
    LETTERS,
    draw_comparison_charts,
    draw_run_charts,
    draw_sparkline,
    find_highest_error,
)
from app.views.runs.recipe import describe_recipe
from app.views.runs.status import RunStatus, determine_run_status
from app.views.runs.tables import (
    compare_settings,
    make_machine_table,
    make_results_table,
    make_speed_table,
)
from app.web import check_not_modified, revalidate_by_content
from model.image.decode import ImageError, decode_image
from model.network.config import TOWERS
from model.network.definition import find_network
from storage.activity import read_activity
from storage.evaluations import CROPS_LABELS
from storage.runs import Run, read_run, read_runs
from storage.tolerant_json import read_bounded

blueprint = Blueprint("training", __name__, url_prefix="/training")
blueprint.register_blueprint(evaluation.blueprint)
MAX_COMPARED = len(LETTERS)
MAX_EPOCH = 10**6
MAX_CONV1_PICTURES = 6
CONV1_SIZE = (776, 284)
"""Pixels of the picture of the paper's conv1, assumed where no picture can be read."""
MAX_CONV1_BYTES = 4_000_000


@dataclass(frozen=True, kw_only=True)
class ListedRun:
    """A run with its status. resume_command and evaluate_command are for a shell."""

    run: Run
    status: RunStatus
    last_write: str
    resume_command: str
    evaluate_command: str

    @property
    def running(self) -> bool:
        """Whether it is still training."""
        return self.status.name == "running"


@blueprint.get("")
def show_runs() -> Response:
    """Show all runs, newest first, each with a sparkline."""
    runs = [list_run(run) for run in read_runs(context.settings().home)]
    highest = find_highest_error(listed.run for listed in runs)
    page = render_template(
        "training.html",
        rows=[(listed, draw_sparkline(listed.run, highest)) for listed in runs],
        activity=read_activity(context.settings().home.training_activity),
        max_compared=MAX_COMPARED,
    )
    return revalidate_by_content(make_response(page))


@blueprint.get("/<name>")
def show_run(name: str) -> Response:
    """Show one run: its status, charts, conv1 pictures, configuration and evaluation."""
    run = find_run(name)
    listed = list_run(run)
    asked = request.args.get("evaluation", "")
    page = render_template(
        "run.html",
        listed=listed,
        run=run,
        running=listed.running,
        charts=draw_run_charts(run, running=listed.running),
        recipe=describe_recipe(run.recipe),
        machine=make_machine_table(run),
        speed=make_speed_table(run),
        towers=count_towers(run),
        conv1_epochs=pick_epochs(run.conv1_epochs),
        conv1_size=read_conv1_size(run),
        evaluated=evaluation.find_run_evaluation(run, asked),
        crop_names=CROPS_LABELS,
    )
    return revalidate_by_content(make_response(page))


@blueprint.get("/compare")
def compare_runs() -> Response:
    """Show two to six runs side by side."""
    home, names = context.settings().home, list(dict.fromkeys(request.args.getlist("run")))
    if not names and read_run(home, "compare"):
        return show_run("compare")
    asked = {name: read_run(home, name) for name in names[:MAX_COMPARED]}
    listed = [list_run(run) for run in asked.values() if run]
    runs = [one.run for one in listed]
    page = render_template(
        "compare.html",
        compared=list(zip(LETTERS, listed, strict=False)),
        running=any(one.running for one in listed),
        missing=[name for name, run in asked.items() if run is None],
        truncated=len(names) > MAX_COMPARED,
        max_compared=MAX_COMPARED,
        charts=draw_comparison_charts(runs),
        results=make_results_table(runs),
        differences=compare_settings(runs),
        epochs=sorted({epoch.epoch for run in runs for epoch in run.epochs}),
        by_epoch=[{epoch.epoch: epoch for epoch in run.epochs} for run in runs],
    )
    return revalidate_by_content(make_response(page))


@blueprint.get(f"/<name>/conv1/<int(max={MAX_EPOCH}):epoch>.png")
def serve_conv1(name: str, epoch: int) -> Response:
    """Return the picture of conv1 after an epoch, transparent between its kernels."""
    run = find_run(name)
    if epoch not in run.conv1_epochs:
        abort(404, "There is no picture of conv1 for this epoch.")
    data = read_bounded(run.folder.conv1_picture(epoch), MAX_CONV1_BYTES) or b""
    etag = hashlib.sha256(data).hexdigest()[:32]
    if fresh := check_not_modified(etag, version=etag):
        return fresh
    try:
        picture = make_gaps_transparent(decode_image(data))
    except ImageError:
        return make_missing_picture_response()
    return make_picture_response(encode_png(picture), etag, "image/png", version=etag)


def find_run(name: str) -> Run:
    """Find a run by the name of its folder; 404 if there is none."""
    missing = "There is no run with this name; it may have been deleted."
    return read_run(context.settings().home, name) or abort(404, missing)


def list_run(run: Run) -> ListedRun:
    """Determine what the pages show of a run beside its files."""
    now = datetime.now(UTC)
    folder = f'"${{ALEXNET_HOME:-var}}"/runs/{shlex.quote(run.name)}'
    return ListedRun(
        run=run,
        status=determine_run_status(run, now),
        last_write=format_time_ago(run.last_write_at, now),
        resume_command=f"python training/run.py --resume {folder}",
        evaluate_command=f"python training/evaluate.py {folder}{'' if run.finished else ' --best'}",
    )


def count_towers(run: Run) -> int:
    """Return how many towers the run's network has; two where its variant is unknown."""
    config = find_network(run.recipe.get("variant"), run.recipe.get("definition"))
    return config.towers if config else TOWERS


def pick_epochs(epochs: tuple[int, ...], count: int = MAX_CONV1_PICTURES) -> list[int]:
    """Pick a few epochs: the first, the last, and some evenly between them."""
    if len(epochs) <= count:
        return list(epochs)
    return [epochs[round(n * (len(epochs) - 1) / (count - 1))] for n in range(count)]


def read_conv1_size(run: Run) -> tuple[int, int]:
    """Return the width and height of a run's pictures of conv1, in pixels."""
    if not run.conv1_epochs:
        return CONV1_SIZE
    data = read_bounded(run.folder.conv1_picture(run.conv1_epochs[0]), MAX_CONV1_BYTES)
    try:
        return decode_image(data or b"").size
    except ImageError:
        return CONV1_SIZE


def make_gaps_transparent(picture: Image.Image) -> Image.Image:
    """Make rows and columns that are white throughout transparent, for dark pages."""
    pixels = np.asarray(picture)
    white = (pixels == 255).all(2)
    gaps = white.all(0)[None, :] | white.all(1)[:, None]
    alpha = np.where(gaps, 0, 255).astype(np.uint8)
    return Image.fromarray(np.dstack([pixels, alpha]))
