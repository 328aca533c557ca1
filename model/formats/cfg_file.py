"""Definition files of cuda-convnet: sections of key=value, read with their line numbers.

The format is that of INI files, as Python's configparser reads it: a section per layer, keys
without regard to case, comments after # or ;. Whoever reads a section takes its values one by one,
so that at the end those are known that nobody asked for.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

MAX_BYTES = 4 << 20
"""Size of a definition file, at most: the published ones end with the log of their training."""
SECTION = re.compile(r"\[([^\]]+)\]")
COMMENT = re.compile(r"(?:^|\s)[#;].*")
KEY_VALUE = re.compile(r"([\w.]+)\s*[=:]\s*(.*)")
BOOLEANS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


class DefinitionError(ValueError):
    """A definition that cannot be used. Its message names the file, the line and the reason."""


class Value(NamedTuple):
    """What stands after a key, and the number of its line."""

    text: str
    line: int


@dataclass
class Section:
    """One section: a layer's name, the number of its line, and its values by lower-case key."""

    file: Path
    name: str
    line: int
    values: Mapping[str, Value]
    asked: set[str] = field(default_factory=set)

    def error(self, reason: str, key: str | None = None) -> DefinitionError:
        """Return an error with the line of a key, or of the section."""
        value = self.values.get(key.lower()) if key else None
        line = value.line if value else self.line
        return DefinitionError(f"{self.file}, line {line}: [{self.name}] {reason}")

    def find(self, key: str) -> str | None:
        """Return a key's text, None without it."""
        self.asked.add(key.lower())
        value = self.values.get(key.lower())
        return value.text if value else None

    def text(self, key: str, default: str | None = None) -> str:
        """Return a key's text. Raises DefinitionError if it is missing and has no default."""
        found = self.find(key)
        if found is None and default is None:
            raise self.error(f"lacks {key}=")
        return found if found is not None else str(default)

    def words(self, key: str) -> list[str]:
        """Return the parts of a text between commas. Raises DefinitionError as above."""
        return [word.strip() for word in self.text(key).split(",")]

    def number(self, key: str, default: float | None = None) -> float:
        """Return one number; a list must have the same number for every input.

        Raises DefinitionError for anything else.
        """
        text = self.text(key, None if default is None else str(default))
        if "[" in text:
            raise self.error(
                f"has a schedule, {key}={text}: write its first value, and choose one with "
                "--schedule",
                key,
            )
        try:
            numbers = {float(part) for part in text.split(",")}
        except ValueError as error:
            raise self.error(f"has {key}={text}, which is no number", key) from error
        if len(numbers) > 1:
            raise self.error(
                f"has {key}={text}: different numbers for its inputs are not supported", key
            )
        (number,) = numbers
        if not math.isfinite(number):
            raise self.error(f"has {key}={text}, which is not a finite number", key)
        return number

    def whole(self, key: str, default: int | None = None, *, lowest: int = 0) -> int:
        """Return one whole number, not below `lowest`. Raises DefinitionError as above."""
        number = self.number(key, default)
        if number != int(number) or not lowest <= number < 2**31:
            raise self.error(
                f"has {key}={self.text(key, str(default))}: it must be a whole number from "
                f"{lowest}",
                key,
            )
        return int(number)

    def flag(self, key: str, *, default: bool) -> bool:
        """Return whether a key is true; a list must say the same for every input."""
        text = self.text(key, str(default))
        found = {BOOLEANS.get(part.strip().lower()) for part in text.split(",")}
        if len(found) != 1 or None in found:
            raise self.error(f"has {key}={text}: it must be true or false", key)
        return found == {True}

    def ignore(self, *keys: str) -> None:
        """Take note of keys that make no difference to the numbers."""
        self.asked.update(key.lower() for key in keys)

    def require(self, key: str, value: float, reason: str) -> None:
        """Raise DefinitionError unless a key, if it is there, has this value."""
        if self.find(key) is not None and self.number(key) != value:
            raise self.error(f"has {key}={self.text(key)}: {reason}", key)

    def finish(self) -> None:
        """Raise DefinitionError for a key that nobody asked for."""
        for key in self.values:
            if key not in self.asked:
                raise self.error(f"has {key}=, which is not supported", key)


def read_cfg(path: Path) -> dict[str, Section]:
    """Read a file's sections by name, in their order. Raises DefinitionError."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DefinitionError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise DefinitionError(f"{path} is too large for a definition")
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DefinitionError(f"{path} is not a text file: {error}") from error
    sections: dict[str, Section] = {}
    current: dict[str, Value] | None = None
    for number, line in enumerate(lines, start=1):
        text = COMMENT.sub("", line).strip()
        if heading := SECTION.fullmatch(text):
            name, current = heading[1].strip(), {}
            if name in sections:
                raise DefinitionError(f"{path}, line {number}: [{name}] stands there twice")
            sections[name] = Section(path, name, number, current)
        elif text:
            add_value(text, current, f"{path}, line {number}", number)
    if not sections:
        raise DefinitionError(f"{path} defines nothing")
    return sections


def add_value(text: str, values: dict[str, Value] | None, place: str, line: int) -> None:
    """Add a line's key and value to those of its section. Raises DefinitionError."""
    found = KEY_VALUE.fullmatch(text)
    if found is None or values is None:
        raise DefinitionError(f"{place}: {text[:40]!r} is neither [section] nor key=value")
    key = found[1].lower()
    if key in values:
        raise DefinitionError(f"{place}: {found[1]}= stands there twice")
    values[key] = Value(found[2], line)


def compare_columns(sections: Sequence[Section], ignored: Iterable[str]) -> None:
    """Raise DefinitionError unless two columns' sections have the same values but for `ignored`."""
    first, *others = sections
    skipped = {key.lower() for key in ignored}
    for other in others:
        for key in sorted((set(first.values) | set(other.values)) - skipped):
            one, two = first.values.get(key), other.values.get(key)
            if (one and one.text) != (two and two.text):
                raise other.error(
                    f"differs from [{first.name}] in {key}: columns must be alike", key
                )
