"""A run's recipe in the paper's words, beside what the paper says.

What a run can be told is training's to define; here stands how it is called on a page, and what
the paper has in its place.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from model.architectures import VARIANTS
from storage.tolerant_json import bounded_text, finite_number

MOST_LISTED = 12
Say = Callable[[Any], str]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A value of a run's recipe, as the page writes it; paper: what the paper has, where another.

    section: of the paper; empty where it has none.
    """

    word: str
    section: str
    value: str
    paper: str | None


def plain(value: Any) -> str:
    """Write a value of any type."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        found = finite_number(value)
        return f"{value}" if found is None else f"{found:,.10g}".replace(",", "\u202f")
    if isinstance(value, list | tuple):
        return ", ".join(plain(part) for part in value[:MOST_LISTED]) or "–"
    return bounded_text(value) or "–"


def or_words(words: str) -> Say:
    """Write a value, or these words where there is none."""
    return lambda value: words if value is None or value in ([], ()) else plain(value)


def one_of(words: Mapping[Any, str]) -> Say:
    """Write a value in words, where there are some for it."""

    def say(value: Any) -> str:
        known = isinstance(value, str | bool) and value in words
        return words[value] if known else plain(value)

    return say


def network(value: Any) -> str:
    """Say which network of the family it is."""
    if value == "paper":
        return "that of the paper"
    found = VARIANTS.get(value) if isinstance(value, str) else None
    return f"{value}: {found.what}" if found else plain(value)


class Term(NamedTuple):
    """A value of the recipe: in run.json, on the page, in which section, the paper's, written.

    same: another way to tell the paper's value.
    """

    name: str
    word: str
    section: str
    paper: Any
    say: Say = plain
    same: Any = None


COLOURS = {"paper": "Σ pᵢ αᵢ λᵢ", "original": "Σ pᵢ αᵢ √λᵢ, the whole ÷ 1.1"}
INITS = {"paper": "N(0, 0.01²), biases of 1 where the paper has them", "he": "by He, biases 0"}
OFFSETS = {False: "32 each way", True: "33 each way"}
TERMS = (
    Term("variant", "Network", "§3", "paper", network),
    Term("epochs", "Epochs at most", "§5", 90),
    Term("batch", "Images a batch", "§5", 128),
    Term("rate", "Learning rate ε at the start", "§5", 0.01),
    Term("bias_rate", "Learning rate of the biases", "§5", None, or_words("the same")),
    Term("momentum", "Momentum", "§5", 0.9),
    Term("decay", "Weight decay", "§5", 0.0005),
    Term("conv_decay", "Weight decay in conv1 to conv5", "§5", None, or_words("the same")),
    Term("bias_decay", "Whether biases decay, too", "§5", True),
    Term("drops", "Drops of the rate, ÷ 10 each", "§5", 3),
    Term("drop_after", "Epochs after which it drops", "§5", (), or_words("at a plateau")),
    Term("patience", "Epochs that make a plateau", "§5", 8),
    Term("slow_conv1_after", "Epoch after which conv1 is slowed", "", None, or_words("none")),
    Term("freeze_conv1_after", "Epoch after which conv1 is frozen", "", None, or_words("none")),
    Term("colour_noise", "Standard deviation of the colour noise", "§4.1", 0.1),
    Term("colour", "Formula of the colour noise", "§4.1", "paper", one_of(COLOURS)),
    Term("colour_until", "Last epoch with colour noise", "", None, or_words("the last")),
    Term("sharing", "Images that share a crop and mirror", "", 1),
    Term("all_offsets", "Offsets of the crops", "§4.1", False, one_of(OFFSETS)),
    Term(
        "dropout", "Dropout in fc6 and fc7", "§4.2", None, or_words("that of the network, 0.5"), 0.5
    ),
    Term("init", "Initial weights", "§5", "paper", one_of(INITS)),
    Term("input_scale", "Mean-free pixels divided by", "§2", 1.0),
    Term("seed", "Seed", "", 0),
)
"""Every value that training/config.py knows, with the paper's."""


def settings_of(recipe: Mapping[str, Any]) -> list[Setting]:
    """A run's recipe in words, in the order of the terms; what this page has no word for last."""
    known = [setting(term, recipe[term.name]) for term in TERMS if term.name in recipe]
    others = sorted(set(map(str, recipe)) - {term.name for term in TERMS})
    return known + [
        Setting(word=bounded_text(name), section="", value=plain(recipe[name]), paper=None)
        for name in others[:MOST_LISTED]
    ]


def setting(term: Term, value: Any) -> Setting:
    """Write a value, and the paper's where it is another."""
    # A seed is nobody's departure.
    own, theirs = term.say(value), term.say(term.paper)
    differs = own != theirs and term.name != "seed" and (term.same is None or value != term.same)
    return Setting(
        word=term.word, section=term.section, value=own, paper=theirs if differs else None
    )
