"""Schemas used by several resources: labels, neighbours and images."""

from dataclasses import asdict
from typing import Any

from flask import url_for
from marshmallow import Schema, fields

from app.database.images import CatalogueImage
from app.inference.classify import Neighbour
from model.predict import LabelProbability


class LabelProbabilitySchema(Schema):
    """A label and its probability."""

    label = fields.String(required=True)
    probability = fields.Float(required=True, metadata={"minimum": 0, "maximum": 1})


class NeighbourSchema(Schema):
    """A training image and its Euclidean distance."""

    id = fields.Integer(required=True)
    label = fields.String(required=True)
    distance = fields.Float(required=True, metadata={"minimum": 0})
    copies = fields.Integer(
        required=True,
        metadata={"description": "number of training images with exactly these pixels"},
    )
    near = fields.Boolean(
        required=True,
        metadata={"description": "whether it is a near-duplicate, as close as a re-encoded copy"},
    )
    thumbnail = fields.String(required=True, metadata={"format": "uri-reference"})
    page = fields.String(required=True, metadata={"format": "uri-reference"})


class SurenessSchema(Schema):
    """How sure a classification is, against validation images."""

    verdict = fields.String(
        required=True,
        metadata={
            "enum": ["sure", "unsure", "unlike"],
            "description": "unsure: between the first two labels; unlike: farther from the "
            "training images than images of known classes are",
        },
    )
    nearer = fields.Integer(
        required=True,
        allow_none=True,
        metadata={"description": "validation images that are nearer to a training image"},
    )
    images = fields.Integer(required=True, metadata={"description": "validation images in all"})
    temperature = fields.Float(
        required=True,
        allow_none=True,
        metadata={"description": "fitted on validation images; null if none has a known class"},
    )
    scaled = fields.List(
        fields.Nested(LabelProbabilitySchema),
        required=True,
        metadata={"description": "top5 with the probabilities at that temperature"},
    )


class ImageSchema(Schema):
    """An image in the database."""

    id = fields.Integer(required=True)
    label = fields.String(required=True)
    class_id = fields.Integer(required=True, data_key="class")
    split = fields.String(required=True, metadata={"enum": ["train", "val"]})
    filename = fields.String(
        required=True, metadata={"description": "path relative to the dataset's folder"}
    )
    format = fields.String(required=True)
    sha256 = fields.String(required=True, metadata={"description": "of the file"})
    width = fields.Integer(required=True)
    height = fields.Integer(required=True)
    thumbnail = fields.String(required=True, metadata={"format": "uri-reference"})
    picture = fields.String(required=True, metadata={"format": "uri-reference"})
    page = fields.String(required=True, metadata={"format": "uri-reference"})


def dump_labels(guesses: list[LabelProbability]) -> list[dict[str, Any]]:
    """Return labels and their probabilities as JSON."""
    return [asdict(guess) for guess in guesses]


def dump_neighbours(neighbours: list[Neighbour]) -> list[dict[str, Any]]:
    """Return neighbours as JSON, nearest first."""
    return [{**asdict(one), **make_image_urls(one.id)} for one in neighbours]


def make_image_urls(image_id: int) -> dict[str, str]:
    """Return the URLs of an image's thumbnail and page."""
    return {
        "thumbnail": url_for("images.serve_thumbnail", image_id=image_id),
        "page": url_for("images.show_image", image_id=image_id),
    }


def dump_image(picture: CatalogueImage) -> dict[str, Any]:
    """Return an image as JSON, without the absolute path of its file."""
    version = picture.sha256[:12]
    return {
        "id": picture.id,
        "label": picture.label,
        "class_id": picture.class_id,
        "split": picture.split,
        "filename": picture.path,
        "format": picture.format,
        "sha256": picture.sha256,
        "width": picture.width,
        "height": picture.height,
        "thumbnail": url_for("images.serve_thumbnail", image_id=picture.id, v=version),
        "picture": url_for("images.serve_picture", image_id=picture.id, v=version),
        "page": url_for("images.show_image", image_id=picture.id),
    }
