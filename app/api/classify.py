"""Classification of uploaded images and of images in the database."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from marshmallow import Schema, fields

from app import context
from app.api import etags, schemas, uploads
from app.api.openapi import ID_RULE, ApiBlueprint
from app.inference.classify import Classification, classify_image
from app.uploads.receive import Upload, make_decode_request
from app.views.images import classify_image_or_404, find_image_or_404

blueprint = ApiBlueprint("classify", "Labels and nearest training images for an image.")


class ClassificationSchema(Schema):
    """The classification of one image."""

    filename = fields.String(required=True)
    width = fields.Integer(
        required=True, metadata={"description": "in pixels, after applying the EXIF orientation"}
    )
    height = fields.Integer(required=True)
    top5 = fields.List(
        fields.Nested(schemas.LabelProbabilitySchema),
        required=True,
        metadata={"description": "mean softmax output of the ten crops, in descending order"},
    )
    crops = fields.List(
        fields.Nested(schemas.LabelProbabilitySchema),
        required=True,
        metadata={"description": "the most probable label of each of the ten crops"},
    )
    neighbours = fields.List(
        fields.Nested(schemas.NeighbourSchema),
        required=True,
        metadata={"description": "the six nearest training images by 4096-d fc7 features"},
    )
    by_pixels = fields.List(
        fields.Nested(schemas.NeighbourSchema),
        required=True,
        metadata={"description": "the six nearest training images by 32 × 32 pixels"},
    )
    sampled = fields.Integer(
        required=True,
        allow_none=True,
        metadata={"description": "number of images compared by pixels; null if all were"},
    )
    sureness = fields.Nested(
        schemas.SurenessSchema,
        required=True,
        allow_none=True,
        metadata={"description": "null without an index, or if it was not calibrated"},
    )
    milliseconds = fields.Dict(
        keys=fields.String(),
        values=fields.Float(),
        required=True,
        metadata={"description": "duration of each step"},
    )
    weights = fields.String(required=True, metadata={"description": "identity of the weights used"})
    index = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "version of the index used; null, and no neighbours, without one"},
    )


class ClassificationsSchema(Schema):
    """The classification of each image, in the order sent."""

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
@blueprint.doc(
    requestBody=uploads.describe_image_body(uploads.SEVERAL_IMAGES), operationId="classify"
)
@blueprint.response(200, ClassificationsSchema)
def classify_images() -> dict[str, Any]:
    """Classify one or more images

    Of several images, one that cannot be read has its problem in place of a classification; for
    a single image the response is the problem. Uploads are not stored.
    """
    context.require_serving()
    return {"answers": uploads.process_uploads(classify_upload)}


@blueprint.get(f"/images/{ID_RULE}:image_id>/answer", immutable=True)
@blueprint.doc(operationId="answerForImage")
@blueprint.response(200, ClassificationSchema)
def classify_stored_image(image_id: int) -> dict[str, Any]:
    """Classify an image in the database; the image itself is not among its neighbours"""
    state, picture = context.require_ready(), find_image_or_404(image_id)
    # `flask index look` adds a calibration to a version that serves already.
    etags.set_version_etag(state.version.name, picture.sha256, state.calibration is not None)
    return {
        "filename": Path(picture.path).name,
        **dump_classification(classify_image_or_404(picture)),
    }


def classify_upload(upload: Upload) -> dict[str, Any]:
    """Classify one uploaded image without storing it."""
    with context.compute_slot():
        classification, _ = classify_image(
            context.require_serving(),
            context.sessions(),
            upload.data,
            decode=context.decoder().decode,
            request=make_decode_request(context.settings()),
        )
    context.metrics().observe_stages(classification.milliseconds)
    return {"filename": upload.filename, **dump_classification(classification)}


def dump_classification(classification: Classification) -> dict[str, Any]:
    """Return a classification as JSON."""
    return {
        "width": classification.width,
        "height": classification.height,
        "top5": schemas.dump_labels(classification.top5),
        "crops": schemas.dump_labels(classification.crops),
        "neighbours": schemas.dump_neighbours(classification.neighbours),
        "by_pixels": schemas.dump_neighbours(classification.by_pixels),
        "sampled": classification.sampled,
        "sureness": asdict(classification.sureness) if classification.sureness else None,
        "milliseconds": classification.milliseconds,
        "weights": classification.weights,
        "index": classification.version.name if classification.version else None,
    }
