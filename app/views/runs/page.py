"""The runs of training/ found on disk: all of them, one of them, several side by side."""

import hashlib
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from flask import Blueprint, Response, abort, make_response, render_template, request
from PIL import Image

from app import context
from app.views.format import format_age
from app.views.pictures import encode_png, missing_picture, picture_response
from app.views.runs import comparison, evaluation
from app.views.runs.curves import power
from app.views.runs.facts import figures_of, identities, machine_of, results, towers_of
from app.views.runs.plots import LETTERS, Spark, figures, plots_of, plots_over, spark
from app.views.runs.recipe import plain, settings_of
from app.views.runs.state import State, state_of
from app.web import not_modified, revalidate_by_content
from model.decode import ImageError, decode_image
from storage.evaluations import CROPS_LABELS
from storage.runs import Run, read_run, read_runs
from storage.tolerant_json import read_bounded

blueprint = Blueprint("training", __name__, url_prefix="/training")
blueprint.register_blueprint(evaluation.blueprint)
MOST_COMPARED = len(LETTERS)
MOST_EPOCH = 10**6
PICTURES = 6
PICTURE_SIZE = (776, 284)
"""Of conv1's picture of the paper's net, in pixels: where none can be read."""
MOST_PICTURE = 4_000_000
GONE = "There is no run of this name; it may have been deleted."

for filter_ in (power, figures, plain):
    blueprint.add_app_template_filter(filter_)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A run and how far it is. command: goes on with it; evaluate: has it judged."""

    run: Run
    state: State
    wrote: str
    command: str
    evaluate: str

    @property
    def running(self) -> bool:
        """Whether it is at work."""
        return self.state.name == "running"


@blueprint.get("")
def overview() -> Response:
    """Show all runs, newest first, each with its small curve."""
    found = [shown(run) for run in read_runs(context.settings().home)]
    rows: list[tuple[Shown, Spark]] = [(one, spark(one.run)) for one in found]
    page = render_template(
        "training.html",
        rows=rows,
        running=any(one.running for one in found),
        most=MOST_COMPARED,
    )
    return revalidate_by_content(make_response(page))


@blueprint.get("/<name>")
def show(name: str) -> Response:
    """Show one run: how far it is, its curves, conv1, what it was told, how it was judged."""
    run = known(name)
    one = shown(run)
    page = render_template(
        "run.html",
        one=one,
        run=run,
        running=one.running,
        plots=plots_of(run, running=one.running),
        settings=settings_of(run.recipe),
        machine=machine_of(run),
        figures_of=figures_of(run),
        towers=towers_of(run),
        chosen=spread(run.conv1_epochs),
        size=picture_size(run),
        judgement=evaluation.judgement(identities(run), request.args.get("evaluation", "")),
        crops=CROPS_LABELS,
    )
    return revalidate_by_content(make_response(page))


@blueprint.get("/compare")
def compare() -> Response:
    """Show two to six runs side by side."""
    home, names = context.settings().home, list(dict.fromkeys(request.args.getlist("run")))
    if not names and read_run(home, "compare"):
        return show("compare")
    asked = {name: read_run(home, name) for name in names[:MOST_COMPARED]}
    found = [shown(run) for run in asked.values() if run]
    runs = [one.run for one in found]
    page = render_template(
        "compare.html",
        shown=list(zip(LETTERS, found, strict=False)),
        running=any(one.running for one in found),
        gone=[name for name, run in asked.items() if run is None],
        more=len(names) > MOST_COMPARED,
        most=MOST_COMPARED,
        plots=plots_over(runs),
        rows=comparison.differences(runs),
        results=results(runs),
        epochs=sorted({epoch.epoch for run in runs for epoch in run.epochs}),
        by_epoch=[{epoch.epoch: epoch for epoch in run.epochs} for run in runs],
    )
    return revalidate_by_content(make_response(page))


@blueprint.get(f"/<name>/conv1/<int(max={MOST_EPOCH}):epoch>.png")
def conv1(name: str, epoch: int) -> Response:
    """Give the picture of conv1 after an epoch, the gaps between its kernels left open."""
    run = known(name)
    if epoch not in run.conv1_epochs:
        abort(404, "conv1 was not drawn after this epoch.")
    data = read_bounded(run.folder.conv1_picture(epoch), MOST_PICTURE)
    etag = hashlib.sha256(data or b"").hexdigest()[:32]
    if fresh := not_modified(etag, version=etag):
        return fresh
    try:
        return picture_response(
            opened_up(decode_image(data or b"")), etag, "image/png", version=etag
        )
    except ImageError:
        return missing_picture()


def known(name: str) -> Run:
    """Find a run by the name of its folder, or answer 404."""
    return read_run(context.settings().home, name) or abort(404, GONE)


def shown(run: Run) -> Shown:
    """Say how far a run is by now."""
    now = datetime.now(UTC)
    folder = f'"${{ALEXNET_HOME:-var}}"/runs/{shlex.quote(run.name)}'
    return Shown(
        run=run,
        state=state_of(run, now),
        wrote=format_age(run.last_write_at, now),
        command=f"python training/run.py --resume {folder}",
        evaluate=f"python training/evaluate.py {folder}{'' if run.finished else ' --best'}",
    )


def spread(epochs: tuple[int, ...], most: int = PICTURES) -> list[int]:
    """A few epochs: the first, the last, and some between them."""
    if len(epochs) <= most:
        return list(epochs)
    return [epochs[round(n * (len(epochs) - 1) / (most - 1))] for n in range(most)]


def picture_size(run: Run) -> tuple[int, int]:
    """The width and height of a run's pictures of conv1, in pixels."""
    data = (
        read_bounded(run.folder.conv1_picture(run.conv1_epochs[0]), MOST_PICTURE)
        if run.conv1_epochs
        else None
    )
    try:
        return decode_image(data or b"").size
    except ImageError:
        return PICTURE_SIZE


def opened_up(picture: Image.Image) -> bytes:
    """Encode conv1's picture as PNG; the page shows through where a row or column is white."""
    pixels = np.asarray(picture)
    white = (pixels == 255).all(2)
    gaps = white.all(0)[None, :] | white.all(1)[:, None]
    alpha = np.where(gaps, 0, 255).astype(np.uint8)
    return encode_png(Image.fromarray(np.dstack([pixels, alpha])))
