"""The pages that are shown in the documentation, and how a visitor comes to each."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Page

Steps = Callable[[Page, Path], None]
"""What a visitor does, given the folder of the demo photographs."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a page is looked at: the window's width and height, the scheme of colours."""

    suffix: str
    width: int
    height: int
    scheme: str = "light"


LIGHT = Look(suffix="", width=1280, height=900)
DARK = Look(suffix="-dark", width=1280, height=900, scheme="dark")
SMALL = Look(suffix="-small", width=360, height=740)
SMALL_DARK = Look(suffix="-small-dark", width=360, height=740, scheme="dark")


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A page of the gallery.

    room: the heading it stands under, as the navigation calls it. name: of its files. until: what
    is there when the page is whole. most: pixels of its height that are shown at 1280 of width.
    """

    room: str
    name: str
    caption: str
    steps: Steps
    until: str = "h1"
    most: int = 1000
    looks: tuple[Look, ...] = (LIGHT,)

    def file(self, look: Look) -> str:
        """The file of one of its looks."""
        return f"{self.name}{look.suffix}.webp"


def at(address: str) -> Steps:
    """Open an address."""

    def steps(page: Page, demo: Path) -> None:
        page.goto(address)

    return steps


def photograph(demo: Path, label: str, number: int = 0) -> Path:
    """A validation photograph of the demo."""
    return demo / "val" / label / f"{label}_{number:02d}.jpg"


def classified(page: Page, demo: Path) -> None:
    """Have a photograph classified."""
    page.goto("/")
    page.set_input_files("#image", photograph(demo, "cat"))
    page.wait_for_url("**/results/*")


def with_crops(page: Page, demo: Path) -> None:
    """See what each crop said."""
    classified(page, demo)
    page.click("summary")


def several(page: Page, demo: Path) -> None:
    """Have several photographs classified."""
    page.goto("/")
    files = [photograph(demo, label) for label in ("rocket", "coffee", "coins", "motorcycle")]
    page.set_input_files("#image", files)
    page.wait_for_url("**/results/together/*")


def class_of_cats(page: Page, demo: Path) -> None:
    """Go to a class."""
    page.goto("/explore")
    page.click(".classes a:has-text('cat')")
    page.wait_for_selector("h1:has-text('cat')")


def training_image(page: Page, demo: Path) -> None:
    """Go to a training image."""
    class_of_cats(page, demo)
    page.click(".tile >> nth=0")
    page.wait_for_url("**/images/*")


def mean_of_two(page: Page, demo: Path) -> None:
    """Search by the mean of two images."""
    numbers = []
    for label in ("coffee", "rocket"):
        page.goto("/explore")
        page.click(f".classes a:has-text('{label}')")
        page.wait_for_selector(f"h1:has-text('{label}')")
        first = page.locator(".tile").first.get_attribute("href") or ""
        numbers.append(first.split("?")[0].rsplit("/", 1)[1])
    page.goto("/explore/mean?" + "&".join(f"image={number}" for number in numbers))


def responding(page: Page, demo: Path) -> None:
    """Choose a kernel, and see what excites it and how it responds to the photograph."""
    classified(page, demo)
    page.goto("/filters")
    page.locator("[data-kernel='60']").click()


def through_the_layers(page: Page, demo: Path) -> None:
    """Follow the photograph through the layers."""
    classified(page, demo)
    page.goto("/layers")


def one_layer(page: Page, demo: Path) -> None:
    """Open one layer."""
    through_the_layers(page, demo)
    page.click("h2 a:has-text('conv2')")


def latest_run(page: Page, demo: Path) -> None:
    """Open the latest run."""
    page.goto("/training")
    page.click(".run h2 a >> nth=0")


FIGURE = ".plate:not([data-from])"
SHOTS = (
    Shot(
        room="Classify",
        name="classify",
        caption="Drop, paste, choose or take a picture, or click an example.",
        steps=at("/"),
        looks=(LIGHT, SMALL_DARK),
    ),
    Shot(
        room="Classify",
        name="result",
        caption="The five most probable labels, and the nearest training images: by the features "
        "of fc7, then by pixels.",
        steps=classified,
        until=".bars",
        looks=(LIGHT, DARK, SMALL),
    ),
    Shot(
        room="Classify",
        name="crops",
        caption="What each of the ten crops said, and where it lies.",
        steps=with_crops,
        until=".crops",
        most=1300,
    ),
    Shot(
        room="Classify",
        name="together",
        caption="Several images sent at once.",
        steps=several,
    ),
    Shot(
        room="Explore",
        name="explore",
        caption="The training images by class.",
        steps=at("/explore"),
        until=".shelf",
    ),
    Shot(
        room="Explore",
        name="class",
        caption="All images of a class; more come as one scrolls.",
        steps=class_of_cats,
    ),
    Shot(
        room="Explore",
        name="image",
        caption="A training image, its own answer and its neighbours.",
        steps=training_image,
        until=".bars",
    ),
    Shot(
        room="Explore",
        name="mean",
        caption="The nearest to the mean of two images' features.",
        steps=mean_of_two,
    ),
    Shot(
        room="Map",
        name="map",
        caption="The training images in two dimensions of their features.",
        steps=at("/map"),
        until="canvas",
        looks=(LIGHT, DARK),
    ),
    Shot(
        room="Filters",
        name="filters",
        caption="The 96 kernels of conv1, 48 of each GPU.",
        steps=at("/filters"),
        until=".tower",
    ),
    Shot(
        room="Filters",
        name="kernel",
        caption="One kernel: the training patches that excite it most, and its response.",
        steps=responding,
        most=1300,
    ),
    Shot(
        room="Layers",
        name="layers",
        caption="A photograph on its way through the two towers.",
        steps=through_the_layers,
        most=1300,
        looks=(LIGHT, SMALL),
    ),
    Shot(
        room="Layers",
        name="layer",
        caption="The maps of one layer.",
        steps=one_layer,
    ),
    Shot(
        room="Figure 4",
        name="figure-4",
        caption="The paper's Figure 4, of the demo's validation images; white on any ground.",
        steps=at("/figure-4?draw=3"),
        until=FIGURE,
        looks=(LIGHT, DARK, SMALL),
    ),
    Shot(
        room="Figure 4",
        name="figure-4-choose",
        caption="Its images can be chosen.",
        steps=at("/figure-4/choose?draw=3"),
        most=900,
    ),
    Shot(
        room="Training",
        name="training",
        caption="The runs found on disk.",
        steps=at("/training"),
    ),
    Shot(
        room="Training",
        name="run",
        caption="One run: its curves, conv1 over time, its configuration.",
        steps=latest_run,
        most=1300,
    ),
    Shot(
        room="Models",
        name="models",
        caption="The weights files found, and which is in use.",
        steps=at("/models"),
    ),
    Shot(
        room="API",
        name="api",
        caption="The API's documentation, made from its code.",
        steps=at("/api"),
        most=900,
    ),
)
