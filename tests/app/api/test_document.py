"""The document that the API is described by, and the page on which it is browsed."""

import io
import json
import re

import pytest
from openapi_spec_validator import validate

from app.problems import PROBLEM_KINDS

RUN = {"preset": "demo", "data": "/photographs/demo", "recipe": {"epochs": 3}, "finished": False}


def test_the_openapi_document_is_valid(document):
    validate(document)
    assert document["openapi"].startswith("3.1")


def test_every_parameter_has_its_name_where_it_stands(document):
    # Swagger UI does not follow a reference at a path: it would show an input without a name.
    holders = [path for path in document["paths"].values() if "parameters" in path]
    holders += [
        operation
        for path in document["paths"].values()
        for operation in path.values()
        if isinstance(operation, dict) and "parameters" in operation
    ]
    parameters = [one for holder in holders for one in holder["parameters"]]
    assert len(parameters) > 30
    assert all(one["name"] and one["in"] for one in parameters)


def test_the_document_has_every_path_of_the_api_and_no_other(app, document):
    others = {"/api", "/api/openapi.json", "/api/swagger-ui/{name}"}
    rules = {re.sub(r"<(?:[^:<>]+:)?(\w+)>", r"{\1}", str(r)) for r in app.url_map.iter_rules()}
    assert set(document["paths"]) == {r for r in rules if r.startswith("/api")} - others
    for operations in document["paths"].values():
        for operation in operations.values():
            if isinstance(operation, dict):
                assert operation["summary"]
                assert operation["operationId"]


def test_a_command_prints_the_document(app, document):
    printed = app.test_cli_runner().invoke(args=["openapi", "print"])
    assert json.loads(printed.stdout)["paths"] == document["paths"]


@pytest.mark.parametrize(
    "address",
    [
        "/api/classes",
        "/api/classes?q=ROCK&sort=images&size=1",
        "/api/classes/1/images?sort=largest",
        "/api/images/1",
        "/api/images/1/answer",
        "/api/images/1/neighbours?k=3",
        "/api/images/1/features",
        "/api/map",
        "/api/filters",
        "/api/filters/96",
        "/api/layers?of=image-1",
        "/api/figure-4",
        "/api/runs",
        "/api/models",
        "/api/health",
    ],
)
def test_get_responses_match_the_document_and_their_etag(client, fits, address):
    answer = client.get(address)
    assert answer.status_code == 200
    assert fits(answer)
    again = client.get(address, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


@pytest.mark.parametrize("address", ["/api/classify", "/api/features", "/api/neighbours?k=2"])
def test_post_responses_match_the_document(client, fits, jpeg, address):
    answer = client.post(address, data={"image": (io.BytesIO(jpeg), "cat.jpg")})
    assert answer.status_code == 200
    assert fits(answer)


def test_a_stored_result_is_returned_to_anyone_with_its_token(client, fits, uploader, jpeg):
    token = uploader.token
    answer = client.get(f"/api/results/{token}")
    found = fits(answer)
    own = client.post("/api/classify", data={"image": (io.BytesIO(jpeg), "cat.jpg")}).get_json()
    assert found["top5"] == own["answers"][0]["top5"]
    assert found["neighbours"] == own["answers"][0]["neighbours"]
    assert "noindex" in answer.headers["X-Robots-Tag"]
    assert client.get(f"/api/results/{'x' * 22}").status_code == 404
    layers = client.get(f"/api/layers?of={token}&v={found['weights']}")
    assert fits(layers)["of"] == token
    assert "max-age" not in layers.headers["Cache-Control"]


def test_a_run_is_described_and_nan_becomes_null(empty, fits):
    folder = empty.application.extensions["settings"].home.runs / "20260101-120000-demo"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(RUN).replace("3", "NaN"))
    (folder / "epochs.jsonl").write_text('{"epoch": 1, "loss": NaN, "top1_error": 0.5}\n')
    (run,) = fits(empty.get("/api/runs"))["runs"]
    assert (run["state"], run["done"], run["last"]["loss"]) == ("running", 1, None)
    found = fits(empty.get(f"/api/runs/{run['name']}"))
    assert found["recipe"] == {"epochs": None}
    assert found["epochs"][0]["top1_error"] == 0.5
    assert found["data"] == "demo"
    assert empty.get("/api/runs/none").status_code == 404


def test_the_page_explains_each_kind_of_problem(client, page):
    answer = client.get("/api")
    shown = page(answer)
    assert shown.one("h1").text == "API"
    assert set(PROBLEM_KINDS) <= {e.attributes.get("id") for e in shown.all("div")}
    assert client.get("/api/").status_code == 200
    assert shown.one("footer").one("a").attributes["href"] == "/api"
    assert page(client.get("/")).one("footer").one("a").attributes["href"] == "/api"


def test_only_the_api_page_may_use_data_images(client):
    policy = client.get("/api").headers["Content-Security-Policy"]
    assert "img-src 'self' data:;" in policy
    assert "unsafe" not in policy
    for other in ("/", "/api/health", "/api/nothing", "/api/openapi.json"):
        assert "data:" not in client.get(other).headers["Content-Security-Policy"]


def test_swagger_ui_is_served_locally_and_cached_by_version(client, page):
    shown = page(client.get("/api"))
    for address in [
        next(a for e in shown.all("link") if "swagger" in (a := e.attributes["href"])),
        next(a for e in shown.all("script") if "swagger" in (a := e.attributes["src"])),
    ]:
        answer = client.get(address)
        assert len(answer.data) > 100_000
        assert "immutable" in answer.headers["Cache-Control"]
    assert "immutable" not in client.get(address.split("?")[0]).headers["Cache-Control"]
    assert client.get("/api/swagger-ui/VERSION").status_code == 404
