"""What is told to whoever watches the server."""

from app import create_app


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


def test_weights_without_an_index_are_ready_and_say_what_is_missing(weights_alone) -> None:
    answer = weights_alone.get("/readyz")
    found = answer.get_json()
    assert (answer.status_code, found["status"]) == (200, "ready")
    assert (found["index"], found["images"], found["reason"]) == (None, 0, "no-index")
    assert found["command"] == "flask index build"
    assert weights_alone.get("/api/health").get_json() == found
    assert len(found["weights"]) == 32


def test_a_process_lives_whatever_it_lacks(client, empty) -> None:
    assert (client.get("/livez").status_code, empty.get("/livez").status_code) == (200, 200)
    assert (client.get("/readyz").status_code, empty.get("/readyz").status_code) == (200, 503)


def test_health_asks_the_database(shop) -> None:
    client = create_app(shop.settings).test_client()
    assert client.get("/readyz").status_code == 200
    away = shop.settings.home.database.with_name("away")
    shop.settings.home.database.rename(away)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.get_json()["reason"]) == (503, "database")
    assert client.get("/livez").status_code == 200
    assert not shop.settings.home.database.exists()  # no empty one in its place
    away.rename(shop.settings.home.database)
    assert client.get("/readyz").status_code == 200
