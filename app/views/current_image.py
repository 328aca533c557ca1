"""The image at hand: the one that the pages which look inside the network look at.

An address names it as `?of=TOKEN`, a kept result's, or `?of=image-ID`, one of the catalogue's.
Without that it is the image that this browser had classified last.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from flask import abort, request, url_for

from app import context
from app.database.images import CatalogueImage
from app.database.tables import UploadResult
from app.uploads.results import TOKEN, find_result, result_picture_file
from app.views.images import FILE_GONE, find_image_or_404, read_unchanged
from app.views.results import own_tokens
from model.predict import Pixels
from model.preprocess import ImageError, central_square, decode

IMAGE_NAME = re.compile(r"image-(\d{1,10})")
UNKNOWN_IMAGE = "There is no such image here, or it has been deleted."


@dataclass(frozen=True, kw_only=True)
class CurrentImage:
    """An image that a page looks at.

    of: what an address names it by. name: what people read. picture: the address of the picture.
    page: the address of its own page. key: names its pixels, for caches and ETags. private: an
    upload, which no cache on the way may keep.
    """

    of: str
    name: str
    picture: str
    page: str
    key: str
    private: bool
    read: Callable[[], bytes]

    def square(self) -> Pixels:
        """Give what the network sees of it, uint8 [256, 256, 3]; 404 when its file has gone.

        Of an upload the picture that was kept, encoded anew, is read, so that what is computed
        from it differs a little from the answer, which was computed from the file sent.
        """
        try:
            return central_square(decode(self.read()))
        except (ImageError, OSError):
            abort(404, FILE_GONE)


def get_current_image(default: Literal["own", "none"] = "own") -> CurrentImage | None:
    """Give the image that the address names, or this browser's last; 404 for an unknown one."""
    of = request.args.get("of", "")
    if of:
        return resolve_image(of) or abort(404, UNKNOWN_IMAGE)
    if default == "none":
        return None
    return next((found for token in own_tokens() if (found := resolve_image(token))), None)


def resolve_image(of: str) -> CurrentImage | None:
    """Give the image of that name, or None when there is none."""
    if TOKEN.fullmatch(of):
        result = find_result(of, context.settings(), context.sessions())
        return image_of_result(result) if result else None
    match = IMAGE_NAME.fullmatch(of)
    if match and int(match[1]) <= context.MAX_ID:
        return image_of_picture(find_image_or_404(int(match[1])))
    return None


def image_of_result(result: UploadResult) -> CurrentImage:
    """Look at the image of a kept result."""
    file = result_picture_file(context.settings(), result.token)
    return CurrentImage(
        of=result.token,
        name=result.filename,
        picture=url_for("results.serve_picture", token=result.token),
        page=url_for("results.show_result", token=result.token),
        key=result.token,
        private=True,
        read=file.read_bytes,
    )


def image_of_picture(image: CatalogueImage) -> CurrentImage:
    """Look at an image of the catalogue."""
    return CurrentImage(
        of=f"image-{image.id}",
        name=image.label,
        picture=url_for("images.serve_thumbnail", image_id=image.id, v=image.sha256[:12]),
        page=url_for("images.show_image", image_id=image.id),
        key=image.sha256,
        private=False,
        read=lambda: read_unchanged(image),
    )
