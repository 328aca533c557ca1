"""Which validation images Figure 4 shows, drawn by a number or picked by hand, and its caption."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from app.database.images import CatalogueImage
from model.weights.header import UNKNOWN, Provenance

LEFT, RIGHT = 8, 5
"""In the paper: images with their five most probable labels, and images with their neighbours."""
NUMBER_WORDS = (
    *("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "ten",
)
SOME_ARE_STORED = "Only a selection of the readable validation images is stored with the index."
IsReadable = Callable[[CatalogueImage], bool]
"""Returns whether an image's file is still the one that was indexed."""


class SelectionError(ValueError):
    """A selection that the figure cannot show; the message is for users."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The images of both sides, in order; draw: the number that they were drawn by, if any."""

    left: tuple[CatalogueImage, ...]
    right: tuple[CatalogueImage, ...]
    draw: int | None = None

    @property
    def ids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The ids of the images on the left and on the right."""
        return tuple(one.id for one in self.left), tuple(one.id for one in self.right)

    @property
    def key(self) -> str:
        """A hash of the images and their order."""
        return hashlib.sha256(repr(self.ids).encode()).hexdigest()[:16]

    @property
    def pictures(self) -> dict[int, CatalogueImage]:
        """All images by id; one may be on both sides."""
        return {one.id: one for one in (*self.left, *self.right)}


def draw_selection(known: Sequence[CatalogueImage], draw: int, serves: IsReadable) -> Selection:
    """Draw images by a number, spread over classes; the same number draws the same images.

    The right side has different images from the left as far as there are enough. With fewer
    images known, both sides have fewer.
    """
    usable = tuple(islice(filter(serves, shuffle_by_class(known, draw)), LEFT + RIGHT))
    left = usable[:LEFT]
    return Selection(left=left, right=(*usable[LEFT:], *left)[:RIGHT], draw=draw)


def shuffle_by_class(known: Iterable[CatalogueImage], draw: int) -> list[CatalogueImage]:
    """Shuffle images by a number: one of each class, then a second one of each, and so on."""

    def shuffle_key(one: CatalogueImage) -> str:
        # A hash, not a random generator, whose sequence may change with a library's version.
        return hashlib.sha256(f"{draw} {one.sha256} {one.path}".encode()).hexdigest()

    shuffled = sorted(known, key=shuffle_key)
    seen: Counter[int] = Counter()
    rounds = []
    for one in shuffled:
        rounds.append(seen[one.class_id])
        seen[one.class_id] += 1
    return [shuffled[i] for i in sorted(range(len(shuffled)), key=rounds.__getitem__)]


def pick_selection(
    known: Sequence[CatalogueImage], left: Sequence[str], right: Sequence[str], serves: IsReadable
) -> Selection:
    """Select images by their ids, as strings from the URL.

    If the right side has none, it shows the first of the left. Raises SelectionError.
    """
    by_id = {str(one.id): one for one in known}
    chosen = pick_side(by_id, left, LEFT, "left")
    selection = Selection(
        left=chosen, right=pick_side(by_id, right, RIGHT, "right") if right else chosen[:RIGHT]
    )
    for one in selection.pictures.values():
        if not serves(one):
            raise SelectionError(
                f"The file of image {one.id} ({one.label}) has been moved, changed or damaged "
                "since it was indexed."
            )
    return selection


def pick_side(
    by_id: dict[str, CatalogueImage], names: Sequence[str], size: int, side: str
) -> tuple[CatalogueImage, ...]:
    """Take exactly as many images as the side holds, or as there are. Raises SelectionError."""
    for name, times in Counter(names).items():
        if name not in by_id:
            raise SelectionError(f"There is no validation image with the id “{name[:20]}”.")
        if times > 1:
            label = by_id[name].label
            raise SelectionError(f"Image {name} ({label}) was chosen twice for the {side} side.")
    required = min(size, len(by_id))
    if len(names) != required:
        raise SelectionError(
            f"Choose exactly {count_in_words(required)} for the {side} side, "
            f"not {count_in_words(len(names))}."
        )
    return tuple(by_id[name] for name in names)


def count_in_words(count: int, one: str = "image", several: str | None = None) -> str:
    """Write a count with its noun: one image, eight images, 12 images."""
    word = NUMBER_WORDS[count] if count < len(NUMBER_WORDS) else str(count)
    return f"{word} {one if count == 1 else several or f'{one}s'}"


def write_caption(selection: Selection, folder: Path, provenance: Provenance) -> str:
    """Write the caption: what the figure shows, from which folder, and how it was computed."""
    each = "each image" if len(selection.left) > 1 else "it"
    left, right = (
        count_in_words(len(side), "validation image") for side in (selection.left, selection.right)
    )
    return (
        f"Left: {left} from {folder.name}, with the correct label under {each} and the five "
        "labels that the network finds most probable; the bar of the correct label is red if it is "
        f"among them. Probabilities are averaged over ten crops. Right: {right} in the first "
        "column, followed by the six training images whose 4096-d fc7 features are nearest by "
        f"Euclidean distance. {describe_training(provenance)}."
    )


def describe_training(provenance: Provenance) -> str:
    """Say on what the network was trained and for how long, or where its weights come from."""
    data = "unknown data" if provenance.data == UNKNOWN else Path(provenance.data).name
    trained = f"trained on {data}"
    if provenance.epochs is not None:
        unit = "epoch" if provenance.epochs == 1 else "epochs"
        trained = f"{trained} for {provenance.epochs} {unit}"
    if provenance.source:
        return f"The network is {provenance.source}, {trained}"
    return f"T{trained[1:]}"


def list_remarks(selection: Selection, known: Sequence[CatalogueImage]) -> list[str]:
    """Say where there are too few validation images for the paper's layout."""
    remarks = []
    available = count_in_words(len(selection.pictures), "validation image")
    if len(selection.left) < LEFT:
        remarks.append(f"Only {available} can be shown. {SOME_ARE_STORED}")
    elif len(selection.pictures) < LEFT + RIGHT and selection.draw is not None:
        remarks.append(
            f"Only {available} can be shown, so some appear on both sides. {SOME_ARE_STORED}"
        )
    classes = len({one.class_id for one in selection.left})
    if classes < len(selection.left) and classes == len({one.class_id for one in known}):
        count = count_in_words(classes, "class", "classes")
        remarks.append(
            f"The validation images cover only {count}, so some classes appear more than once."
        )
    return remarks
