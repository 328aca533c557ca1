"""What is said of Figure 4: its caption, and where it shows less than the paper's does."""

from collections.abc import Sequence
from pathlib import Path

from app.database.images import Picture
from app.views.figure4.choice import LEFT, RIGHT, Choice, counted
from model.checkpoint import Provenance

TITLE = "Figure 4"
ENTERED = "Some of those that can be read are entered when the index is built."


def caption(choice: Choice, provenance: Provenance) -> str:
    """Say what is seen, of which data, and how it was computed."""
    data = Path(provenance.data).name
    passes = "epoch" if provenance.epochs == 1 else "epochs"
    each = "each image" if len(choice.left) > 1 else "it"
    return (
        f"Left: {counted(len(choice.left), 'validation image')} of {data}, with the correct "
        f"label under {each} and the five labels that the network finds most probable; the bar "
        "of the correct one is red where it is among them. Probabilities are the mean over ten "
        f"crops. Right: {counted(len(choice.right), 'validation image')} in the first column, "
        "then the six training images whose 4096 features of fc7 are nearest by Euclidean "
        f"distance. Trained on {data} for {provenance.epochs} {passes}."
    )


def remarks(choice: Choice, known: Sequence[Picture]) -> list[str]:
    """Say where there are too few validation images for what the paper shows."""
    said = []
    if len(choice.left) < LEFT:
        said.append(f"Only {counted(len(choice.left), 'validation image')} can be shown. {ENTERED}")
    elif len(choice.pictures) < LEFT + RIGHT and choice.draw is not None:
        said.append(
            f"Only {counted(len(choice.pictures), 'validation image')} can be shown, so that "
            f"some stand on both sides. {ENTERED}"
        )
    classes = len({one.class_id for one in choice.left})
    if classes < len(choice.left) and classes == len({one.class_id for one in known}):
        said.append(
            f"There are validation images of {counted(classes, 'class', 'classes')} only, so "
            "that a class comes more than once."
        )
    return said
