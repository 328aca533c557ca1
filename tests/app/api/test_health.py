"""What is told to whoever watches the server."""


def test_health_names_weights_and_index(app, client):
    answer = client.get("/healthz")
    assert answer.status_code == 200
    state = app.extensions["loader"].get_state()
    told = {
        "status": "ready",
        "weights": state.predictor.identity,
        "index": state.version.name,
        "images": 54,
    }
    assert answer.get_json() == client.get("/api/health").get_json() == told
    assert client.head("/healthz").status_code == 200


def test_health_names_what_is_missing(empty):
    answer = empty.get("/healthz")
    assert answer.status_code == 503
    found = answer.get_json()
    assert (found["status"], found["reason"]) == ("unavailable", "no-weights")
    assert (found["weights"], found["index"], found["images"]) == (None, None, 0)
    assert found["command"].startswith("python training/run.py")
    assert empty.head("/healthz").status_code == 503
