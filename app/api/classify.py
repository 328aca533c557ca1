"""What the network and the index say of images that are sent."""

from pathlib import Path
from typing import Any

from marshmallow import Schema, fields

from app import context
from app.api import etags, schemas, uploads
from app.api.openapi import ID_RULE, ApiBlueprint
from app.inference.classify import Classification, classify_image
from app.uploads.receive import Upload
from app.views.images import classify_image_or_404, find_image_or_404

blueprint = ApiBlueprint("classify", "What the network and the index say of images.")


class ClassificationSchema(Schema):
    """What is said of one image."""

    filename = fields.String(required=True)
    width = fields.Integer(required=True, metadata={"description": "in pixels, upright"})
    height = fields.Integer(required=True)
    top5 = fields.List(
        fields.Nested(schemas.LabelProbabilitySchema),
        required=True,
        metadata={"description": "the mean of the ten crops' softmax outputs, falling"},
    )
    crops = fields.List(
        fields.Nested(schemas.LabelProbabilitySchema),
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


class ClassificationsSchema(Schema):
    """What is said of each image, in their order."""

    answers = fields.List(
        fields.Raw(
            metadata={
                "anyOf": [
                    {"$ref": "#/components/schemas/Classification"},
                    {"$ref": "#/components/schemas/RejectedUpload"},
                ]
            }
        ),
        required=True,
    )


@blueprint.post("/classify")
@blueprint.doc(requestBody=uploads.image_body(uploads.SEVERAL_IMAGES), operationId="classify")
@blueprint.response(200, ClassificationsSchema)
def classify_uploads() -> dict[str, Any]:
    """Classify one or several images

    Of several, one that cannot be read has its problem in the place of an answer; one alone is
    answered with the problem. Nothing that is sent is kept.
    """
    context.require_ready()
    return {"answers": uploads.process_uploads(classify_upload)}


@blueprint.get(f"/images/{ID_RULE}:image_id>/answer", lasting=True)
@blueprint.doc(operationId="answerForImage")
@blueprint.response(200, ClassificationSchema)
def classify_stored_image(image_id: int) -> dict[str, Any]:
    """Classify an image of the catalogue, itself left out of its neighbours"""
    state, picture = context.require_ready(), find_image_or_404(image_id)
    etags.etag_by_version(state.version.name, picture.sha256)
    return {
        "filename": Path(picture.path).name,
        **dump_classification(classify_image_or_404(picture)),
    }


def classify_upload(upload: Upload) -> dict[str, Any]:
    """Classify one uploaded image; nothing of it is stored."""
    with context.compute_slot():
        classification, _ = classify_image(
            context.require_ready(),
            context.sessions(),
            upload.data,
            max_pixels=context.settings().upload_pixels,
        )
    return {"filename": upload.filename, **dump_classification(classification)}


def dump_classification(answer: Classification) -> dict[str, Any]:
    """Tell an answer."""
    return {
        "width": answer.width,
        "height": answer.height,
        "top5": schemas.dump_labels(answer.top5),
        "crops": schemas.dump_labels(answer.crops),
        "neighbours": schemas.dump_neighbours(answer.neighbours),
        "by_pixels": schemas.dump_neighbours(answer.by_pixels),
        "sampled": answer.sampled,
        "milliseconds": answer.milliseconds,
        "weights": answer.weights,
        "index": answer.version.name,
    }
