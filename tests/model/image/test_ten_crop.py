"""Ten crops that share their first layers against ten crops asked one by one, on a photograph."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import skimage.data
import torch

from model.image.ten_crop import SharedPrefix, find_shared_prefix, run_crops, ten_crop_forward
from model.network.alexnet import AlexNet
from model.network.architectures import VARIANTS
from model.network.config import AlexNetConfig
from model.predict import Predictor


def squares(side: int) -> torch.Tensor:
    """Two squares of a photograph, less a constant mean: float32 [2, 3, side, side]."""
    picture = skimage.data.astronaut()
    two = np.stack([picture[100 : 100 + side, 50 : 50 + side], picture[:side, 200 : 200 + side]])
    return torch.from_numpy(two).permute(0, 3, 1, 2).float() - 110


def one_by_one(network: AlexNet, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The crops of §4.1 cut and mirrored in the paper's words, a pass each."""
    side, crop = network.config.side, network.config.crop
    end, middle = side - crop, (side - crop) // 2
    outputs = []
    for square in x:
        for mirrored in (False, True):
            for top, left in ((0, 0), (0, end), (end, 0), (end, end), (middle, middle)):
                cut = square[:, top : top + crop, left : left + crop]
                outputs.append(network((cut.flip(-1) if mirrored else cut)[None]))
    return torch.cat([o.logits for o in outputs]), torch.cat([o.fc7 for o in outputs])


SMALL = AlexNetConfig(classes=5, init="he", side=104, crop=72)
"""The crops lie as many pixels from the edges, and from positions of pool1, as those of 224."""
CONFIGS = {
    "paper": (SMALL, SharedPrefix(5, reach=19, stride=8, border=3)),
    # conv1, ReLU, LRN and pooling that does not overlap: no place looks beyond the edge.
    "plain pooling": (
        replace(SMALL, overlapping=False),
        SharedPrefix(5, reach=15, stride=8, border=3),
    ),
    "original": (
        replace(SMALL, net="original"),
        SharedPrefix(5, reach=19, stride=8, border=3),
    ),
    "tanh, without LRN": (
        replace(SMALL, activation="tanh", lrn=False, net="one-gpu"),
        SharedPrefix(4, reach=19, stride=8, border=3),
    ),
    # Crops 4 pixels from the centre's: conv1's stride, not pool1's.
    "crops 8 apart": (
        replace(SMALL, side=80),
        SharedPrefix(4, reach=11, stride=4, border=3),
    ),
    "Caffe's 227": (replace(SMALL, net="caffe-alexnet", crop=75), None),
    "torchvision's": (replace(SMALL, net="torchvision"), None),
    "CIFAR-10": (AlexNetConfig(classes=5, net="cifar", init="he", side=32, crop=24), None),
}


@pytest.mark.parametrize("name", CONFIGS)
@torch.inference_mode()
def test_shared_layers_change_nothing_but_rounding(name: str) -> None:
    config, expected = CONFIGS[name]
    torch.manual_seed(3)
    network = AlexNet(config).eval()
    assert find_shared_prefix(network) == expected
    x = squares(config.side) / 60
    logits, fc7 = run_crops(network, x)
    each_logits, each_fc7 = one_by_one(network, x)
    scale = each_logits.abs().max().item()
    torch.testing.assert_close(logits, each_logits, rtol=1e-4, atol=1e-5 * scale)
    torch.testing.assert_close(fc7, each_fc7, rtol=1e-4, atol=1e-5 * each_fc7.abs().max().item())
    # Crops differ, or the test shows nothing.
    assert each_fc7[:10].std(0).max() > 1e-3 * each_fc7.abs().max()


@torch.inference_mode()
def test_the_nets_for_cifar_see_nine_positions_without_mirrors(
    make_predictor: Callable[[AlexNetConfig], Predictor],
) -> None:
    config = replace(VARIANTS["cifar-24"].config, classes=4, init="he", input_scale=60.0)
    predictor = make_predictor(config)
    network, x = predictor.network, squares(32) / 60
    probabilities, features = ten_crop_forward(network, x)
    assert probabilities.shape == (2, 9, 4)
    # cuda-convnet2's views of 24 pixels of 32: 0, 4 and 8 in each direction.
    places = [(top, left) for top in (0, 4, 8) for left in (0, 4, 8)]
    for number, (top, left) in enumerate(places):
        output = network(x[:, :, top : top + 24, left : left + 24])
        torch.testing.assert_close(probabilities[:, number], output.logits.softmax(1))
        torch.testing.assert_close(features[:, number], output.fc7)
    image = skimage.data.astronaut()[100:132, 100:132]
    one = predictor.predict(image)
    assert one.crop_probabilities.shape == (9, 4)
    np.testing.assert_allclose(one.probabilities, one.crop_probabilities.mean(0), rtol=1e-6)
    # The fifth of the nine is the centre crop.
    np.testing.assert_allclose(
        one.fc7, predictor.extract_features(image[None])[0], rtol=1e-4, atol=1e-4
    )
