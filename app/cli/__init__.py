"""The commands: `flask data`, `flask db`, `flask index`, `flask weights`, `flask classify`."""

from importlib import import_module

import click
from flask.cli import AppGroup

COMMANDS = {
    "classify": "app.cli.classify:classify_command",
    "data": "app.cli.data:data_commands",
    "db": "app.cli.terminal:database_commands",
    "index": "app.cli.index:index_commands",
    "weights": "app.cli.weights:weights_commands",
}
"""Where each command is."""


class LazyCommands(AppGroup):
    """The application's commands, each imported when it is asked for.

    They import torch, which a server that answers with a prepared network does without.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands' names."""
        return sorted([*super().list_commands(ctx), *COMMANDS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        module, name = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(import_module(module), name)
        return command
