"""The current image: the one that the pages Filters and Layers show activations for.

A URL names it as `?of=TOKEN`, a stored result, or `?of=image-ID`, an image in the database.
Otherwise it is the image that this browser classified last.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from flask import abort, request, url_for

from app import context
from app.database.images import CatalogueImage
from app.database.session import DatabaseError
from app.database.tables import UploadResult
from app.uploads.results import TOKEN_PATTERN, find_own_results, find_result, locate_result_picture
from app.views.images import FILE_GONE, find_image_or_404, read_unchanged
from app.views.ownership import is_own, read_owner
from model.image.decode import ImageError
from model.predict import Pixels, Predictor

IMAGE_NAME = re.compile(r"image-(\d{1,10})")
UNKNOWN_IMAGE = "There is no such image, or it has been deleted."


@dataclass(frozen=True, kw_only=True)
class CurrentImage:
    """An image to show activations for.

    of: its name in URLs. name: its name for people. picture, page: URLs of the picture and of the
    image's own page. key: identifies its pixels, for caches and ETags. private: an upload, which
    caches between server and browser must not store. weights: the network that an upload was
    classified with; None for an image in the database, which belongs to no result. own: whether
    this browser uploaded it.
    """

    of: str
    name: str
    picture: str
    page: str
    key: str
    private: bool
    read: Callable[[], bytes]
    weights: str | None = None
    own: bool = False

    def is_of(self, predictor: Predictor) -> bool:
        """Whether this network's activations belong to what the image's own page shows."""
        return self.weights in (None, predictor.identity)

    def read_square(self, predictor: Predictor) -> Pixels:
        """Return the image as the network sees it, uint8 [256, 256, 3]; 404 if its file is gone.

        For an upload this reads the stored, re-encoded picture, so activations differ slightly
        from the result, which was computed from the uploaded file.
        """
        try:
            return context.decode_square(predictor, self.read())
        except (ImageError, OSError):
            abort(404, FILE_GONE)


def get_current_image(*, or_last: bool = True) -> CurrentImage | None:
    """Return the image that the URL names, or this browser's last; 404 for an unknown name."""
    of = request.args.get("of", "")
    if of:
        return resolve_image(of) or abort(404, UNKNOWN_IMAGE)
    if not or_last:
        return None
    try:
        own = find_own_results(read_owner(), context.settings(), context.sessions())
    except DatabaseError:
        return None  # pages that need no database work without one
    return describe_result_image(own[0]) if own else None


def resolve_image(of: str) -> CurrentImage | None:
    """Return the image of that name, or None."""
    if TOKEN_PATTERN.fullmatch(of):
        result = find_result(of, context.settings(), context.sessions())
        return describe_result_image(result) if result else None
    match = IMAGE_NAME.fullmatch(of)
    if match and int(match[1]) <= context.MAX_ID:
        return describe_catalogue_image(find_image_or_404(int(match[1])))
    return None


def describe_result_image(result: UploadResult) -> CurrentImage:
    """Return the image of a stored result."""
    file = locate_result_picture(context.settings(), result.token)
    return CurrentImage(
        of=result.token,
        name=result.filename,
        picture=url_for("results.serve_picture", token=result.token),
        page=url_for("results.show_result", token=result.token),
        key=result.token,
        private=True,
        read=file.read_bytes,
        weights=result.weights,
        own=is_own(result),
    )


def describe_catalogue_image(image: CatalogueImage) -> CurrentImage:
    """Return an image in the database."""
    return CurrentImage(
        of=f"image-{image.id}",
        name=image.label,
        picture=url_for("images.serve_picture", image_id=image.id, v=image.sha256[:12]),
        page=url_for("images.show_image", image_id=image.id),
        key=image.sha256,
        private=False,
        read=lambda: read_unchanged(image),
    )
