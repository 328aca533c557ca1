"""The Flask application."""

import hashlib
import threading
from pathlib import Path

from flask import Flask, request, url_for
from flask.sessions import SecureCookieSessionInterface
from flask_wtf import CSRFProtect

from app.api import allow_origins, register_api
from app.cli.classify import classify_command
from app.cli.index import index_commands
from app.cli.terminal import database_commands
from app.config import Settings
from app.database.session import session_factory
from app.errors import register_errors
from app.inference.loader import ModelLoader
from app.inference.lru_cache import LruCache
from app.logs import redact_tokens
from app.uploads.receive import FORM_OVERHEAD_BYTES
from app.views import classify, explore, health, images, models, results
from app.views.figure4 import page as figure4
from app.views.figure4.content import FigureState
from app.views.filters import page as filters
from app.views.format import register_filters
from app.views.headers import add_headers
from app.views.layers import page as layers
from app.views.layers.activations import MAX_CACHED_ACTIVATIONS
from app.views.map import page as map
from app.views.runs import page as training
from app.web import FiniteJSONProvider

ROOT = Path(__file__).resolve().parent.parent
AT_ONCE = 2
"""Uploads decoded and classified at a time: a photograph of 50 megapixels takes 150 MB."""


class Cookies(SecureCookieSessionInterface):
    """The session's cookie, marked Secure whenever the page itself came over HTTPS."""

    def get_cookie_secure(self, app: Flask) -> bool:
        """Also over plain HTTP on this machine the forms must work."""
        return request.is_secure


def create_app(settings: Settings | None = None) -> Flask:
    """Make the application. It starts with nothing there yet: no weights, index or database.

    Raises SettingsError when a setting in the environment is wrong.
    """
    settings = settings or Settings.from_environment()
    app = Flask(__name__, template_folder=str(ROOT / "templates"))
    configure(app, settings)
    sessions = session_factory(settings)
    app.extensions["settings"] = settings
    app.extensions["sessions"] = sessions
    app.extensions["loader"] = ModelLoader(settings, sessions)
    app.extensions["kept"] = LruCache(MAX_CACHED_ACTIVATIONS)
    app.extensions["figures"] = FigureState()
    app.extensions["compute_slots"] = threading.BoundedSemaphore(AT_ONCE)
    register_views(app)
    register_filters(app)
    register_errors(app)
    app.logger.addFilter(redact_tokens)
    app.after_request(add_headers)
    allow_origins(app, settings)
    app.cli.add_command(database_commands)
    app.cli.add_command(index_commands)
    app.cli.add_command(classify_command)
    return app


def configure(app: Flask, settings: Settings) -> None:
    """Set what Flask and Flask-WTF read from their configuration."""
    app.config.update(
        SECRET_KEY=settings.secret_key,
        MAX_CONTENT_LENGTH=settings.upload_files * settings.upload_bytes + FORM_OVERHEAD_BYTES,
        SESSION_COOKIE_NAME="alexnet",
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_HTTPONLY=True,
        # A page left open overnight still works: the token lives as long as the browser's session.
        WTF_CSRF_TIME_LIMIT=None,
    )
    app.session_interface = Cookies()
    app.json = FiniteJSONProvider(app)
    versions = asset_versions(Path(app.static_folder or ""))
    app.jinja_env.globals["asset"] = lambda name: url_for("static", filename=name, v=versions[name])
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True


def asset_versions(folder: Path) -> dict[str, str]:
    """Hash each static file, so that its address changes with its content."""
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()[:12]
        for file in folder.rglob("*")
        if file.is_file()
    }


def register_views(app: Flask) -> None:
    """Attach the pages, each behind the check of its forms, and the API, which has none."""
    pages = (
        classify,
        results,
        explore,
        images,
        map,
        filters,
        layers,
        figure4,
        training,
        models,
    )
    for module in (*pages, health):
        app.register_blueprint(module.blueprint)
    register_api(app, CSRFProtect(app))
