"""The list of settings in docs/configuration.md: `python -m docs.configuration` writes it."""

from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import click

from app.config import Settings

PAGE = Path(__file__).resolve().with_suffix(".md")
INTRODUCTION = """# Configuration

<!-- Written by `python -m docs.configuration` from app/config.py. -->

The application and the `flask` commands are configured by environment variables. They are checked
at the start; a wrong value is refused with a message that names the variable. An empty variable
counts as unset.
"""
TRAINING = """## Training and serving

Training reads `ALEXNET_HOME` too, and one variable of its own: `ALEXNET_DATA`, the folder of
photographs that `training/run.py` trains on without `--data`; by default the demo photographs.
Everything else is a flag whose default is the paper's value: `python training/run.py --help`.

The web server's own options, such as its address and the number of threads, are in
`gunicorn.conf.py`, and can be changed on the command line.
"""


def main() -> None:
    """Write docs/configuration.md."""
    PAGE.write_text(configuration_page(), encoding="utf-8")
    click.echo(f"Wrote {PAGE}")


def configuration_page() -> str:
    """Describe every setting in Markdown."""
    return "\n".join([INTRODUCTION, *settings_table(), "", TRAINING])


def settings_table() -> Iterator[str]:
    """Yield the lines of the table: variable, default and help of each setting."""
    yield "| variable | default | what it sets |"
    yield "|---|---|---|"
    for setting in fields(Settings):
        help_text = setting.metadata["help"]
        yield f"| `{setting.metadata['env']}` | {default_text(setting)} | {help_text} |"


def default_text(setting: Field[Any]) -> str:
    """Format a default as one would write it in the environment; empty if there is none."""
    default = "" if setting.default is MISSING else setting.default
    if isinstance(default, bool):
        default = int(default)
    elif isinstance(default, tuple):
        default = " ".join(default)
    return f"`{default}`" if default != "" else ""


if __name__ == "__main__":
    main()
