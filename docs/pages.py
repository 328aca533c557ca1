"""The pages in the gallery, and the steps that lead a visitor to each."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from playwright.sync_api import Page

Steps = Callable[[Page, Path], None]
"""What a visitor does in the browser, given the folder of demo photographs."""


@dataclass(frozen=True, kw_only=True)
class View:
    """How a page is viewed: the window's width and height in pixels, and the colour scheme."""

    suffix: str
    width: int
    height: int
    scheme: Literal["light", "dark"] = "light"


LIGHT = View(suffix="", width=1280, height=900)
DARK = View(suffix="-dark", width=1280, height=900, scheme="dark")
SMALL = View(suffix="-small", width=360, height=740)
SMALL_DARK = View(suffix="-small-dark", width=360, height=740, scheme="dark")


@dataclass(frozen=True, kw_only=True)
class Screenshot:
    """A page of the gallery, with a picture for each of its views."""

    section: str
    """The gallery's heading, as in the application's navigation."""
    name: str
    """Stem of the file names."""
    caption: str
    steps: Steps
    wait_for: str = "h1"
    """Selector of an element that is there once the page is complete."""
    max_height: int = 1000
    """Pixels of the page's height that are kept at a width of 1280."""
    views: tuple[View, ...] = (LIGHT,)

    def file_name(self, view: View) -> str:
        """Return the file name of one of its views."""
        return f"{self.name}{view.suffix}.webp"


def open_page(address: str) -> Steps:
    """Return the step that opens an address."""

    def step(page: Page, demo: Path) -> None:
        page.goto(address)

    return step


def validation_photograph(demo: Path, label: str, number: int = 0) -> Path:
    """Return the path of a validation photograph of the demo."""
    return demo / "val" / label / f"{label}_{number:02d}.jpg"


def classify_cat(page: Page, demo: Path) -> None:
    """Upload a photograph of a cat."""
    page.goto("/")
    page.set_input_files("#image", validation_photograph(demo, "cat"))
    page.wait_for_url("**/results/*")


def open_crops(page: Page, demo: Path) -> None:
    """Upload a photograph and open the predictions for each crop."""
    classify_cat(page, demo)
    page.click("summary")


def classify_several(page: Page, demo: Path) -> None:
    """Upload several photographs at once."""
    page.goto("/")
    files = [
        validation_photograph(demo, label) for label in ("rocket", "coffee", "coins", "motorcycle")
    ]
    page.set_input_files("#image", files)
    page.wait_for_url("**/results/together/*")


def open_class(page: Page, demo: Path) -> None:
    """Open the class of cats."""
    page.goto("/explore")
    page.click(".classes a:has-text('cat')")
    page.wait_for_selector("h1:has-text('cat')")


def open_training_image(page: Page, demo: Path) -> None:
    """Open a training image."""
    open_class(page, demo)
    page.click(".tile >> nth=0")
    page.wait_for_url("**/images/*")


def open_mean(page: Page, demo: Path) -> None:
    """Open the search by the mean of two images."""
    numbers = []
    for label in ("coffee", "rocket"):
        page.goto("/explore")
        page.click(f".classes a:has-text('{label}')")
        page.wait_for_selector(f"h1:has-text('{label}')")
        first = page.locator(".tile").first.get_attribute("href") or ""
        numbers.append(first.split("?")[0].rsplit("/", 1)[1])
    page.goto("/explore/mean?" + "&".join(f"image={number}" for number in numbers))


def open_kernel(page: Page, demo: Path) -> None:
    """Upload a photograph and open a kernel, with its patches and its response."""
    classify_cat(page, demo)
    page.goto("/filters")
    page.locator("[data-kernel='60']").click()


def open_layers(page: Page, demo: Path) -> None:
    """Upload a photograph and open the layers."""
    classify_cat(page, demo)
    page.goto("/layers")


def open_layer(page: Page, demo: Path) -> None:
    """Upload a photograph and open one layer."""
    open_layers(page, demo)
    page.click("h2 a:has-text('conv2')")


def open_why(page: Page, demo: Path) -> None:
    """Upload a photograph and ask why it has its label; wait until occlusion is refined."""
    classify_cat(page, demo)
    page.click("text=Why this label")
    page.wait_for_selector("text=27 × 27", timeout=60_000)


def open_unit(page: Page, demo: Path) -> None:
    """Upload a photograph and open a unit of conv5."""
    classify_cat(page, demo)
    page.goto("/layers/conv5/unit/37")


def open_switches(page: Page, demo: Path) -> None:
    """Upload a photograph and open the network without normalisation."""
    classify_cat(page, demo)
    page.goto("/layers/switches?lrn=off")


def open_latest_run(page: Page, demo: Path) -> None:
    """Open the latest run."""
    page.goto("/training")
    page.click(".run h2 a >> nth=0")


def make_dataset(page: Page, demo: Path) -> None:
    """Make a data set of validation photographs, and a classifier on fc7 for it."""
    page.goto("/new")
    page.fill("#pictures-name", "breakfast")
    for number, label in enumerate(("coffee", "coins", "handwriting")):
        page.fill(f"#class-{number}", label)
        files = [validation_photograph(demo, label, n) for n in range(12)]
        page.set_input_files(f"#photographs-{number}", files)
    page.click("text=Make the data set")
    page.wait_for_url("**/new/breakfast")
    page.click("text=Make the classifier")
    page.wait_for_selector(".try", timeout=60_000)


FIGURE_4_READY = ".plate:not([data-from])"
SCREENSHOTS = (
    Screenshot(
        section="Classify",
        name="classify",
        caption="Drop, paste, choose or take a photograph, or click an example.",
        steps=open_page("/"),
        views=(LIGHT, SMALL_DARK),
    ),
    Screenshot(
        section="Classify",
        name="result",
        caption="The five most probable labels, and the nearest training images by fc7 features "
        "and by pixels.",
        steps=classify_cat,
        wait_for=".bars",
        views=(LIGHT, DARK, SMALL),
    ),
    Screenshot(
        section="Classify",
        name="crops",
        caption="The prediction for each of the ten crops, and where the crop lies.",
        steps=open_crops,
        wait_for=".crops",
        max_height=1300,
    ),
    Screenshot(
        section="Classify",
        name="together",
        caption="Several images uploaded at once.",
        steps=classify_several,
    ),
    Screenshot(
        section="Classify",
        name="why",
        caption="Why this label: each tower alone, occlusion, Grad-CAM and guided backpropagation.",
        steps=open_why,
        max_height=1300,
    ),
    Screenshot(
        section="Explore",
        name="explore",
        caption="The training images by class.",
        steps=open_page("/explore"),
        wait_for=".class-row",
    ),
    Screenshot(
        section="Explore",
        name="class",
        caption="The images of a class; more load while scrolling.",
        steps=open_class,
    ),
    Screenshot(
        section="Explore",
        name="image",
        caption="A training image, its own classification and its neighbours.",
        steps=open_training_image,
        wait_for=".bars",
    ),
    Screenshot(
        section="Explore",
        name="mean",
        caption="The images nearest to the mean of two images' features.",
        steps=open_mean,
    ),
    Screenshot(
        section="Map",
        name="map",
        caption="The training images in two dimensions, by t-SNE of their features.",
        steps=open_page("/map"),
        wait_for="canvas",
        views=(LIGHT, DARK),
    ),
    Screenshot(
        section="Review",
        name="review",
        caption="The data desk: doubtful labels, leaks, duplicates and outliers.",
        steps=open_page("/review?show=all"),
        views=(LIGHT, SMALL_DARK),
    ),
    Screenshot(
        section="Filters",
        name="filters",
        caption="The 96 kernels of conv1, 48 on each GPU.",
        steps=open_page("/filters"),
        wait_for=".tower",
    ),
    Screenshot(
        section="Filters",
        name="kernel",
        caption="One kernel: the training patches that excite it most, and its response to a "
        "photograph.",
        steps=open_kernel,
        max_height=1300,
    ),
    Screenshot(
        section="Layers",
        name="layers",
        caption="A photograph on its way through the two towers.",
        steps=open_layers,
        max_height=1300,
        views=(LIGHT, SMALL),
    ),
    Screenshot(
        section="Layers",
        name="layer",
        caption="The maps of one layer.",
        steps=open_layer,
    ),
    Screenshot(
        section="Layers",
        name="unit",
        caption="One unit: the training images that excite it most, and its response to a "
        "photograph.",
        steps=open_unit,
        max_height=1300,
    ),
    Screenshot(
        section="Layers",
        name="switches",
        caption="The same photograph with parts of the network switched off.",
        steps=open_switches,
        max_height=1300,
    ),
    Screenshot(
        section="Figure 4",
        name="figure-4",
        caption="Figure 4 of the demo's validation images; white in both colour schemes.",
        steps=open_page("/figure-4?draw=3"),
        wait_for=FIGURE_4_READY,
        views=(LIGHT, SMALL),
    ),
    Screenshot(
        section="Figure 4",
        name="figure-4-choose",
        caption="Choosing its images.",
        steps=open_page("/figure-4/choose?draw=3"),
        max_height=900,
    ),
    Screenshot(
        section="Training",
        name="training",
        caption="The runs found on disk.",
        steps=open_page("/training"),
    ),
    Screenshot(
        section="Training",
        name="run",
        caption="One run: its curves, conv1 by epoch, its configuration.",
        steps=open_latest_run,
        max_height=1300,
    ),
    Screenshot(
        section="Training",
        name="new",
        caption="Your own classes: photographs by webcam, from files or as a zip.",
        steps=open_page("/new"),
        wait_for="form.collector",
        views=(LIGHT, SMALL_DARK),
    ),
    Screenshot(
        section="Training",
        name="new-dataset",
        caption="A data set made there, and the classifier on fc7 that was made of it in seconds.",
        steps=make_dataset,
        wait_for=".try",
        max_height=1300,
    ),
    Screenshot(
        section="Models",
        name="models",
        caption="The weights files found, and the one in service.",
        steps=open_page("/models"),
    ),
    Screenshot(
        section="The paper",
        name="paper",
        caption="The paper's sections, with what was measured of its claims.",
        steps=open_page("/paper"),
        wait_for=".claim",
        max_height=1300,
    ),
    Screenshot(
        section="API",
        name="api",
        caption="The API's documentation, generated from its code.",
        steps=open_page("/api"),
        max_height=900,
    ),
)
