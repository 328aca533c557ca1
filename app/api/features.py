"""The 4096-d fc7 features of uploaded images and of images in the database."""

from typing import Any

import numpy as np
from flask import Response, after_this_request, request
from marshmallow import Schema, fields, validate

from app import context
from app.api import etags, uploads
from app.api.openapi import ID_RULE, ApiBlueprint
from app.database.images import CatalogueImage
from app.uploads.receive import Upload, make_decode_request
from app.views.current_image import describe_catalogue_image
from app.views.images import find_image_or_404
from index.vectors import Floats
from model.network.config import FEATURES
from model.predict import Pixels, Predictor

blueprint = ApiBlueprint("features", "The 4096-d features of fc7, the network's last hidden layer.")
JSON, BYTES = "application/json", "application/octet-stream"
RAW_SCHEMA = {
    "type": "string",
    "format": "binary",
    "description": "float32, little-endian, 4096 values per image",
}
FEATURE_FIELD = fields.List(
    fields.Float(),
    required=True,
    validate=validate.Length(equal=FEATURES),
    metadata={"description": "of the centre crop, non-negative; float32 in full precision"},
)


class FeatureSchema(Schema):
    """The features of an uploaded image."""

    filename = fields.String(required=True)
    feature = FEATURE_FIELD


class FeaturesSchema(Schema):
    """The features of each image, in the order sent."""

    features = fields.List(
        fields.Raw(
            metadata={
                "anyOf": [
                    {"$ref": "#/components/schemas/Feature"},
                    {"$ref": "#/components/schemas/RejectedUpload"},
                ]
            }
        ),
        required=True,
    )
    weights = fields.String(required=True, metadata={"description": "identity of the weights used"})


class ImageFeatureSchema(Schema):
    """The features of an image in the database."""

    id = fields.Integer(required=True)
    feature = FEATURE_FIELD
    weights = fields.String(required=True)
    index = fields.String(required=True)


@blueprint.post("/features")
@blueprint.doc(
    requestBody=uploads.describe_image_body(uploads.SEVERAL_IMAGES), operationId="features"
)
@blueprint.response(200, FeaturesSchema)
@blueprint.alt_response(200, schema=RAW_SCHEMA, content_type=BYTES)
def extract_features() -> dict[str, Any] | Response:
    """Extract the features of one or more images

    Of several images, one that cannot be read has its problem in place of its features; if bytes
    are requested, the response is the first such problem.
    """
    predictor = context.require_predictor()
    if wants_bytes():
        rows = [
            extract_upload_features(context.accept_upload(f)) for f in uploads.read_uploaded_files()
        ]
        return make_bytes_response(np.stack(rows))
    return {
        "features": uploads.process_uploads(dump_upload_features),
        "weights": predictor.identity,
    }


@blueprint.get(f"/images/{ID_RULE}:image_id>/features", immutable=True)
@blueprint.doc(operationId="featuresOfImage")
@blueprint.response(200, ImageFeatureSchema)
@blueprint.alt_response(200, schema=RAW_SCHEMA, content_type=BYTES)
def get_image_features(image_id: int) -> dict[str, Any] | Response:
    """Get the features of an image

    Indexed images have the features stored in the index; for others they are computed from the
    file.
    """
    state, picture, in_bytes = context.require_ready(), find_image_or_404(image_id), wants_bytes()
    etags.set_version_etag(state.version.name, picture.sha256, in_bytes)
    feature = load_or_extract_features(picture)
    if in_bytes:
        return make_bytes_response(feature[None])
    return {
        "id": image_id,
        "feature": feature.tolist(),
        "weights": state.predictor.identity,
        "index": state.version.name,
    }


def wants_bytes() -> bool:
    """Return whether the client prefers bytes to JSON."""
    after_this_request(add_vary_accept)
    return request.accept_mimetypes.best_match([JSON, BYTES]) == BYTES


def add_vary_accept(response: Response) -> Response:
    """Tell caches that the response depends on the Accept header."""
    response.vary.add("Accept")
    return response


def dump_upload_features(upload: Upload) -> dict[str, Any]:
    """Return the features of one uploaded image as JSON."""
    return {"filename": upload.filename, "feature": extract_upload_features(upload).tolist()}


def extract_upload_features(upload: Upload) -> Floats:
    """Extract an upload's features, float32 [4096]; waits for a free slot."""
    with context.compute_slot():
        predictor = context.require_predictor()
        limits = make_decode_request(context.settings())
        square = context.decode_square(predictor, upload.data, limits)
        return extract_square_features(predictor, square)


def load_or_extract_features(picture: CatalogueImage) -> Floats:
    """Return the features of an image in the database, float32 [4096]; 404 if its file is gone."""
    state = context.require_ready()
    if state.index.id_map.find_row(picture.id) is not None:
        stored: Floats = state.index.read_features([picture.id])[0]
        return stored
    with context.compute_slot():
        return extract_square_features(
            state.predictor, describe_catalogue_image(picture).read_square(state.predictor)
        )


def extract_square_features(predictor: Predictor, square: Pixels) -> Floats:
    """Extract the features of uint8 [256, 256, 3]: float32 [4096]."""
    with context.metrics().stage_seconds.labels("network").time():
        features: Floats = predictor.extract_features(square[None])[0]
    return features


def make_bytes_response(rows: Floats) -> Response:
    """Return features, float32 [N, 4096], as little-endian bytes, one image after another."""
    return Response(np.ascontiguousarray(rows, dtype="<f4").tobytes(), content_type=BYTES)
