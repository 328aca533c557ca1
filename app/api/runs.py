"""The training runs on disk: their progress, epochs and settings."""

from datetime import UTC, datetime
from typing import Any

from flask import url_for
from marshmallow import Schema, fields

from app import context
from app.api import etags, pagination
from app.api.openapi import ApiBlueprint
from app.views.runs.evaluation import find_run_evaluation
from app.views.runs.page import find_run
from app.views.runs.status import determine_run_status
from app.views.runs.tables import make_machine_table
from storage.evaluations import Result
from storage.runs import Run, read_runs

blueprint = ApiBlueprint("runs", "Training runs on disk, in progress or finished.")
ERROR_RANGE = {"minimum": 0, "maximum": 1}


def nullable_float(**metadata: Any) -> fields.Float:
    """Return a field for a number that may be unknown."""
    return fields.Float(required=True, allow_none=True, metadata=metadata)


class EpochSchema(Schema):
    """The metrics of an epoch; null if unknown."""

    epoch = fields.Integer(required=True)
    rate = nullable_float(description="learning rate")
    loss = nullable_float(description="mean cross-entropy of the training batches")
    top1_error = nullable_float(description="on the validation images' centre crops", **ERROR_RANGE)
    top5_error = nullable_float(**ERROR_RANGE)
    images_per_second = nullable_float()
    data_wait = nullable_float(description="seconds spent waiting for images")
    seconds = nullable_float(description="including validation")
    memory = nullable_float(description="peak so far, in GiB")
    training_top1_error = nullable_float(
        description="on the training batches, with dropout and augmentation", **ERROR_RANGE
    )
    validation_loss = nullable_float(
        description="mean cross-entropy on the validation images' centre crops"
    )
    skipped_steps = fields.Integer(
        required=True,
        allow_none=True,
        metadata={"description": "without an update, in float16; null in other precisions"},
    )
    conv1_low_frequency = nullable_float(
        description="share of the energy of conv1's kernels at low frequencies", **ERROR_RANGE
    )


class RunSchema(Schema):
    """A run; null or empty if its files do not say."""

    name = fields.String(required=True)
    state = fields.String(required=True, metadata={"enum": ["finished", "running", "stopped"]})
    remaining = nullable_float(description="estimated seconds until the last planned epoch")
    preset = fields.String(required=True)
    data = fields.String(required=True, metadata={"description": "folder of training images"})
    began = fields.AwareDateTime(required=True, allow_none=True)
    wrote = fields.AwareDateTime(required=True, allow_none=True)
    planned = fields.Integer(
        required=True, allow_none=True, metadata={"description": "maximum number of epochs"}
    )
    done = fields.Integer(required=True, metadata={"description": "finished epochs"})
    last = fields.Nested(EpochSchema, required=True, allow_none=True)
    best = fields.Nested(
        EpochSchema,
        required=True,
        allow_none=True,
        metadata={"description": "the epoch with the lowest top-1 error"},
    )
    weights = fields.String(
        required=True, metadata={"description": "identity of the resulting weights"}
    )
    page = fields.String(required=True, metadata={"format": "uri-reference"})


class RunsSchema(pagination.PageSchema):
    """A page of runs, newest first."""

    runs = fields.List(fields.Nested(RunSchema), required=True)


class Conv1PictureSchema(Schema):
    """A picture of conv1 after an epoch."""

    epoch = fields.Integer(required=True)
    picture = fields.String(required=True, metadata={"format": "uri-reference"})


class RateSchema(Schema):
    """An error rate and its 95 % confidence interval."""

    wrong = fields.Integer(required=True)
    images = fields.Integer(required=True)
    error = fields.Float(required=True, metadata=ERROR_RANGE)
    low = fields.Float(required=True, metadata=ERROR_RANGE)
    high = fields.Float(required=True, metadata=ERROR_RANGE)


class EvaluationResultSchema(Schema):
    """The error rates of one network of the run."""

    name = fields.String(required=True)
    crops = fields.String(required=True, metadata={"description": "centre or ten"})
    top1 = fields.Nested(RateSchema, required=True, allow_none=True)
    top5 = fields.Nested(RateSchema, required=True, allow_none=True)


class EvaluationSchema(Schema):
    """The newest evaluation of the run's weights."""

    name = fields.String(required=True)
    created = fields.AwareDateTime(required=True, allow_none=True)
    data = fields.String(required=True)
    split = fields.String(required=True)
    images = fields.Integer(required=True)
    results = fields.List(fields.Nested(EvaluationResultSchema), required=True)


class RunDetailsSchema(RunSchema):
    """A run with everything its pages show."""

    epochs = fields.List(fields.Nested(EpochSchema), required=True)
    recipe = fields.Dict(
        keys=fields.String(), required=True, metadata={"description": "settings of the run"}
    )
    machine = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        required=True,
        metadata={"description": "hardware and software it ran on"},
    )
    conv1 = fields.List(fields.Nested(Conv1PictureSchema), required=True)
    ten_crops = fields.List(
        fields.Float(),
        required=True,
        allow_none=True,
        metadata={"description": "top-1 and top-5 error of the result with ten crops"},
    )
    evaluation = fields.Nested(EvaluationSchema, required=True, allow_none=True)


@blueprint.get("/runs")
@blueprint.arguments(pagination.PageQuerySchema, location="query")
@blueprint.doc(operationId="runs")
@blueprint.response(200, RunsSchema, headers=pagination.LINK_HEADER)
def list_runs(query: dict[str, Any]) -> dict[str, Any]:
    """List the runs"""
    runs = read_runs(context.settings().home)
    etags.set_content_etag()
    page = pagination.paginate(query, len(runs))
    return {**page, "runs": map(dump_run, pagination.slice_page(runs, query))}


@blueprint.get("/runs/<name>")
@blueprint.doc(operationId="run")
@blueprint.response(200, RunDetailsSchema)
def get_run(name: str) -> dict[str, Any]:
    """Get a run"""
    run = find_run(name)
    etags.set_content_etag()
    return {
        **dump_run(run),
        "epochs": run.epochs,
        "recipe": run.recipe,
        "machine": dict(make_machine_table(run)),
        "conv1": [
            {"epoch": epoch, "picture": url_for("training.serve_conv1", name=name, epoch=epoch)}
            for epoch in run.conv1_epochs
        ],
        "ten_crops": run.ten_crops,
        "evaluation": dump_evaluation(run),
    }


def dump_run(run: Run) -> dict[str, Any]:
    """Return a run as JSON, without its epochs and settings."""
    status = determine_run_status(run, datetime.now(UTC))
    return {
        "name": run.name,
        "state": status.name,
        "remaining": status.remaining,
        "preset": run.preset,
        "data": run.data,
        "began": run.started_at,
        "wrote": run.last_write_at,
        "planned": run.planned_epochs,
        "done": len(run.epochs),
        "last": run.last_epoch,
        "best": run.best_epoch,
        "weights": run.weights,
        "page": url_for("training.show_run", name=run.name),
    }


def dump_evaluation(run: Run) -> dict[str, Any] | None:
    """Return the newest evaluation of a run's weights as JSON, or None."""
    evaluated = find_run_evaluation(run)
    if evaluated is None:
        return None
    evaluation = evaluated.evaluation
    results: tuple[Result, ...] = evaluated.results
    return {
        "name": evaluation.name,
        "created": evaluation.created,
        "data": evaluation.data_name,
        "split": evaluation.data.split or "",
        "images": evaluation.data.images,
        "results": results,
    }
