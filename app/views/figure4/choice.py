"""Which validation images Figure 4 shows: drawn by a number, or picked one by one."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from app.database.images import CatalogueImage

LEFT, RIGHT = 8, 5
"""Images with their five most probable labels, and images with their nearest (Figure 4)."""
NUMBER_WORDS = (
    *("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "ten",
)
IsReadable = Callable[[CatalogueImage], bool]
"""Whether an image's file is still the one that was entered."""


class SelectionError(ValueError):
    """Images that cannot be shown together, in a sentence for people."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The images shown, in their order; draw: the number they were drawn by, if they were."""

    left: tuple[CatalogueImage, ...]
    right: tuple[CatalogueImage, ...]
    draw: int | None = None

    @property
    def ids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The ids of the images on the left and on the right."""
        return tuple(one.id for one in self.left), tuple(one.id for one in self.right)

    @property
    def key(self) -> str:
        """A short name of the images and their order."""
        return hashlib.sha256(repr(self.ids).encode()).hexdigest()[:16]

    @property
    def pictures(self) -> dict[int, CatalogueImage]:
        """All images, by id; one may be on both sides."""
        return {one.id: one for one in (*self.left, *self.right)}


def draw_selection(known: Sequence[CatalogueImage], draw: int, serves: IsReadable) -> Selection:
    """Draw images by a number, spread over classes; the same of the same images every time.

    Those on the right are others than those on the left as far as there are others. There are
    fewer on both sides where fewer are known; none where none is.
    """
    usable = tuple(islice(filter(serves, shuffle_by_class(known, draw)), LEFT + RIGHT))
    left = usable[:LEFT]
    return Selection(left=left, right=(*usable[LEFT:], *left)[:RIGHT], draw=draw)


def shuffle_by_class(known: Iterable[CatalogueImage], draw: int) -> list[CatalogueImage]:
    """Mix images by a number: one of each class, then a second one of each, and so on."""

    def place(one: CatalogueImage) -> str:
        # A digest, not a generator of random numbers: that may draw otherwise in a later version.
        return hashlib.sha256(f"{draw} {one.sha256} {one.path}".encode()).hexdigest()

    mixed = sorted(known, key=place)
    before: Counter[int] = Counter()
    turns = []
    for one in mixed:
        turns.append(before[one.class_id])
        before[one.class_id] += 1
    return [mixed[i] for i in sorted(range(len(mixed)), key=turns.__getitem__)]


def pick_selection(
    known: Sequence[CatalogueImage], left: Sequence[str], right: Sequence[str], serves: IsReadable
) -> Selection:
    """Take the images that were picked by their ids, as an address writes them.

    Without any for the right they are the first of the left. Raises ChoiceError.
    """
    by_id = {str(one.id): one for one in known}
    shown = pick_side(by_id, left, LEFT, "left")
    choice = Selection(
        left=shown, right=pick_side(by_id, right, RIGHT, "right") if right else shown[:RIGHT]
    )
    for one in choice.pictures.values():
        if not serves(one):
            raise SelectionError(
                f"The file of image {one.id}, {one.label}, has been moved, changed or damaged "
                "since it was indexed."
            )
    return choice


def pick_side(
    by_id: dict[str, CatalogueImage], names: Sequence[str], most: int, side: str
) -> tuple[CatalogueImage, ...]:
    """Take exactly as many as a side holds, or as there are. Raises ChoiceError."""
    for name, times in Counter(names).items():
        if name not in by_id:
            raise SelectionError(f"“{name[:20]}” is the number of no validation image known here.")
        if times > 1:
            label = by_id[name].label
            raise SelectionError(f"Image {name}, {label}, is picked twice for the {side}.")
    wanted = min(most, len(by_id))
    if len(names) != wanted:
        raise SelectionError(
            f"The {side} takes exactly {count_in_words(wanted)}; {count_in_words(len(names))} "
            f"{'is' if len(names) == 1 else 'are'} picked."
        )
    return tuple(by_id[name] for name in names)


def count_in_words(count: int, one: str = "image", several: str | None = None) -> str:
    """Write so many of something: one image, eight images, 12 images."""
    word = NUMBER_WORDS[count] if count < len(NUMBER_WORDS) else str(count)
    return f"{word} {one if count == 1 else several or f'{one}s'}"
