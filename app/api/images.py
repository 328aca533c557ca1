"""The training images, by class and by id."""

from typing import Any

from flask import abort
from marshmallow import Schema, fields, validate

from app import context
from app.api import etags, pagination, schemas
from app.api.openapi import ID_RULE, ApiBlueprint
from app.database.browse import ClassOrder, ImageOrder, find_class_page, list_classes
from app.views.explore import MAX_QUERY_LENGTH
from app.views.images import find_image_or_404

blueprint = ApiBlueprint("images", "The indexed training images, by class and by id.")


class ClassesQuerySchema(pagination.PageQuerySchema):
    """Which classes to list, and in which order."""

    q = fields.String(
        load_default="",
        validate=validate.Length(max=MAX_QUERY_LENGTH),
        metadata={"description": "words in the label; case and accents are ignored"},
    )
    sort = fields.Enum(ClassOrder, by_value=True, load_default=ClassOrder.NAME)


class ImagesQuerySchema(pagination.PageQuerySchema):
    """Which images of a class to list, and in which order."""

    sort = fields.Enum(ImageOrder, by_value=True, load_default=ImageOrder.NAME)


class ClassSchema(Schema):
    """A class of training images."""

    id = fields.Integer(required=True)
    folder = fields.String(required=True)
    label = fields.String(required=True)
    images = fields.Integer(required=True, metadata={"description": "number of indexed images"})


class ClassesSchema(pagination.PageSchema):
    """A page of classes."""

    classes = fields.List(fields.Nested(ClassSchema), required=True)
    index = fields.String(required=True)


class ImagesSchema(pagination.PageSchema):
    """A page of a class's images."""

    images = fields.List(fields.Nested(schemas.ImageSchema), required=True)
    index = fields.String(required=True)


@blueprint.get("/classes", immutable=True)
@blueprint.arguments(ClassesQuerySchema, location="query")
@blueprint.doc(operationId="classes")
@blueprint.response(200, ClassesSchema, headers=pagination.LINK_HEADER)
def get_classes(query: dict[str, Any]) -> dict[str, Any]:
    """List the classes"""
    state, _ = context.require_classes()
    etags.set_version_etag(state.version.name)
    classes = list_classes(
        context.sessions(), state.version.id, order=query["sort"], query=query["q"]
    )
    page = pagination.paginate(query, len(classes))
    return {**page, "classes": pagination.slice_page(classes, query), "index": state.version.name}


@blueprint.get(f"/classes/{ID_RULE}:class_id>/images", immutable=True)
@blueprint.arguments(ImagesQuerySchema, location="query")
@blueprint.doc(operationId="imagesOfClass")
@blueprint.response(200, ImagesSchema, headers=pagination.LINK_HEADER)
def list_class_images(query: dict[str, Any], class_id: int) -> dict[str, Any]:
    """List the images of a class"""
    state, listed = context.require_classes()
    etags.set_version_etag(state.version.name)
    total = next((c.images for c in listed if c.id == class_id), None)
    if total is None:
        abort(404, "There is no class with this id.")
    page = pagination.paginate(query, total)
    class_page = find_class_page(
        context.sessions(),
        state.version.id,
        class_id,
        query["page"],
        pagination.get_page_size(query),
        query["sort"],
    )
    pictures = class_page.pictures if class_page else []
    return {**page, "images": map(schemas.dump_image, pictures), "index": state.version.name}


@blueprint.get(f"/images/{ID_RULE}:image_id>")
@blueprint.doc(operationId="image")
@blueprint.response(200, schemas.ImageSchema)
def get_image(image_id: int) -> dict[str, Any]:
    """Get an image"""
    etags.set_content_etag()
    return schemas.dump_image(find_image_or_404(image_id))
