"""The runs of training found on disk: how far each is, its epochs, what it was told."""

from datetime import UTC, datetime
from typing import Any

from flask import url_for
from marshmallow import Schema, fields

from app import context
from app.api import etags, pagination
from app.api.openapi import Subject
from app.views.runs import evaluation as judged
from app.views.runs.facts import identities, machine_of
from app.views.runs.page import known
from app.views.runs.state import state_of
from storage.evaluations import Result
from storage.runs import Run, read_runs

subject = Subject("runs", "The runs of training found on disk, while they go on and afterwards.")
ERROR = {"minimum": 0, "maximum": 1}


def number(**metadata: Any) -> fields.Float:
    """Describe a number that may not be known."""
    return fields.Float(required=True, allow_none=True, metadata=metadata)


class EpochSchema(Schema):
    """What a pass over the training images gave; null for what is not known."""

    epoch = fields.Integer(required=True)
    rate = number(description="the learning rate")
    loss = number(description="the mean cross-entropy of the training batches")
    top1_error = number(description="of the validation images' centre crops", **ERROR)
    top5_error = number(**ERROR)
    images_per_second = number()
    data_wait = number(description="seconds it waited for images")
    seconds = number(description="in all, validation included")
    memory = number(description="the most so far, in GiB")


class RunSchema(Schema):
    """A run; null or empty for what its files do not tell."""

    name = fields.String(required=True)
    state = fields.String(required=True, metadata={"enum": ["finished", "running", "stopped"]})
    remaining = number(description="seconds until the last planned epoch, as estimated")
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


class DrawnSchema(Schema):
    """conv1 after an epoch."""

    epoch = fields.Integer(required=True)
    picture = fields.String(required=True, metadata={"format": "uri-reference"})


class RateSchema(Schema):
    """A share of images answered wrongly, and its 95 % interval."""

    wrong = fields.Integer(required=True)
    images = fields.Integer(required=True)
    error = fields.Float(required=True, metadata=ERROR)
    low = fields.Float(required=True, metadata=ERROR)
    high = fields.Float(required=True, metadata=ERROR)


class VerdictSchema(Schema):
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
    results = fields.List(fields.Nested(VerdictSchema), required=True)


class WholeRunSchema(RunSchema):
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
    conv1 = fields.List(fields.Nested(DrawnSchema), required=True)
    ten_crops = fields.List(
        fields.Float(),
        required=True,
        allow_none=True,
        metadata={"description": "top-1 and top-5 error of the result, from ten crops"},
    )
    evaluation = fields.Nested(EvaluationSchema, required=True, allow_none=True)


@subject.get("/runs")
@subject.arguments(pagination.PageAskedSchema, location="query")
@subject.doc(operationId="runs")
@subject.response(200, RunsSchema, headers=pagination.LINKED)
def runs(asked: dict[str, Any]) -> dict[str, Any]:
    """List the runs"""
    found = read_runs(context.settings().home)
    etags.etag_by_content()
    page = pagination.page_of(asked, len(found))
    return {**page, "runs": map(told, pagination.cut(found, asked))}


@subject.get("/runs/<name>")
@subject.doc(operationId="run")
@subject.response(200, WholeRunSchema)
def run(name: str) -> dict[str, Any]:
    """Tell of a run"""
    found = known(name)
    etags.etag_by_content()
    return {
        **told(found),
        "epochs": found.epochs,
        "recipe": found.recipe,
        "machine": dict(machine_of(found)),
        "conv1": [
            {"epoch": epoch, "picture": url_for("training.conv1", name=name, epoch=epoch)}
            for epoch in found.pictures
        ],
        "ten_crops": found.ten_crops,
        "evaluation": evaluation(found),
    }


def told(found: Run) -> dict[str, Any]:
    """Tell of a run in short."""
    state = state_of(found, datetime.now(UTC))
    return {
        "name": found.name,
        "state": state.name,
        "remaining": state.remaining,
        "preset": found.preset,
        "data": found.data,
        "began": found.began,
        "wrote": found.wrote,
        "planned": found.planned,
        "done": len(found.epochs),
        "last": found.last,
        "best": found.best,
        "weights": found.weights,
        "page": url_for("training.show", name=found.name),
    }


def evaluation(found: Run) -> dict[str, Any] | None:
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
