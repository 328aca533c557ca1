"""The web application: pages, API and commands.

Importing it costs nothing: gunicorn's master process, which only starts others, reads the settings
(`app.config`) and should not take the memory of torch for that.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from app.config import Settings

__all__ = ["create_app"]


def create_app(settings: "Settings | None" = None) -> "Flask":
    """Create the application. It also starts without weights, an index or a database.

    Raises SettingsError when a setting in the environment is wrong.
    """
    from app.factory import make_app

    return make_app(settings)
