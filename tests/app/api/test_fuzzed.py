"""The API, asked by Schemathesis for whatever its own document allows, and for what it forbids.

Every answer has a status, a media type and a content that the document describes, and none is the
server's fault. Real images, results and runs are among the examples, so that not all are a 404.
"""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, given, seed
from hypothesis import settings as limits
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi import checks

from app.config import Settings

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "8"))
"""For each operation, allowed and forbidden ones; more find more, and take as much longer."""
CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
NOTHING_TO_FORBID = {
    "/api/health",
    "/api/models",
    "/api/results/{token}",
    "/api/runs/{name}",
}
"""Paths whose parameters may be any text, so that Schemathesis finds no wrong one."""
RUN = {"preset": "demo", "data": "/photographs", "recipe": {"epochs": 3}, "finished": False}


@pytest.fixture(scope="module")
def fuzzed(settings: Settings, open_app: Callable[[Settings], Flask]) -> Flask:
    app = open_app(replace(settings, api_rate="", upload_rate=""))
    assert app.test_client().get("/readyz").status_code == 200
    return app


@pytest.fixture(scope="module")
def schema(fuzzed: Flask) -> Any:
    return schemathesis.openapi.from_wsgi("/api/openapi.json", fuzzed)


@pytest.fixture(scope="module")
def real(fuzzed: Flask, jpeg: bytes, make_uploader: Callable[[Flask], Any]) -> dict[str, list[Any]]:
    """What exists, by the name of the parameter that asks for it."""
    client = fuzzed.test_client()
    images = [one["id"] for one in client.get("/api/classes/1/images").get_json()["images"]]
    token = make_uploader(fuzzed).token
    run = fuzzed.extensions["settings"].home.runs / "20260101-120000-fuzzed"
    run.mkdir(exist_ok=True)
    (run / "run.json").write_text(json.dumps(RUN))
    (run / "epochs.jsonl").write_text('{"epoch": 1, "loss": NaN, "top1_error": 0.5}\n')
    classes = client.get("/api/classes").get_json()["classes"]
    return {
        "image_id": images,
        "class_id": [one["id"] for one in classes],
        "label": [one["folder"] for one in classes],
        "tower": [0, 1, 2],
        "number": list(range(1, 97)),
        "name": [run.name],
        "token": [token],
        "of": [token, *(f"image-{image}" for image in images)],
        "row": [token, *map(str, images)],
        "page": [1, 2],
        "k": [1, 6],
        "images": [images],
        "image": [jpeg],
    }


def fill_in(case: Case, real: dict[str, list[Any]], draw: Callable[[Any], Any]) -> None:
    """Replace a case's parameters by values that exist."""
    for place in (case.path_parameters, case.query):
        for name in place or {}:
            if name in real:
                place[name] = draw(st.sampled_from(real[name]))
    if case.media_type and case.media_type.startswith("image/"):
        case.body = draw(st.sampled_from(real["image"]))
    elif isinstance(case.body, dict):
        for name in case.body:
            if name in real:
                case.body[name] = draw(st.sampled_from(real[name]))


def fuzz(operation: Any, mode: GenerationMode, real: dict[str, list[Any]]) -> set[int]:
    """Ask for an operation in many ways; return the statuses of the answers."""
    statuses = set()

    @seed(2012)
    @limits(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), exists=st.booleans(), data=st.data())
    def ask(case: Case, exists: bool, data: st.DataObject) -> None:
        if exists and mode is GenerationMode.POSITIVE:
            fill_in(case, real, data.draw)
        statuses.add(case.call_and_validate(checks=CHECKS).status_code)

    ask()
    return statuses


@pytest.mark.slow
def test_what_the_document_allows_is_answered_as_it_says(schema, real) -> None:
    for found in schema.get_all_operations():
        operation = found.ok()
        statuses = fuzz(operation, GenerationMode.POSITIVE, real)
        assert statuses & {200, 304}, operation.label


@pytest.mark.slow
def test_what_the_document_forbids_is_refused_as_it_says(schema, real) -> None:
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path not in NOTHING_TO_FORBID:
            fuzz(operation, GenerationMode.NEGATIVE, real)
