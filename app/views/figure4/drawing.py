"""Figure 4 as a file: PNG for a page of two columns, or SVG with its pictures and real text.

Drawn in inches from the top left corner. matplotlib's settings are the process's, so that only
one thread may draw at a time.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path

from app.views.figure4.caption import TITLE
from app.views.figure4.fonts import choose_fonts
from app.views.figure4.rows import Bar, FigureContent, LabelledImage, Retrieval
from app.views.figure4.svg import with_small_pictures
from model.predict import Pixels

Squares = Mapping[int, Pixels]
"""What is seen of each image, by its id: uint8 [256, 256, 3]. One whose file has gone lacks."""

WIDTH, MARGIN, DPI = 7.16, 0.03, 300
ACROSS, LEFT_WIDTH, BETWEEN = 4, 2.74, 0.26
"""Images in a row on the left, the left's width, and the space between left and right."""
GAP, DOWN = 0.1, 0.15
"""Between images of the left, across and down."""
COLUMNS, NEAR_GAP, FIRST_GAP = 7, 0.035, 0.12
"""Columns on the right, the space between them, and that after the first."""
NAME, LINE, THICK = 0.165, 0.131, 0.027
"""Heights of the correct label, of a line of the five, and of its bar."""
POINTS, SMALLEST, ROOM = 6.2, 4.8, 0.96
"""Sizes of the type, and how much of a line may be filled: hinted, letters are a little wider."""
INK, BAR, CORRECT, TRACK = "#1d1b18", "#3c4650", "#b3261e", "#eeeae1"
SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "figure 4",
    # The first is drawn with; the others are for who shows the SVG and lacks it.
    "font.serif": ["STIXGeneral", "Times New Roman", "Times"],
    "text.parse_math": False,
}


@dataclass(frozen=True)
class Paper:
    """What is drawn on.

    families: the fonts, the preferred ones first. sharp: whether pictures are made for paper's
    dots, or kept as they are.
    """

    axes: Axes
    families: Sequence[str]
    sharp: bool

    def picture(self, square: Pixels | None, x: float, y: float, side: float) -> None:
        """Draw an image, or an empty square in its place."""
        if square is None:
            self.box(x, y, side, side, TRACK)
            return
        extent = (x, x + side, y + side, y)
        how = "antialiased" if self.sharp else "none"
        self.axes.imshow(square, extent=extent, interpolation=how, aspect="auto")

    def box(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """Draw a filled rectangle."""
        self.axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, linewidth=0))

    def words(
        self, text: str, x: float, y: float, width: float, *, bold: bool = False, middle: bool
    ) -> None:
        """Write a line on its baseline: a long one smaller, and cut where that is not enough."""
        font = FontProperties(
            family=self.families, weight="bold" if bold else "normal", size=POINTS
        )
        font.set_size(max(SMALLEST, min(1, width * ROOM / text_width(text, font)) * POINTS))
        self.axes.text(
            x + width / 2 if middle else x,
            y,
            fit_text(text, width, font),
            fontproperties=font,
            color=INK,
            ha="center" if middle else "left",
            va="baseline",
        )


def render_png(plate: FigureContent, squares: Squares, caption: str) -> bytes:
    """Draw it as a PNG of 300 dots an inch, 7.22 inches wide."""
    facts = {"Title": TITLE, "Description": caption}
    return render_figure(plate, squares, lambda figure, out: figure.savefig(out, metadata=facts))


def render_svg(plate: FigureContent, squares: Squares, caption: str) -> bytes:
    """Draw it as an SVG that holds all it needs, its words as text."""
    facts = {"Title": TITLE, "Description": caption, "Date": None}

    def save(figure: Figure, out: io.BytesIO) -> None:
        FigureCanvasSVG(figure)
        figure.savefig(out, format="svg", metadata=facts)

    whole = render_figure(plate, squares, save, sharp=False)
    return with_small_pictures(whole, caption)


def render_figure(
    plate: FigureContent,
    squares: Squares,
    save: Callable[[Figure, io.BytesIO], None],
    *,
    sharp: bool = True,
) -> bytes:
    """Draw on a white sheet and save that."""
    out = io.BytesIO()
    with mpl.rc_context(SETTINGS):
        height = max(left_height(plate), right_height(plate))
        size = WIDTH + 2 * MARGIN, height + 2 * MARGIN
        # Not pyplot: that keeps every figure in the process.
        figure = Figure(figsize=size, dpi=DPI, facecolor="white")
        FigureCanvasAgg(figure)
        across, down = (-MARGIN, WIDTH + MARGIN), (height + MARGIN, -MARGIN)
        axes = figure.add_axes((0, 0, 1, 1), xlim=across, ylim=down)
        axes.set_axis_off()
        axes.set_autoscale_on(False)
        sheet = Paper(
            axes, choose_fonts(text for one in plate.left for text in list_texts(one)), sharp
        )
        draw_left(sheet, plate, squares)
        draw_right(sheet, plate, squares)
        save(figure, out)
    return out.getvalue()


def list_texts(one: LabelledImage) -> list[str]:
    """All that is written of an image."""
    return [one.picture.label, *(bar.label for bar in one.bars)]


def left_side() -> float:
    """The side of an image of the left."""
    return (LEFT_WIDTH - (ACROSS - 1) * GAP) / ACROSS


def right_side() -> float:
    """The side of an image of the right."""
    return (WIDTH - LEFT_WIDTH - BETWEEN - FIRST_GAP - (COLUMNS - 2) * NEAR_GAP) / COLUMNS


def cell_height(plate: FigureContent) -> float:
    """The height of an image of the left with all that stands under it."""
    return left_side() + NAME + LINE * max(len(one.bars) for one in plate.left)


def left_height(plate: FigureContent) -> float:
    """The height of the left."""
    rows = -(-len(plate.left) // ACROSS)
    return rows * cell_height(plate) + (rows - 1) * DOWN


def right_height(plate: FigureContent) -> float:
    """The height of the right."""
    return len(plate.right) * (right_side() + NEAR_GAP) - NEAR_GAP


def draw_left(sheet: Paper, plate: FigureContent, squares: Squares) -> None:
    """Draw the images with their five labels, four in a row."""
    step = left_side() + GAP, cell_height(plate) + DOWN
    for number, one in enumerate(plate.left):
        row, column = divmod(number, ACROSS)
        draw_labelled_image(sheet, one, squares, column * step[0], row * step[1])


def draw_labelled_image(
    sheet: Paper, one: LabelledImage, squares: Squares, x: float, y: float
) -> None:
    """Draw an image, its correct label, and its five bars."""
    side = left_side()
    sheet.picture(squares.get(one.picture.id), x, y, side)
    below = y + side
    sheet.words(one.picture.label, x, below + 0.105, side, bold=True, middle=True)
    for number, bar in enumerate(one.bars):
        draw_bar(sheet, bar, x, below + NAME + number * LINE, side)


def draw_bar(sheet: Paper, bar: Bar, x: float, y: float, width: float) -> None:
    """Draw a label and, under it, how probable it is."""
    sheet.words(bar.label, x, y + 0.073, width, bold=bar.correct, middle=False)
    top = y + 0.094
    sheet.box(x, top, width, THICK, TRACK)
    sheet.box(x, top, width * bar.probability, THICK, CORRECT if bar.correct else BAR)


def draw_right(sheet: Paper, plate: FigureContent, squares: Squares) -> None:
    """Draw each image with those nearest to it."""
    for number, row in enumerate(plate.right):
        draw_retrieval(sheet, row, squares, number * (right_side() + NEAR_GAP))


def draw_retrieval(sheet: Paper, row: Retrieval, squares: Squares, y: float) -> None:
    """Draw one of them, its row."""
    side, start = right_side(), LEFT_WIDTH + BETWEEN
    sheet.picture(squares.get(row.picture.id), start, y, side)
    for place, near in enumerate(row.neighbours):
        x = start + side + FIRST_GAP + place * (side + NEAR_GAP)
        sheet.picture(squares.get(near.id), x, y, side)


def fit_text(text: str, width: float, font: FontProperties) -> str:
    """Cut a line so that it is at most so many inches wide."""
    kept = text
    while kept and text_width(kept + "…" * (kept != text), font) > width * ROOM:
        kept = kept[:-1].rstrip()
    return kept if kept == text else f"{kept}…"


def text_width(text: str, font: FontProperties) -> float:
    """How wide a line is."""
    points, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(points) / 72
