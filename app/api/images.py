"""The training images by class, and each by its id."""

from typing import Any

from flask import abort
from marshmallow import Schema, fields, validate

from app import context
from app.api import etags, pagination, schemas
from app.api.openapi import ID, Subject
from app.database import browse
from app.database.browse import ClassOrder, ImageOrder
from app.views.explore import LONGEST_QUERY
from app.views.images import find_image

subject = Subject("images", "The training images that are indexed, by class and by id.")


class ClassesAskedSchema(pagination.PageAskedSchema):
    """Which classes, and in which order."""

    q = fields.String(
        load_default="",
        validate=validate.Length(max=LONGEST_QUERY),
        metadata={"description": "words that the label has, accents and capitals aside"},
    )
    sort = fields.Enum(ClassOrder, by_value=True, load_default=ClassOrder.NAME)


class ImagesAskedSchema(pagination.PageAskedSchema):
    """Which of a class's images, and in which order."""

    sort = fields.Enum(ImageOrder, by_value=True, load_default=ImageOrder.NAME)


class ClassSchema(Schema):
    """A class of training images."""

    id = fields.Integer(required=True)
    folder = fields.String(required=True)
    label = fields.String(required=True)
    images = fields.Integer(required=True, metadata={"description": "how many are indexed"})


class ClassesSchema(pagination.PageSchema):
    """A page of classes."""

    classes = fields.List(fields.Nested(ClassSchema), required=True)
    index = fields.String(required=True)


class ImagesSchema(pagination.PageSchema):
    """A page of a class's images."""

    images = fields.List(fields.Nested(schemas.ImageSchema), required=True)
    index = fields.String(required=True)


@subject.get("/classes", lasting=True)
@subject.arguments(ClassesAskedSchema, location="query")
@subject.doc(operationId="classes")
@subject.response(200, ClassesSchema, headers=pagination.LINKED)
def classes(asked: dict[str, Any]) -> dict[str, Any]:
    """List the classes"""
    state, _ = context.listed()
    etags.etag_by_version(state.version.name)
    found = browse.classes(
        context.sessions(), state.version.id, order=asked["sort"], query=asked["q"]
    )
    page = pagination.page_of(asked, len(found))
    return {**page, "classes": pagination.cut(found, asked), "index": state.version.name}


@subject.get(f"/classes/{ID}:class_id>/images", lasting=True)
@subject.arguments(ImagesAskedSchema, location="query")
@subject.doc(operationId="imagesOfClass")
@subject.response(200, ImagesSchema, headers=pagination.LINKED)
def of_class(asked: dict[str, Any], class_id: int) -> dict[str, Any]:
    """List a class's images"""
    state, listed = context.listed()
    etags.etag_by_version(state.version.name)
    total = next((c.images for c in listed if c.id == class_id), None)
    if total is None:
        abort(404, "There is no class of this number.")
    told = pagination.page_of(asked, total)
    found = browse.class_page(
        context.sessions(),
        state.version.id,
        class_id,
        asked["page"],
        pagination.size_of(asked),
        asked["sort"],
    )
    pictures = found.pictures if found else []
    return {**told, "images": map(schemas.image, pictures), "index": state.version.name}


@subject.get(f"/images/{ID}:image_id>")
@subject.doc(operationId="image")
@subject.response(200, schemas.ImageSchema)
def image(image_id: int) -> dict[str, Any]:
    """Tell of an image"""
    etags.etag_by_content()
    return schemas.image(find_image(image_id))
