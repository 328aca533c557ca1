"""The runs of training found on disk: how far each is, its epochs, what it was told."""

from datetime import UTC, datetime
from typing import Any

from flask import url_for
from marshmallow import Schema, fields

from app import context
from app.api import etags, pagination
from app.api.openapi import ApiBlueprint
from app.views.runs import evaluation as judged
from app.views.runs.facts import identities, machine_of
from app.views.runs.page import known
from app.views.runs.state import state_of
from storage.evaluations import Result
from storage.runs import Run, read_runs

blueprint = ApiBlueprint(
    "runs", "The runs of training found on disk, while they go on and afterwards."
)
ERROR_RANGE = {"minimum": 0, "maximum": 1}


def nullable_float(**metadata: Any) -> fields.Float:
    """Describe a number that may not be known."""
    return fields.Float(required=True, allow_none=True, metadata=metadata)


class EpochSchema(Schema):
    """What a pass over the training images gave; null for what is not known."""

    epoch = fields.Integer(required=True)
    rate = nullable_float(description="the learning rate")
    loss = nullable_float(description="the mean cross-entropy of the training batches")
    top1_error = nullable_float(description="of the validation images' centre crops", **ERROR_RANGE)
    top5_error = nullable_float(**ERROR_RANGE)
    images_per_second = nullable_float()
    data_wait = nullable_float(description="seconds it waited for images")
    seconds = nullable_float(description="in all, validation included")
    memory = nullable_float(description="the most so far, in GiB")


class RunSchema(Schema):
    """A run; null or empty for what its files do not tell."""

    name = fields.String(required=True)
    state = fields.String(required=True, metadata={"enum": ["finished", "running", "stopped"]})
    remaining = nullable_float(description="seconds until the last planned epoch, as estimated")
    preset = fields.String(required=True)
    data = fields.String(required=True, metadata={"description": "the folder trained on"})
    began = fields.AwareDateTime(required=True, allow_none=True)
    wrote = fields.AwareDateTime(required=True, allow_none=True)
    planned = fields.Integer(
        required=True, allow_none=True, metadata={"description": "epochs at most"}
    )
    done = fields.Integer(required=True, metadata={"description": "epochs"})
    last = fields.Nested(EpochSchema, required=True, allow_none=True)
    best = fields.Nested(
        EpochSchema,
        required=True,
        allow_none=True,
        metadata={"description": "of the lowest top-1 error"},
    )
    weights = fields.String(required=True, metadata={"description": "which its result is"})
    page = fields.String(required=True, metadata={"format": "uri-reference"})


class RunsSchema(pagination.PageSchema):
    """A page of runs, newest first."""

    runs = fields.List(fields.Nested(RunSchema), required=True)


class Conv1PictureSchema(Schema):
    """conv1 after an epoch."""

    epoch = fields.Integer(required=True)
    picture = fields.String(required=True, metadata={"format": "uri-reference"})


class RateSchema(Schema):
    """A share of images answered wrongly, and its 95 % interval."""

    wrong = fields.Integer(required=True)
    images = fields.Integer(required=True)
    error = fields.Float(required=True, metadata=ERROR_RANGE)
    low = fields.Float(required=True, metadata=ERROR_RANGE)
    high = fields.Float(required=True, metadata=ERROR_RANGE)


class EvaluationResultSchema(Schema):
    """How a network of the run answered."""

    name = fields.String(required=True)
    crops = fields.String(required=True, metadata={"description": "centre or ten"})
    top1 = fields.Nested(RateSchema, required=True, allow_none=True)
    top5 = fields.Nested(RateSchema, required=True, allow_none=True)


class EvaluationSchema(Schema):
    """The newest evaluation of what the run has made."""

    name = fields.String(required=True)
    created = fields.AwareDateTime(required=True, allow_none=True)
    data = fields.String(required=True)
    split = fields.String(required=True)
    images = fields.Integer(required=True)
    results = fields.List(fields.Nested(EvaluationResultSchema), required=True)


class RunDetailsSchema(RunSchema):
    """A run with all that its pages show."""

    epochs = fields.List(fields.Nested(EpochSchema), required=True)
    recipe = fields.Dict(
        keys=fields.String(), required=True, metadata={"description": "what it was told"}
    )
    machine = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        required=True,
        metadata={"description": "what it ran on"},
    )
    conv1 = fields.List(fields.Nested(Conv1PictureSchema), required=True)
    ten_crops = fields.List(
        fields.Float(),
        required=True,
        allow_none=True,
        metadata={"description": "top-1 and top-5 error of the result, from ten crops"},
    )
    evaluation = fields.Nested(EvaluationSchema, required=True, allow_none=True)


@blueprint.get("/runs")
@blueprint.arguments(pagination.PageQuerySchema, location="query")
@blueprint.doc(operationId="runs")
@blueprint.response(200, RunsSchema, headers=pagination.LINK_HEADER)
def list_runs(asked: dict[str, Any]) -> dict[str, Any]:
    """List the runs"""
    found = read_runs(context.settings().home)
    etags.etag_by_content()
    page = pagination.paginate(asked, len(found))
    return {**page, "runs": map(dump_run, pagination.slice_page(found, asked))}


@blueprint.get("/runs/<name>")
@blueprint.doc(operationId="run")
@blueprint.response(200, RunDetailsSchema)
def get_run(name: str) -> dict[str, Any]:
    """Tell of a run"""
    found = known(name)
    etags.etag_by_content()
    return {
        **dump_run(found),
        "epochs": found.epochs,
        "recipe": found.recipe,
        "machine": dict(machine_of(found)),
        "conv1": [
            {"epoch": epoch, "picture": url_for("training.conv1", name=name, epoch=epoch)}
            for epoch in found.conv1_epochs
        ],
        "ten_crops": found.ten_crops,
        "evaluation": dump_evaluation(found),
    }


def dump_run(found: Run) -> dict[str, Any]:
    """Tell of a run in short."""
    state = state_of(found, datetime.now(UTC))
    return {
        "name": found.name,
        "state": state.name,
        "remaining": state.remaining,
        "preset": found.preset,
        "data": found.data,
        "began": found.started_at,
        "wrote": found.last_write_at,
        "planned": found.planned_epochs,
        "done": len(found.epochs),
        "last": found.last_epoch,
        "best": found.best_epoch,
        "weights": found.weights,
        "page": url_for("training.show", name=found.name),
    }


def dump_evaluation(found: Run) -> dict[str, Any] | None:
    """Tell the newest evaluation of a run's networks, where there is one."""
    judgement = judged.judgement(identities(found), "")
    if judgement is None:
        return None
    verdict = judgement.verdict
    results: tuple[Result, ...] = judgement.results
    return {
        "name": verdict.name,
        "created": verdict.created,
        "data": verdict.data,
        "split": verdict.split,
        "images": verdict.images,
        "results": results,
    }
