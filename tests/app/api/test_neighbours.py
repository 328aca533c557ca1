"""Features, and the neighbours found by them, against numpy over the stored vectors."""

import io

import numpy as np
import pytest
from flask.testing import FlaskClient

from model.image.preprocess import decode_square

IDS = list(range(1, 55))


def form(data: bytes, count: int = 1) -> dict[str, object]:
    """A form of images."""
    return {"image": [(io.BytesIO(data), f"{n}.jpg") for n in range(count)]}


@pytest.fixture(scope="module")
def stored(app) -> np.ndarray:
    """The features of the images 1 to 54."""
    return app.extensions["loader"].get_state().index.read_features(IDS).astype(np.float64)


@pytest.fixture(scope="module")
def feature(app, jpeg) -> np.ndarray:
    """The features of a photograph that is not in the index."""
    predictor = app.extensions["loader"].get_state().predictor
    return predictor.extract_features(decode_square(jpeg)[None])[0]


def nearest(stored: np.ndarray, to: np.ndarray, k: int, out: tuple[int, ...] = ()) -> list[int]:
    """The ids of the k nearest, by brute force."""
    distances = np.linalg.norm(stored - to, axis=1)
    order = [IDS[n] for n in np.argsort(distances, kind="stable")]
    return [image for image in order if image not in out][:k]


def ids(client: FlaskClient, address: str, **sent: object) -> list[int]:
    """The ids that are answered."""
    answer = client.post(address, **sent) if sent else client.get(address)
    assert answer.status_code == 200, answer.get_json()
    return [one["id"] for one in answer.get_json()["neighbours"]]


def test_features_are_returned_in_full_precision(client, jpeg, feature):
    answer = client.post("/api/features", data=form(jpeg, 2)).get_json()
    told = np.array([one["feature"] for one in answer["features"]], np.float32)
    assert told.shape == (2, 4096)
    assert (told == feature).all()
    as_bytes = client.post(
        "/api/features", data=form(jpeg, 2), headers={"Accept": "application/octet-stream"}
    )
    assert as_bytes.mimetype == "application/octet-stream"
    assert (np.frombuffer(as_bytes.data, "<f4").reshape(2, 4096) == feature).all()


def test_features_of_an_indexed_image_are_those_of_the_index(client, stored):
    found = client.get("/api/images/7/features").get_json()["feature"]
    assert found == stored[6].tolist()
    other = client.get("/api/images/7/features", headers={"Accept": "application/octet-stream"})
    assert np.frombuffer(other.data, "<f4").tolist() == found


def test_features_of_other_images_are_computed(app, client, photographs):
    known = client.get("/api/figure-4").get_json()["left"][0]["image"]
    assert known["split"] == "val"
    found = client.get(f"/api/images/{known['id']}/features").get_json()["feature"]
    square = decode_square((photographs / known["filename"]).read_bytes())
    own = app.extensions["loader"].get_state().predictor.extract_features(square[None])[0]
    assert found == own.tolist()


def test_neighbours_are_the_nearest(client, jpeg, feature, stored):
    wanted = nearest(stored, feature, 54)
    assert ids(client, "/api/neighbours?k=1000", data=form(jpeg)) == wanted
    assert ids(client, "/api/neighbours", json={"feature": feature.tolist()}) == wanted[:6]
    sent = {"data": jpeg, "content_type": "image/jpeg"}
    assert ids(client, "/api/neighbours?k=2", **sent) == wanted[:2]
    own = ids(client, "/api/images/5/neighbours?k=10")
    assert own == nearest(stored, stored[4], 10, out=(5,))


def test_neighbours_can_be_restricted_to_classes(client, feature, stored):
    listed = client.get("/api/classes").get_json()["classes"]
    first, second = (c["id"] for c in listed[:2])
    pages = [client.get(f"/api/classes/{c}/images?size=1000").get_json() for c in (first, second)]
    inside = {image["id"] for told in pages for image in told["images"]}
    asked = {"json": {"feature": feature.tolist()}}
    found = ids(client, f"/api/neighbours?k=18&class={first}&class={second}", **asked)
    assert found == [i for i in nearest(stored, feature, 54) if i in inside]
    assert client.get("/api/images/1/neighbours?class=9999").status_code == 422


def test_the_mean_of_several_images(client, stored):
    mean = stored[[0, 20, 40]].mean(axis=0)
    answer = client.post("/api/neighbours?k=5", json={"images": [1, 21, 41]}).get_json()
    assert [one["id"] for one in answer["picked"]] == [1, 21, 41]
    assert answer["picked"][0]["distance"] == pytest.approx(np.linalg.norm(stored[0] - mean))
    found = [one["id"] for one in answer["neighbours"]]
    assert found == nearest(stored, mean, 5, out=(1, 21, 41))


@pytest.mark.parametrize(
    ("address", "sent", "field"),
    [
        ("?k=0", {"feature": [0.0] * 4096}, "k"),
        ("?k=1001", {"feature": [0.0] * 4096}, "k"),
        ("?class=x", {"feature": [0.0] * 4096}, "class.0"),
        ("", {"feature": [0.0] * 4095}, "feature"),
        ("", {"feature": [0.0] * 4095 + [1e300]}, "feature"),
        ("", {"feature": [0.0] * 4095 + [float("nan")]}, "feature.4095"),
        ("", {"feature": [0.0] * 4095 + ["x"]}, "feature.4095"),
        ("", {"images": [1]}, "images"),
        ("", {"images": [1, 1]}, "images"),
        ("", {"images": [1, 2, 3, 4, 5, 6, 7]}, "images"),
        ("", {"images": [1, 999]}, "images"),
        ("", {"images": [1, 2], "feature": [0.0] * 4096}, ""),
        ("", {}, ""),
        ("", {"picture": 1}, "picture"),
        ("", [1], ""),
    ],
)
def test_an_invalid_query_names_the_field(client, fits, address, sent, field):
    answer = client.post(f"/api/neighbours{address}", json=sent)
    assert answer.status_code == 422
    assert field in [error["field"] for error in fits(answer)["errors"]]


def test_a_body_that_is_not_json_or_too_long_is_a_problem(client, fits):
    kind = {"content_type": "application/json"}
    assert client.post("/api/neighbours", data=b"{", **kind).status_code == 400
    assert client.post("/api/neighbours", data=b"[" * 100_000, **kind).status_code in (400, 422)
    answer = client.post("/api/neighbours", data=b" " * 600_000, **kind)
    assert answer.status_code == 413
    fits(answer)
