"""Metrics: who may read them, what they count, and that they stay few and impersonal."""

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from app.config import Settings, SettingsError
from app.serving.metrics import METHODS, UNMATCHED, UNREADABLE

TOKEN = "a token of some length"
STRANGER = {"REMOTE_ADDR": "192.0.2.7"}
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(client: FlaskClient) -> Samples:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    families = text_string_to_metric_families(answer.get_data(as_text=True))
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def total(samples: Samples, name: str, **labels: str) -> float:
    wanted = set(labels.items())
    return sum(v for (found, has), v in samples.items() if found == name and wanted <= has)


@pytest.fixture
def measured(settings: Settings, open_app: Callable[[Settings], Flask]) -> FlaskClient:
    """A server whose metrics this machine may read."""
    return open_app(replace(settings, metrics=("127.0.0.0/8", "::1"))).test_client()


def test_metrics_are_off_unless_somebody_is_named(client: FlaskClient) -> None:
    answer = client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 404
    assert answer.mimetype == "application/problem+json"


def test_only_the_named_addresses_may_read(measured: FlaskClient) -> None:
    assert measured.get("/metrics").status_code == 200
    for address in ("192.0.2.7", "128.0.0.1", "::2", "", "localhost"):
        answer = measured.get("/metrics", environ_overrides={"REMOTE_ADDR": address})
        assert answer.status_code == 403
    claimed = measured.get(
        "/metrics", environ_overrides=STRANGER, headers={"X-Forwarded-For": "127.0.0.1"}
    )
    assert claimed.status_code == 403


def test_a_token_opens_them_from_anywhere_and_cannot_be_guessed(
    settings: Settings, open_app: Callable[[Settings], Flask]
) -> None:
    client = open_app(replace(settings, metrics_token=TOKEN)).test_client()

    def ask(authorization: str) -> int:
        headers = {"Authorization": authorization} if authorization else {}
        return client.get("/metrics", environ_overrides=STRANGER, headers=headers).status_code

    assert ask(f"Bearer {TOKEN}") == 200
    refused = client.get("/metrics", environ_overrides=STRANGER)
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    guesses = [ask(wrong) for wrong in ("Bearer é", f"Basic {TOKEN}", f"bearer{TOKEN}", "Bearer ")]
    assert guesses == [401] * 4
    assert ask(f"Bearer {TOKEN[:-1]}") == 429


def test_networks_and_tokens_are_checked(tmp_path) -> None:
    for variables in ({"ALEXNET_METRICS": "unix"}, {"ALEXNET_METRICS_TOKEN": "short"}):
        with pytest.raises(SettingsError, match=next(iter(variables))):
            Settings.from_environment({"ALEXNET_HOME": str(tmp_path), **variables})


def test_an_upload_is_counted_with_its_size_and_each_of_its_steps(
    measured: FlaskClient, jpeg: bytes
) -> None:
    before = read(measured)
    for _ in range(2):
        sent = {"image": (io.BytesIO(jpeg), "a name.jpg")}
        assert measured.post("/api/classify", data=sent).status_code == 200
    after = read(measured)

    def grown(name: str, **labels: str) -> float:
        return total(after, name, **labels) - total(before, name, **labels)

    route = {"route": "/api/classify"}
    assert grown("alexnet_requests_total", method="POST", status="200", **route) == 2
    assert grown("alexnet_request_seconds_count", **route) == 2
    for stage in ("wait", "decode", "network", "search", "pixels"):
        assert grown("alexnet_stage_seconds_count", stage=stage) == 2
        assert grown("alexnet_stage_seconds_sum", stage=stage) >= 0
    assert grown("alexnet_upload_bytes_count") == 2
    assert grown("alexnet_upload_bytes_sum") == 2 * len(jpeg)
    assert total(after, "alexnet_waiting_requests") == 0
    assert total(after, "alexnet_computing_requests") == 0


def test_a_refusal_is_counted(measured: FlaskClient, jpeg: bytes) -> None:
    queue = measured.application.extensions["compute_queue"]
    measured.get("/readyz")
    queue.slots, queue.limit = 0, 0
    sent = {"image": (io.BytesIO(jpeg), "a.jpg")}
    assert measured.post("/api/classify", data=sent).status_code == 503
    samples = read(measured)
    assert total(samples, "alexnet_refused_requests_total") == 1
    assert total(samples, "alexnet_requests_total", status="503", route="/api/classify") == 1
    assert total(samples, "alexnet_waiting_requests") == 0


def test_connections_that_were_closed_are_counted_by_reason(measured: FlaskClient) -> None:
    metrics = measured.application.extensions["metrics"]
    for reason in ("slow", "evicted", "slow"):
        metrics.count_closed_connection(reason)
    samples = read(measured)
    assert total(samples, "alexnet_closed_connections_total", reason="slow") == 2
    assert total(samples, "alexnet_closed_connections_total") == 3


def test_what_is_in_service_is_named(measured: FlaskClient) -> None:
    ready = measured.get("/readyz").get_json()
    (labels,) = [dict(has) for name, has in read(measured) if name == "alexnet_served_info"]
    assert (labels["weights"], labels["index"]) == (ready["weights"], ready["index"])
    assert labels["runtime"]


def test_labels_are_few_and_nothing_of_a_request_is_in_them(
    measured: FlaskClient, jpeg: bytes
) -> None:
    app = measured.application
    for number in range(60):
        measured.get(f"/secret-{number}/{'x' * number}?of=secret-{number}")
        measured.open(f"/secret-{number}", method=f"SECRET{number}")
        measured.get(f"/api/images/{number}", headers={"X-Request-ID": f"secret-{number}"})
        measured.get(f"/results/secret-secret-secret{number:02}", environ_overrides=STRANGER)
    measured.post("/api/classify", data={"image": (io.BytesIO(jpeg), "secret.jpg")})
    app.extensions["render_error"](400, "/secret")
    text = measured.get("/metrics").get_data(as_text=True)
    assert "secret" not in text.lower()
    assert "192.0.2.7" not in text
    labels = {label for _, has in read(measured) for label in has}
    known = {str(rule) for rule in app.url_map.iter_rules()} | {UNMATCHED, UNREADABLE}
    assert {value for name, value in labels if name == "route"} <= known
    assert {value for name, value in labels if name == "method"} <= {*METHODS, "other"}
    assert (("route", UNMATCHED) in labels, ("route", UNREADABLE) in labels) == (True, True)


def test_openmetrics_is_spoken_where_it_is_asked_for(measured: FlaskClient) -> None:
    answer = measured.get("/metrics", headers={"Accept": "application/openmetrics-text"})
    assert answer.mimetype == "application/openmetrics-text"
    assert answer.get_data(as_text=True).endswith("# EOF\n")
