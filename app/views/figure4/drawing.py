"""Figure 4 as a file: a PNG for a two-column page, or an SVG with embedded images and real text.

Lengths are in inches from the top left corner. matplotlib's settings are global to the process,
so only one thread may draw at a time.
"""

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, FontProperties, fontManager, get_font
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path
from PIL import Image

from app.views.figure4.content import Bar, FigureContent, LabelledImage, Retrieval
from model.predict import Pixels

Squares = Mapping[int, Pixels]
"""Each image's square by id: uint8 [256, 256, 3]. Images whose file is gone are missing."""

WIDTH, MARGIN, DPI = 7.16, 0.03, 300
LEFT_COLUMNS, LEFT_WIDTH, SIDE_GAP = 4, 2.74, 0.26
"""Images per row on the left, the left side's width, and the space between the sides."""
COLUMN_GAP, ROW_GAP = 0.1, 0.15
"""Between images on the left."""
RIGHT_COLUMNS, RIGHT_GAP, FIRST_GAP = 7, 0.035, 0.12
"""Columns on the right, the gap between them, and the gap after the first."""
TITLE_HEIGHT, LINE_HEIGHT, BAR_HEIGHT = 0.165, 0.131, 0.027
"""Heights of the correct label, of a line with one of the five labels, and of its bar."""
FONT_SIZE, MIN_FONT_SIZE, MAX_FILL = 6.2, 4.8, 0.96
"""Font sizes in points, and how much of a line may be filled: hinting widens letters a little."""
INK, BAR, CORRECT, TRACK = "#1d1b18", "#3c4650", "#b3261e", "#eeeae1"
TITLE = "Figure 4"
SVG_NS, XLINK_NS = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
CC_NS = "http://creativecommons.org/ns#"
PNG_URL, JPEG_URL, JPEG_QUALITY = "data:image/png;base64,", "data:image/jpeg;base64,", 90
SHIPPED_FONTS = ("STIXGeneral", "DejaVu Sans")
"""The first is what `serif` stands for in the settings."""
SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "figure 4",
    # The first is shipped with matplotlib; the others are for SVG viewers that lack it.
    "font.serif": ["STIXGeneral", "Times New Roman", "Times"],
    "text.parse_math": False,
}


@dataclass(frozen=True)
class Paper:
    """The axes to draw on.

    families: fonts, the preferred ones first. resample: whether to resample images to the
    paper's resolution, or to keep their pixels.
    """

    axes: Axes
    families: Sequence[str]
    resample: bool

    def draw_picture(self, square: Pixels | None, x: float, y: float, side: float) -> None:
        """Draw an image, or a grey square if it is missing."""
        if square is None:
            self.draw_box(x, y, side, side, TRACK)
            return
        extent = (x, x + side, y + side, y)
        interpolation = "antialiased" if self.resample else "none"
        self.axes.imshow(square, extent=extent, interpolation=interpolation, aspect="auto")

    def draw_box(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """Draw a filled rectangle."""
        self.axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, linewidth=0))

    def draw_text(
        self, words: str, x: float, y: float, width: float, *, bold: bool = False, centred: bool
    ) -> None:
        """Write a line on its baseline; shrink a long one and, if necessary, truncate it."""
        font = FontProperties(
            family=self.families, weight="bold" if bold else "normal", size=FONT_SIZE
        )
        font.set_size(
            max(
                MIN_FONT_SIZE,
                min(1, width * MAX_FILL / measure_text_width(words, font)) * FONT_SIZE,
            )
        )
        self.axes.text(
            x + width / 2 if centred else x,
            y,
            fit_text(words, width, font),
            fontproperties=font,
            color=INK,
            ha="center" if centred else "left",
            va="baseline",
        )


def render_png(content: FigureContent, squares: Squares, caption: str) -> bytes:
    """Draw the figure as a PNG at 300 dpi, 7.22 inches wide."""
    metadata = {"Title": TITLE, "Description": caption}
    return render_figure(
        content, squares, lambda figure, out: figure.savefig(out, metadata=metadata)
    )


def render_svg(content: FigureContent, squares: Squares, caption: str) -> bytes:
    """Draw the figure as a self-contained SVG whose labels are text."""
    metadata = {"Title": TITLE, "Description": caption, "Date": None}

    def save(figure: Figure, out: io.BytesIO) -> None:
        FigureCanvasSVG(figure)
        figure.savefig(out, format="svg", metadata=metadata)

    drawing = render_figure(content, squares, save, resample=False)
    return shrink_svg(drawing, caption)


def render_figure(
    content: FigureContent,
    squares: Squares,
    save: Callable[[Figure, io.BytesIO], None],
    *,
    resample: bool = True,
) -> bytes:
    """Draw the figure on white and save it."""
    out = io.BytesIO()
    with mpl.rc_context(SETTINGS):
        height = max(left_height(content), right_height(content))
        size = WIDTH + 2 * MARGIN, height + 2 * MARGIN
        # Not pyplot, which keeps every figure in memory.
        figure = Figure(figsize=size, dpi=DPI, facecolor="white")
        FigureCanvasAgg(figure)
        across, down = (-MARGIN, WIDTH + MARGIN), (height + MARGIN, -MARGIN)
        axes = figure.add_axes((0, 0, 1, 1), xlim=across, ylim=down)
        axes.set_axis_off()
        axes.set_autoscale_on(False)
        sheet = Paper(
            axes, choose_fonts(text for one in content.left for text in list_texts(one)), resample
        )
        draw_left(sheet, content, squares)
        draw_right(sheet, content, squares)
        save(figure, out)
    return out.getvalue()


def list_texts(one: LabelledImage) -> list[str]:
    """List all texts of an image."""
    return [one.picture.label, *(bar.label for bar in one.bars)]


def left_image_size() -> float:
    """Return the size of an image on the left."""
    return (LEFT_WIDTH - (LEFT_COLUMNS - 1) * COLUMN_GAP) / LEFT_COLUMNS


def right_image_size() -> float:
    """Return the size of an image on the right."""
    return (
        WIDTH - LEFT_WIDTH - SIDE_GAP - FIRST_GAP - (RIGHT_COLUMNS - 2) * RIGHT_GAP
    ) / RIGHT_COLUMNS


def cell_height(content: FigureContent) -> float:
    """Return the height of an image on the left with its labels."""
    return (
        left_image_size() + TITLE_HEIGHT + LINE_HEIGHT * max(len(one.bars) for one in content.left)
    )


def left_height(content: FigureContent) -> float:
    """Return the height of the left side."""
    rows = -(-len(content.left) // LEFT_COLUMNS)
    return rows * cell_height(content) + (rows - 1) * ROW_GAP


def right_height(content: FigureContent) -> float:
    """Return the height of the right side."""
    return len(content.right) * (right_image_size() + RIGHT_GAP) - RIGHT_GAP


def draw_left(sheet: Paper, content: FigureContent, squares: Squares) -> None:
    """Draw the left side: images with their five labels, four per row."""
    step = left_image_size() + COLUMN_GAP, cell_height(content) + ROW_GAP
    for number, one in enumerate(content.left):
        row, column = divmod(number, LEFT_COLUMNS)
        draw_labelled_image(sheet, one, squares, column * step[0], row * step[1])


def draw_labelled_image(
    sheet: Paper, one: LabelledImage, squares: Squares, x: float, y: float
) -> None:
    """Draw an image, its correct label and its five bars."""
    side = left_image_size()
    sheet.draw_picture(squares.get(one.picture.id), x, y, side)
    below = y + side
    sheet.draw_text(one.picture.label, x, below + 0.105, side, bold=True, centred=True)
    for number, bar in enumerate(one.bars):
        draw_bar(sheet, bar, x, below + TITLE_HEIGHT + number * LINE_HEIGHT, side)


def draw_bar(sheet: Paper, bar: Bar, x: float, y: float, width: float) -> None:
    """Draw a label and, under it, a bar of its probability."""
    sheet.draw_text(bar.label, x, y + 0.073, width, bold=bar.correct, centred=False)
    top = y + 0.094
    sheet.draw_box(x, top, width, BAR_HEIGHT, TRACK)
    sheet.draw_box(x, top, width * bar.probability, BAR_HEIGHT, CORRECT if bar.correct else BAR)


def draw_right(sheet: Paper, content: FigureContent, squares: Squares) -> None:
    """Draw the right side: each image with its nearest training images."""
    for number, row in enumerate(content.right):
        draw_retrieval(sheet, row, squares, number * (right_image_size() + RIGHT_GAP))


def draw_retrieval(sheet: Paper, row: Retrieval, squares: Squares, y: float) -> None:
    """Draw one row of the right side."""
    side, start = right_image_size(), LEFT_WIDTH + SIDE_GAP
    sheet.draw_picture(squares.get(row.picture.id), start, y, side)
    for place, near in enumerate(row.neighbours):
        x = start + side + FIRST_GAP + place * (side + RIGHT_GAP)
        sheet.draw_picture(squares.get(near.id), x, y, side)


def fit_text(text: str, width: float, font: FontProperties) -> str:
    """Truncate a line to a width in inches."""
    start = text
    while start and measure_text_width(start + "…" * (start != text), font) > width * MAX_FILL:
        start = start[:-1].rstrip()
    return start if start == text else f"{start}…"


def measure_text_width(text: str, font: FontProperties) -> float:
    """Return the width of a line in inches."""
    points, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(points) / 72


def choose_fonts(texts: Iterable[str]) -> list[str]:
    """Choose font families that together cover all texts, the preferred ones first.

    A character that no installed font has is drawn as a box; an SVG viewer may have one.
    """
    missing = {ord(c) for text in texts for c in text}
    chosen = ["serif", *SHIPPED_FONTS[1:]]
    for name in SHIPPED_FONTS:
        missing -= read_font_characters(find_regular_font(name))
    for entry in fontManager.ttflist if missing else []:
        if not missing:
            break
        if found := missing & read_font_characters(entry):
            missing -= found
            chosen.append(entry.name)
    return chosen


def find_regular_font(family: str) -> FontEntry:
    """Find the upright, regular font of a family."""
    return next(
        one
        for one in fontManager.ttflist
        if one.name == family and one.style == "normal" and one.weight in (400, "normal")
    )


def read_font_characters(entry: FontEntry) -> set[int]:
    """Return the characters of a font; none if the font cannot be read."""
    try:
        return set(get_font(entry.fname).get_charmap())
    except (OSError, RuntimeError):
        return set()


def shrink_svg(drawing: bytes, description: str) -> bytes:
    """Embed an SVG's images as JPEG, a fifth of the size of PNG, and add its description."""
    for prefix, space in (("", SVG_NS), ("xlink", XLINK_NS), ("cc", CC_NS)):
        ElementTree.register_namespace(prefix, space)
    # This XML comes from matplotlib, not from a user.
    root = ElementTree.fromstring(drawing)
    for picture in root.iter(f"{{{SVG_NS}}}image"):
        key = f"{{{XLINK_NS}}}href"
        picture.set(key, convert_to_jpeg_url(picture.get(key, "")))
    described = ElementTree.Element(f"{{{SVG_NS}}}desc")
    described.text = description
    root.insert(1, described)  # after the title
    root.set("role", "img")
    whole: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return whole


def convert_to_jpeg_url(url: str) -> str:
    """Re-encode the image in a PNG data URL as JPEG."""
    data = base64.b64decode(url.removeprefix(PNG_URL))
    out = io.BytesIO()
    with Image.open(io.BytesIO(data)) as picture:
        picture.convert("RGB").save(out, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return JPEG_URL + base64.b64encode(out.getvalue()).decode()
