"""A run's configuration as a TOML file: read with --config, and written into every run.

Its keys are the flags of the command line without their dashes; a flag beside --config overrides
the file. The file that a run writes names every value, so that it repeats the run.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from training.recipe.config import Recipe, RecipeError
from training.recipe.options import SAVED_OPTIONS, Options
from training.records.run_folder import hide_query

FLAG = "--config"
NONE = "None"
"""How the command line says that there is no value."""
UNWRITTEN = ("resume", "accept", "if_needed", "config", "seeds", "recipe")
"""Options that say what to do with a run, not what it is."""


def expand_config(arguments: Sequence[str]) -> list[str]:
    """Put the flags that a configuration file stands for in front of the others.

    Raises RecipeError if the file cannot be read or has an unknown key.
    """
    rest, files = list[str](), list[str]()
    words = iter(arguments)
    for word in words:
        if word == FLAG:
            files.append(next(words, ""))
        elif word.startswith(f"{FLAG}="):
            files.append(word.partition("=")[2])
        else:
            rest.append(word)
    return [flag for file in files for flag in read_config(Path(file))] + rest


def read_config(file: Path) -> list[str]:
    """Return the flags that a configuration file stands for. Raises RecipeError."""
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RecipeError(f"--config {file} cannot be read: {reason}") from error
    known = list_keys()
    if unknown := [name for name in values if name not in known]:
        raise RecipeError(
            f"--config {file}: {', '.join(unknown)} is not a setting; its keys are the flags "
            "without dashes in front, such as epochs or layer-rates"
        )
    return [word for name, value in values.items() for word in make_flags(file, name, value)]


def list_keys() -> set[str]:
    """Return the keys that a file may have."""
    options = {f.name for f in fields(Options)} - {"config", "recipe", "initial_weights"}
    names = options | {f.name for f in fields(Recipe)} | {"from"}
    return {name.replace("_", "-") for name in names}


def make_flags(file: Path, name: str, value: object) -> list[str]:
    """Return the words of the command line for one value. Raises RecipeError."""
    match value:
        case bool():
            return [f"--{name}" if value else f"--no-{name}"]
        case str() | int() | float():
            return [f"--{name}", str(value)]
        case list():
            return [f"--{name}", *map(str, value)]
    raise RecipeError(f"--config {file}: {name} cannot be {value}")


def format_config(options: Options, preset: str) -> str:
    """Format all values of a run as a configuration file that repeats it."""
    # Without what a URL may hide: a signature would have to be given anew.
    data = hide_query(options.data) if options.data else None
    values: dict[str, Any] = {"preset": preset, "data": data}
    values["from"] = options.initial_weights
    values |= {name: getattr(options, name) for name in (*SAVED_OPTIONS, "ten_crops", "replicas")}
    values |= {f.name: getattr(options.recipe, f.name) for f in fields(Recipe)}
    # Without data or weights, those are the defaults of the command line.
    unset = {name for name in ("data", "from") if values[name] is None}
    return format_toml({name: value for name, value in values.items() if name not in unset})


def format_toml(values: Mapping[str, Any]) -> str:
    """Format values as TOML, a line each."""
    return "".join(f"{k.replace('_', '-')} = {format_toml_value(v)}\n" for k, v in values.items())


def format_toml_value(value: Any) -> str:
    """Format one value: JSON's notation of texts, numbers and booleans is also TOML's."""
    if isinstance(value, tuple):
        return "[" + ", ".join(map(format_toml_value, value)) + "]"
    return json.dumps(NONE if value is None else value, ensure_ascii=False)
