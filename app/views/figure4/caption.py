"""What is said of Figure 4: its caption, and where it shows less than the paper's does."""

from collections.abc import Sequence
from pathlib import Path

from app.database.images import CatalogueImage
from app.views.figure4.choice import LEFT, RIGHT, Selection, count_in_words
from model.checkpoint import Provenance

TITLE = "Figure 4"
SOME_ARE_STORED = "Building the index stores a selection of the readable ones."


def write_caption(choice: Selection, provenance: Provenance) -> str:
    """Write the caption: what the figure shows, from which data, and how it was computed."""
    data = Path(provenance.data).name
    epochs = "epoch" if provenance.epochs == 1 else "epochs"
    each = "each image" if len(choice.left) > 1 else "it"
    left, right = (
        count_in_words(len(side), "validation image") for side in (choice.left, choice.right)
    )
    return (
        f"Left: {left} of {data}, with the correct label under {each} and the five labels that "
        "the network finds most probable; the bar of the correct label is red where it is among "
        f"them. Probabilities are averaged over ten crops. Right: {right} in the first column, "
        "followed by the six training images with the nearest 4096-d fc7 features by Euclidean "
        f"distance. Trained on {data} for {provenance.epochs} {epochs}."
    )


def list_remarks(choice: Selection, known: Sequence[CatalogueImage]) -> list[str]:
    """Say where there are too few validation images for the paper's layout."""
    remarks = []
    available = count_in_words(len(choice.pictures), "validation image")
    if len(choice.left) < LEFT:
        remarks.append(f"Only {available} can be shown. {SOME_ARE_STORED}")
    elif len(choice.pictures) < LEFT + RIGHT and choice.draw is not None:
        remarks.append(
            f"Only {available} can be shown, so some appear on both sides. {SOME_ARE_STORED}"
        )
    classes = len({one.class_id for one in choice.left})
    if classes < len(choice.left) and classes == len({one.class_id for one in known}):
        count = count_in_words(classes, "class", "classes")
        remarks.append(
            f"The validation images cover only {count}, so some classes appear more than once."
        )
    return remarks
