"""The page of switches: what it shows is what the changed network computes."""

import numpy as np
import pytest

from model.network.switches import Switches
from model.visualization.activations import trace_activations, trace_switched_activations


@pytest.fixture(scope="module")
def truth(app, uploader):
    """What the network, changed, says of the picture that was kept."""
    predictor = app.extensions["loader"].require_ready().predictor
    square = predictor.decode_square(uploader.client.get(PICTURE.format(uploader.token)).data)
    return lambda switches: (predictor, trace_switched_activations(predictor, square, switches))


PICTURE = "/results/{}/picture.jpg"


def changed_labels(shown) -> dict[str, tuple[float, float]]:
    """Each label's percentages, as trained and changed."""
    found = {}
    for item in shown.one("ol", "pairs").all("li"):
        numbers = item.one("span", "number").text.replace("<", "").split()
        before, after = (float(n) for n in numbers if n.replace(".", "").isdigit())
        found[item.one("span", "label").text] = (before, after)
    return found


@pytest.mark.parametrize(
    ("address", "switches"),
    [
        ("neurons=tanh&lrn=off", Switches(neurons="tanh", lrn=False)),
        ("silent=2&crop=3", Switches(silent_tower=2, crop=3)),
        ("dropout=on&seed=7", Switches(dropout_samples=10, seed=7)),
    ],
)
def test_labels_are_those_of_the_changed_network(
    uploader, page, truth, address: str, switches: Switches
) -> None:
    shown = page(uploader.client.get(f"/layers/switches?of={uploader.token}&{address}"))
    predictor, after = truth(switches)
    _, before = truth(Switches(crop=switches.crop))
    for label, numbers in changed_labels(shown).items():
        index = [one.label for one in predictor.classes].index(label)
        expected = before.probabilities[0, index], after.probabilities.mean(0)[index]
        assert numbers == pytest.approx([100 * p for p in expected], abs=0.11)


def test_pictures_differ_only_where_the_network_does(uploader, page) -> None:
    shown = page(uploader.client.get(f"/layers/switches?of={uploader.token}&silent=2"))
    layers = shown.all("section", "changed-layer")
    assert [layer.one("h3").text for layer in layers] == [
        *("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")
    ]
    first = layers[0].all("img")
    pictures = [uploader.client.get(one.attributes["src"]) for one in first]
    assert {one.mimetype for one in pictures} == {"image/png"}
    # conv1 on GPU 1 sees the image alone; on GPU 2 it is silent.
    assert pictures[0].data == pictures[1].data
    assert pictures[2].data != pictures[3].data


def test_at_rest_nothing_is_changed(uploader, page, app) -> None:
    shown = page(uploader.client.get(f"/layers/switches?of={uploader.token}"))
    assert all(before == after for before, after in changed_labels(shown).values())
    predictor = app.extensions["loader"].require_ready().predictor
    square = predictor.decode_square(uploader.client.get(PICTURE.format(uploader.token)).data)
    best = trace_activations(predictor, square).probabilities
    label = predictor.classes[int(np.argmax(best))].label
    assert next(iter(changed_labels(shown))) == label


@pytest.mark.parametrize(
    "wrong", ["neurons=sigmoid", "silent=3", "crop=10", "seed=x", "seed=10000", "crop=-1"]
)
def test_what_there_is_not_is_not_found(uploader, wrong: str) -> None:
    address = f"/layers/switches?of={uploader.token}&{wrong}"
    assert uploader.client.get(address).status_code == 404


def test_without_an_image_there_are_examples(app, page) -> None:
    shown = page(app.test_client().get("/layers/switches"))
    links = [a.attributes["href"] for a in shown.one("ul", "three").all("a")]
    assert len(links) == 3
    assert all(link.startswith("/layers/switches?of=image-") for link in links)
