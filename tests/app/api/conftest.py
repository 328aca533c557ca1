"""The API's document, and whether an answer is as the document says."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from openapi_schema_validator import OAS31Validator
from werkzeug.test import TestResponse

Fits = Callable[[TestResponse], Any]


@pytest.fixture(scope="session")
def document(app: Flask) -> dict[str, Any]:
    """The document as the server gives it."""
    answer = app.test_client().get("/api/openapi.json")
    assert answer.mimetype == "application/json"
    found: dict[str, Any] = answer.get_json()
    return found


@pytest.fixture(scope="session")
def fits(document: dict[str, Any]) -> Fits:
    """Sees that an answer has the shape that the document gives it; gives its content."""

    def check(answer: TestResponse) -> Any:
        request = answer.request
        (operation,) = (
            operations[request.method.lower()]
            for path, operations in document["paths"].items()
            if re.fullmatch(re.sub(r"{\w+}", "[^/]+", path), request.path)
            and request.method.lower() in operations
        )
        told = operation["responses"]
        told = told.get(str(answer.status_code), told["default"])
        if "$ref" in told:
            told = document["components"]["responses"][told["$ref"].rsplit("/", 1)[1]]
        schema = {**told["content"][answer.mimetype]["schema"]}
        content = answer.get_json()
        OAS31Validator({**schema, "components": document["components"]}).validate(content)
        return content

    return check
