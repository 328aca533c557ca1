"""A run's recipe in the paper's terms, beside the paper's values.

storage/recipe.py defines the fields, their labels and the paper's values; this module how a page
writes the values.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from model.network.architectures import VARIANTS
from model.network.definition import DEFINED
from storage.recipe import RecipeFields
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
    known = [
        describe_field(field, recipe[field.key])
        for field in FIELDS
        if field.key in recipe and has_effect(field.key, recipe)
    ]
    others = sorted(set(map(str, recipe)) - {field.key for field in FIELDS})
    return known + [
        RecipeRow(
            label=bounded_text(key), section="", value=format_setting(recipe[key]), paper=None
        )
        for key in others[:MAX_ITEMS]
    ]


def has_effect(key: str, recipe: Mapping[str, Any]) -> bool:
    """Return whether a field matters, given the values that it depends on."""
    name, value = DEPENDENCIES.get(key, ("", None))
    return name not in recipe or recipe[name] == value


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


def make_none_format(words: str) -> Format:
    """Return a format that writes these words for no value."""
    return lambda value: words if value is None or value in ([], ()) else format_setting(value)


def make_word_format(words: Mapping[Any, str]) -> Format:
    """Return a format that writes words for the values that have some."""

    def format_in_words(value: Any) -> str:
        known = isinstance(value, str | bool) and value in words
        return words[value] if known else format_setting(value)

    return format_in_words


def format_network(value: Any) -> str:
    """Name the network of the family."""
    if value == "paper":
        return "as in the paper"
    variant = VARIANTS.get(value) if isinstance(value, str) else None
    return f"{value}: {variant.description}" if variant else format_setting(value)


COLOURS = {"paper": "Σ pᵢ αᵢ λᵢ", "original": "Σ pᵢ αᵢ √λᵢ, the sum ÷ 1.1"}
INITS = {"paper": "N(0, 0.01²), biases 1 where the paper sets them to 1", "he": "He, biases 0"}
OFFSETS = {False: "32 in each direction", True: "33 in each direction"}
SCHEDULES = {
    "plateau": "÷ 10 at plateaus of the validation error",
    "cosine": "half a cosine, to zero",
    "linear": "a straight line, to zero",
    "exponential": "exponentially",
}
CROPS = {
    "offsets": "at a random offset",
    "areas": "of a random area and aspect ratio",
}
FORMATS: Mapping[str, Format] = {
    "variant": format_network,
    "definition": lambda value: "read from its authors' files" if value else "–",
    "hold_out_until": make_none_format("the last"),
    "bias_rate": make_none_format("same as the weights"),
    "drop_bias_rate_after": make_none_format("never"),
    "schedule": make_word_format(SCHEDULES),
    "crops": make_word_format(CROPS),
    "conv_decay": make_none_format("same as the other layers"),
    "drop_after": make_none_format("on plateau"),
    "slow_conv1_after": make_none_format("never"),
    "freeze_conv1_after": make_none_format("never"),
    "colour": make_word_format(COLOURS),
    "colour_until": make_none_format("the last"),
    "all_offsets": make_word_format(OFFSETS),
    "dropout": make_none_format("0.5, as in the network"),
    "init": make_word_format(INITS),
}
"""How a value is written where it is not just a number."""
DEPENDENCIES = {
    "drops": ("schedule", "plateau"),
    "patience": ("schedule", "plateau"),
    "drop_after": ("schedule", "plateau"),
    "smallest_area": ("crops", "areas"),
    "fall": ("schedule", "exponential"),
    "definition": ("variant", DEFINED),
}
"""Fields that matter only if another has a certain value."""
FIELDS = tuple(
    RecipeField(
        f.name,
        f.metadata["label"],
        f.metadata["section"],
        f.default,
        FORMATS.get(f.name, format_setting),
        0.5 if f.name == "dropout" else None,
    )
    for f in fields(RecipeFields)
)
"""Every field of a recipe, with the paper's value."""
