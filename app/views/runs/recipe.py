"""A run's recipe in the paper's terms, beside the paper's values.

What a recipe may hold is defined by training/config.py, which app/ does not import; how its fields
are labelled on a page, and what the paper has in their place, is defined here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from model.architectures import VARIANTS
from storage.tolerant_json import bounded_text, finite_number

MAX_ITEMS = 12
"""Items shown of a list, and fields shown that this page does not know."""
Format = Callable[[Any], str]


@dataclass(frozen=True, kw_only=True)
class RecipeRow:
    """A value of a run's recipe as the page writes it.

    section: of the paper, or empty. paper: the paper's value, where it is a different one.
    """

    label: str
    section: str
    value: str
    paper: str | None


class RecipeField(NamedTuple):
    """A field of the recipe: its key in run.json, label, section, the paper's value, its format.

    same: another way to write the paper's value.
    """

    key: str
    label: str
    section: str
    paper: Any
    format: Format
    same: Any = None


def describe_recipe(recipe: Mapping[str, Any]) -> list[RecipeRow]:
    """Return a run's recipe row by row in the order of FIELDS, unknown fields last."""
    known = [describe_field(field, recipe[field.key]) for field in FIELDS if field.key in recipe]
    others = sorted(set(map(str, recipe)) - {field.key for field in FIELDS})
    return known + [
        RecipeRow(
            label=bounded_text(key), section="", value=format_setting(recipe[key]), paper=None
        )
        for key in others[:MAX_ITEMS]
    ]


def describe_field(field: RecipeField, value: Any) -> RecipeRow:
    """Return a value beside the paper's, where the two differ."""
    own, paper = field.format(value), field.format(field.paper)
    # The paper has no seed to differ from.
    differs = own != paper and field.key != "seed" and (field.same is None or value != field.same)
    return RecipeRow(
        label=field.label, section=field.section, value=own, paper=paper if differs else None
    )


def format_setting(value: Any) -> str:
    """Format a value of any type."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        number = finite_number(value)
        return f"{value}" if number is None else f"{number:,.10g}".replace(",", "\u202f")
    if isinstance(value, list | tuple):
        return ", ".join(format_setting(part) for part in value[:MAX_ITEMS]) or "–"
    return bounded_text(value) or "–"


def none_as(words: str) -> Format:
    """Return a format that writes these words for no value."""
    return lambda value: words if value is None or value in ([], ()) else format_setting(value)


def words_for(words: Mapping[Any, str]) -> Format:
    """Return a format that writes words for the values that have some."""

    def format_in_words(value: Any) -> str:
        known = isinstance(value, str | bool) and value in words
        return words[value] if known else format_setting(value)

    return format_in_words


def network_label(value: Any) -> str:
    """Name the network of the family."""
    if value == "paper":
        return "as in the paper"
    variant = VARIANTS.get(value) if isinstance(value, str) else None
    return f"{value}: {variant.what}" if variant else format_setting(value)


COLOURS = {"paper": "Σ pᵢ αᵢ λᵢ", "original": "Σ pᵢ αᵢ √λᵢ, the sum ÷ 1.1"}
INITS = {"paper": "N(0, 0.01²), biases of 1 where the paper has them", "he": "He, biases 0"}
OFFSETS = {False: "32 in each direction", True: "33 in each direction"}
FIELDS = (
    RecipeField("variant", "Network", "§3", "paper", network_label),
    RecipeField("epochs", "Maximum epochs", "§5", 90, format_setting),
    RecipeField("batch", "Batch size", "§5", 128, format_setting),
    RecipeField("rate", "Initial learning rate ε", "§5", 0.01, format_setting),
    RecipeField("bias_rate", "Learning rate of the biases", "§5", None, none_as("the same")),
    RecipeField("momentum", "Momentum", "§5", 0.9, format_setting),
    RecipeField("decay", "Weight decay", "§5", 0.0005, format_setting),
    RecipeField("conv_decay", "Weight decay of conv1–conv5", "§5", None, none_as("the same")),
    RecipeField("bias_decay", "Weight decay of biases", "§5", True, format_setting),
    RecipeField("drops", "Learning rate drops, ÷ 10 each", "§5", 3, format_setting),
    RecipeField("drop_after", "Learning rate drops after epochs", "§5", (), none_as("on plateau")),
    RecipeField("patience", "Plateau length, in epochs", "§5", 8, format_setting),
    RecipeField(
        "slow_conv1_after", "conv1 learns more slowly after epoch", "", None, none_as("never")
    ),
    RecipeField("freeze_conv1_after", "conv1 frozen after epoch", "", None, none_as("never")),
    RecipeField("colour_noise", "Colour noise, standard deviation", "§4.1", 0.1, format_setting),
    RecipeField("colour", "Colour noise, formula", "§4.1", "paper", words_for(COLOURS)),
    RecipeField("colour_until", "Colour noise until epoch", "", None, none_as("the last")),
    RecipeField("sharing", "Images sharing a crop and mirroring", "", 1, format_setting),
    RecipeField("all_offsets", "Crop offsets", "§4.1", False, words_for(OFFSETS)),
    RecipeField(
        "dropout", "Dropout in fc6 and fc7", "§4.2", None, none_as("as in the network, 0.5"), 0.5
    ),
    RecipeField("init", "Weight initialisation", "§5", "paper", words_for(INITS)),
    RecipeField("input_scale", "Mean-subtracted pixels divided by", "§2", 1.0, format_setting),
    RecipeField("seed", "Seed", "", 0, format_setting),
)
"""Every field of the recipe in training/config.py, with the paper's value."""
