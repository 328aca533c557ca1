"""What each layer looks at, against the paper's table and what others computed of AlexNet."""

import numpy as np
import pytest
import torch

from model.network.architectures import VARIANTS
from model.network.config import AlexNetConfig
from model.predict import Predictor
from model.visualization.activations import trace_activations
from model.visualization.receptive_field import WeightedLayer, list_weighted_layers


def of(name: str) -> dict[str, WeightedLayer]:
    return {stage.name: stage for stage in list_weighted_layers(VARIANTS[name].config)}


def test_the_stages_of_the_paper_are_those_of_its_text() -> None:
    found = of("paper")
    shapes = {
        name: (s.side, s.maps, s.kernel, s.input_depth, s.stride) for name, s in found.items()
    }
    assert shapes == {
        "conv1": (55, 48, 11, 3, 4),
        "conv2": (27, 128, 5, 48, 1),
        "conv3": (13, 192, 3, 256, 1),
        "conv4": (13, 192, 3, 192, 1),
        "conv5": (13, 128, 3, 192, 1),
        "fc6": (1, 2048, 1, 9216, 1),
        "fc7": (1, 2048, 1, 4096, 1),
        "fc8": (1, 1000, 1, 4096, 1),
    }
    leaves = {name: tuple(stage.output) for name, stage in found.items() if stage.followed_by}
    assert leaves == {"conv1": (48, 27), "conv2": (128, 13), "conv5": (128, 6)}
    assert [s.kind for s in found.values()] == ["maps"] * 5 + ["neurons"] * 2 + ["labels"]


@pytest.mark.parametrize(
    ("name", "meeting"),
    [
        ("paper", ["conv3", "fc6", "fc7", "fc8"]),
        ("original", ["conv3", "fc6", "fc7", "fc8"]),
        ("separate-towers", ["fc6", "fc7", "fc8"]),
        ("no-conv3", ["conv4", "fc6", "fc7", "fc8"]),
        ("conv6", ["conv3", "conv6", "fc6", "fc7", "fc8"]),
        ("caffe-alexnet", ["conv3", "fc6", "fc7", "fc8"]),
        ("one-gpu", []),
        ("torchvision", []),
        ("cifar", []),
    ],
)
def test_the_towers_meet_where_kernels_see_both(name: str, meeting: list[str]) -> None:
    assert [stage.name for stage in of(name).values() if stage.joins_towers] == meeting


def test_what_follows_a_layer_is_told_in_its_order() -> None:
    assert of("paper")["conv1"].followed_by == ("normalised", "pooled")
    assert of("caffenet")["conv1"].followed_by == ("pooled", "normalised across both towers")
    assert of("original")["conv2"].followed_by == (
        "normalised",
        "normalised within each map",
        "pooled",
    )
    assert of("no-lrn")["conv1"].followed_by == ("pooled",)


def test_the_receptive_fields_are_those_published() -> None:
    """Araujo, Norris and Sim, Computing Receptive Fields of CNNs, Distill 2019: AlexNet."""
    fields = [stage.receptive_field for stage in of("paper").values() if stage.receptive_field]
    assert [field.size for field in fields] == [11, 51, 99, 131, 163]
    assert [field.stride for field in fields] == [4, 8, 16, 16, 16]


def test_a_place_changes_with_what_it_sees_and_with_nothing_else(make_predictor) -> None:
    predictor: Predictor = make_predictor(AlexNetConfig(classes=3, init="he", input_scale=60))
    rng = np.random.default_rng(0)
    square = rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)
    before = trace_activations(predictor, square)
    for maps in before.layers[:5]:
        place, field = maps.layer.side // 2, maps.layer.receptive_field
        assert field is not None
        first, last = (int(edge) + 16 for edge in field.extent(place))
        around, ring = (rng.integers(0, 256, square.shape, dtype=np.uint8) for _ in range(2))
        around[first:last, first:last] = square[first:last, first:last]
        ring[first + 1 : last - 1, first + 1 : last - 1] = square[
            first + 1 : last - 1, first + 1 : last - 1
        ]
        values = [
            np.concatenate(found.layers[before.layers.index(maps)].towers)[:, place, place]
            for found in (
                before,
                trace_activations(predictor, around),
                trace_activations(predictor, ring),
            )
        ]
        np.testing.assert_allclose(values[1], values[0], rtol=1e-4, atol=1e-5)
        assert np.abs(values[2] - values[0]).max() > 1e-3, maps.name


def test_building_the_list_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    of("paper")
    assert torch.equal(torch.rand(1), expected)
