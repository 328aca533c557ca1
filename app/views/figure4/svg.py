"""An SVG made small: photographs as JPEG where matplotlib embeds them as PNG, and described."""

import base64
import io
from xml.etree import ElementTree

from PIL import Image

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
CC = "http://creativecommons.org/ns#"
QUALITY = 90
PNG, JPEG = "data:image/png;base64,", "data:image/jpeg;base64,"


def with_small_pictures(drawing: bytes, description: str) -> bytes:
    """Embed a drawing's pictures as JPEG, a fifth of the size, and say what is seen."""
    for prefix, space in (("", SVG), ("xlink", XLINK), ("cc", CC)):
        ElementTree.register_namespace(prefix, space)
    # What matplotlib has just written here is no stranger's XML.
    root = ElementTree.fromstring(drawing)
    for picture in root.iter(f"{{{SVG}}}image"):
        key = f"{{{XLINK}}}href"
        picture.set(key, as_jpeg(picture.get(key, "")))
    described = ElementTree.Element(f"{{{SVG}}}desc")
    described.text = description
    root.insert(1, described)  # after the title
    root.set("role", "img")
    whole: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return whole


def as_jpeg(address: str) -> str:
    """Encode a picture anew that an address holds."""
    data = base64.b64decode(address.removeprefix(PNG))
    out = io.BytesIO()
    with Image.open(io.BytesIO(data)) as picture:
        picture.convert("RGB").save(out, "JPEG", quality=QUALITY, optimize=True)
    return JPEG + base64.b64encode(out.getvalue()).decode()
