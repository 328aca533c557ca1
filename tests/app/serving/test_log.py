"""The structured log and the requests' ids: who may say what in them."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient

from app.serving.log import make_discreet, make_json_formatter
from app.serving.request_id import HEADER, choose_request_id


@pytest.mark.parametrize(
    "given", ["12345678", "3e0ac2a5-b2a1-4f53-8f75-2f9ce9a1e6d4", "a.b_c-d.e", "f" * 64]
)
def test_an_id_of_a_safe_shape_is_taken_over(client: FlaskClient, given: str) -> None:
    for path in ("/livez", "/api/nothing", "/nothing", "/static/shared/missing.svg"):
        assert client.get(path, headers={HEADER: given}).headers[HEADER] == given


@pytest.mark.parametrize(
    "given",
    [
        "",
        "short",
        "f" * 65,
        "12345678 x",
        '"}{"a":"b',
        "<script>x",
        "\N{FULLWIDTH DIGIT ONE}2345678",
        "a\tb-cdefgh",
    ],
)
def test_any_other_id_is_replaced(given: str) -> None:
    chosen = choose_request_id(given)
    assert chosen != given
    assert choose_request_id(chosen) == chosen
    assert choose_request_id(given) != chosen


def test_every_answer_has_an_id_of_its_own(client: FlaskClient) -> None:
    ids = [client.get("/livez").headers[HEADER] for _ in range(5)]
    assert len(set(ids)) == 5
    error = client.application.extensions["render_error"](400, "")
    assert dict(error.headers)[HEADER]


@pytest.fixture
def json_log() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """A logger that writes as the server does with ALEXNET_LOG=json."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(make_json_formatter())
    handler.addFilter(make_discreet)
    log = logging.getLogger("tests.json_log")
    log.propagate, log.handlers[:] = False, [handler]
    yield log, written
    log.handlers.clear()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\u2028", "\x85", "\x1b[2J", "\0"])
def test_no_message_forges_a_line(json_log, end: str) -> None:
    log, written = json_log
    forged = f'gone{end}{{"event": "forged", "level": "critical"}}'
    log.warning("asked for %s", forged)
    log.warning("asked", extra={"route": forged})
    lines = written.getvalue().splitlines()
    assert [json.loads(line)["level"] for line in lines] == ["warning", "warning"]
    assert written.getvalue().isascii()
    assert not any(character in written.getvalue() for character in "\r\x1b\0\x7f")


def test_tokens_are_left_out_of_messages_and_tracebacks(json_log) -> None:
    log, written = json_log
    token = "ABCDEFGHIJKLMNOPQRSTUV"
    try:
        raise OSError(f"/home/uploads/{token}.jpg")
    except OSError:
        log.exception("/results/%s cannot be shown", token)
    (line,) = written.getvalue().splitlines()
    entry = json.loads(line)
    assert token not in line
    assert entry["exception"].startswith("Traceback")
    assert (entry["level"], entry["logger"]) == ("error", "tests.json_log")
