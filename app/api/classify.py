"""What the network and the index say of images that are sent."""

from pathlib import Path
from typing import Any

from marshmallow import Schema, fields

from app import context
from app.api import etags, schemas, uploads
from app.api.openapi import ID, Subject
from app.inference.answers import Answer
from app.uploads.receive import Upload
from app.views.images import classify_image, find_image

subject = Subject("classify", "What the network and the index say of images.")


class AnswerSchema(Schema):
    """What is said of one image."""

    filename = fields.String(required=True)
    width = fields.Integer(required=True, metadata={"description": "in pixels, upright"})
    height = fields.Integer(required=True)
    top5 = fields.List(
        fields.Nested(schemas.GuessSchema),
        required=True,
        metadata={"description": "the mean of the ten crops' softmax outputs, falling"},
    )
    crops = fields.List(
        fields.Nested(schemas.GuessSchema),
        required=True,
        metadata={"description": "the best of each of the ten crops"},
    )
    neighbours = fields.List(
        fields.Nested(schemas.NeighbourSchema),
        required=True,
        metadata={"description": "the six nearest by the 4096 features of fc7"},
    )
    by_pixels = fields.List(
        fields.Nested(schemas.NeighbourSchema),
        required=True,
        metadata={"description": "the six nearest by 32 × 32 pixels"},
    )
    sampled = fields.Integer(
        required=True,
        allow_none=True,
        metadata={"description": "images compared by pixels; null: all of them"},
    )
    milliseconds = fields.Dict(
        keys=fields.String(),
        values=fields.Float(),
        required=True,
        metadata={"description": "how long each step took"},
    )
    weights = fields.String(required=True, metadata={"description": "which weights answered"})
    index = fields.String(required=True, metadata={"description": "which version of the index"})


class AnswersSchema(Schema):
    """What is said of each image, in their order."""

    answers = fields.List(
        fields.Raw(
            metadata={
                "anyOf": [
                    {"$ref": "#/components/schemas/Answer"},
                    {"$ref": "#/components/schemas/Refused"},
                ]
            }
        ),
        required=True,
    )


@subject.post("/classify")
@subject.doc(requestBody=uploads.body_of(uploads.MANY), operationId="classify")
@subject.response(200, AnswersSchema)
def classify() -> dict[str, Any]:
    """Classify one or several images

    Of several, one that cannot be read has its problem in the place of an answer; one alone is
    answered with the problem. Nothing that is sent is kept.
    """
    context.ready()
    return {"answers": uploads.each(answer_to)}


@subject.get(f"/images/{ID}:image_id>/answer", lasting=True)
@subject.doc(operationId="answerForImage")
@subject.response(200, AnswerSchema)
def of_image(image_id: int) -> dict[str, Any]:
    """Classify an image of the catalogue, itself left out of its neighbours"""
    state, picture = context.ready(), find_image(image_id)
    etags.etag_by_version(state.version.name, picture.sha256)
    return {"filename": Path(picture.path).name, **told(classify_image(picture))}


def answer_to(upload: Upload) -> dict[str, Any]:
    """Answer for one image."""
    return {"filename": upload.filename, **told(context.answer(upload))}


def told(answer: Answer) -> dict[str, Any]:
    """Tell an answer."""
    return {
        "width": answer.width,
        "height": answer.height,
        "top5": schemas.guesses(answer.top5),
        "crops": schemas.guesses(answer.crops),
        "neighbours": schemas.neighbours(answer.neighbours),
        "by_pixels": schemas.neighbours(answer.by_pixels),
        "sampled": answer.sampled,
        "milliseconds": answer.milliseconds,
        "weights": answer.weights,
        "index": answer.version.name,
    }
