"""Puts the parts of the application together."""

from datetime import timedelta
from functools import partial
from pathlib import Path

from flask import Flask
from flask_wtf import CSRFProtect

from app.api import allow_origins, register_api
from app.classroom.fitting import HeadFitter
from app.classroom.zip_file import ZIP_PATH
from app.cli import LazyCommands
from app.config import Settings
from app.database.session import REQUEST_PATIENCE, session_factory
from app.decoding.pool import DecoderPool
from app.errors import register_errors, render_server_error
from app.indexing.pretrained import PretrainedIndexing
from app.inference.loader import ModelLoader
from app.inference.lru_cache import LruCache
from app.serving.admission import ComputeQueue
from app.serving.limits import limit_rates
from app.serving.log import log_as_json, log_requests
from app.serving.metrics import Metrics, measure_requests, name_route
from app.serving.proxies import TrustedProxies
from app.serving.request_id import name_requests
from app.uploads.expiry import UploadCleaner
from app.uploads.receive import FORM_OVERHEAD_BYTES
from app.views import classify, explore, health, images, metrics, models, results
from app.views.figure4 import page as figure4
from app.views.figure4.content import FigureState
from app.views.filters import page as filters
from app.views.format import register_filters
from app.views.layers import page as layers
from app.views.layers import units
from app.views.layers.activations import MAX_CACHED_ACTIVATIONS
from app.views.map import page as map
from app.views.new import page as new
from app.views.paper import page as paper
from app.views.review import page as review
from app.views.runs import page as runs
from app.views.why import page as why
from app.views.why.explanation import ExplanationState
from app.web import configure_web

ROOT = Path(__file__).resolve().parent.parent
MAX_CONCURRENT_IMAGES = 3
"""Images decoded and computed with at once, so that a few requests do not take every core: while
one is computed, two wait to be computed together (model/runtime/joined_passes.py)."""
COOKIE_LIFETIME = timedelta(days=400)
"""As long as browsers keep a cookie at most; it is renewed by each visit to the first page."""
PAGES = (
    *(classify, results, explore, images, map, review, filters, layers, units, why),
    *(figure4, runs, models, new, paper),
)


def make_app(settings: Settings | None = None) -> Flask:
    """As `app.create_app`."""
    settings = settings or Settings.from_environment()
    if settings.log == "json":
        log_as_json()
    app = Flask("app", template_folder=str(ROOT / "templates"))
    app.cli = LazyCommands(app.name)
    app.config.update(
        SECRET_KEY=settings.secret_key,
        MAX_CONTENT_LENGTH=settings.upload_files * settings.upload_bytes + FORM_OVERHEAD_BYTES,
        LARGE_BODIES={ZIP_PATH: settings.dataset_bytes + FORM_OVERHEAD_BYTES},
        TRUSTED_HOSTS=list(settings.hosts) or None,
        PERMANENT_SESSION_LIFETIME=COOKIE_LIFETIME,
        SESSION_REFRESH_EACH_REQUEST=False,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_HTTPONLY=True,
        # A page left open overnight still works: the token lives as long as the browser's session.
        WTF_CSRF_TIME_LIMIT=None,
    )
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    sessions = session_factory(settings, REQUEST_PATIENCE)
    app.extensions["settings"] = settings
    app.extensions["sessions"] = sessions
    app.extensions["loader"] = ModelLoader(settings, sessions)
    app.extensions["background_index"] = PretrainedIndexing(
        settings, sessions, app.extensions["loader"]
    )
    app.extensions["decoder"] = DecoderPool(
        settings.decode_processes, settings.decode_bytes, settings.decode_seconds
    )
    app.extensions["upload_cleaner"] = UploadCleaner(settings, sessions)
    app.extensions["activations"] = LruCache(MAX_CACHED_ACTIVATIONS)
    app.extensions["explanations"] = ExplanationState()
    app.extensions["figures"] = FigureState()
    app.extensions["compute_queue"] = ComputeQueue(MAX_CONCURRENT_IMAGES, settings.queue)
    app.extensions["metrics"] = Metrics()
    app.extensions["head_fitter"] = HeadFitter(
        decoder=app.extensions["decoder"],
        queue=app.extensions["compute_queue"],
        metrics=app.extensions["metrics"],
    )
    # What is registered first comes first before a request, and last after it.
    name_requests(app)
    measure_requests(app)
    if settings.log == "json":
        log_requests(app, name_route)
    configure_web(app)
    register_filters(app)
    register_errors(app)
    app.extensions["render_error"] = partial(render_server_error, app)
    for module in (*PAGES, health, metrics):
        app.register_blueprint(module.blueprint)
    # The pages' forms are behind the CSRF check; the API, which has no cookies, is not.
    register_api(app, CSRFProtect(app))
    allow_origins(app, settings)
    limit_rates(app, settings)
    app.wsgi_app = TrustedProxies(app.wsgi_app, settings.proxies)  # type: ignore[method-assign]
    return app
