"""What a network says of an image: ten crops averaged, the features of the centre crop."""

from collections.abc import Callable

import numpy as np
import pytest
import skimage.data
import torch

from model.image.decode import decode_image
from model.image.preprocess import CENTRE_CROP, cut_central_square
from model.network.alexnet import AlexNet
from model.network.config import AlexNetConfig
from model.predict import LabelProbability, Predictor
from model.weights.checkpoint import Weights
from model.weights.loaded_network import find_device

LABELS = ("a", "b", "c", "d", "e", "f", "g")


@pytest.fixture(scope="module")
def predictor(weights_of: Callable[..., Weights]) -> Predictor:
    torch.manual_seed(5)
    config = AlexNetConfig(classes=len(LABELS), init="he", input_scale=60.0)
    network = AlexNet(config)
    torch.nn.init.normal_(network.fc8.weight, 0, 0.1)  # so that classes differ
    mean = torch.full((3, 256, 256), 110.0)
    weights = weights_of(config, LABELS, mean, state=network.state_dict())
    return Predictor.from_weights(weights, "cpu")


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return skimage.data.astronaut()[100:356, 50:306]


def by_hand(predictor: Predictor, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ten crops cut, mirrored and averaged in the paper's words, one pass each."""
    x = (image.astype(np.float32).transpose(2, 0, 1) - 110) / 60
    each, features = [], []
    for mirrored in (False, True):
        for top, left in ((0, 0), (0, 32), (32, 0), (32, 32), (16, 16)):
            crop = x[:, top : top + 224, left : left + 224]
            crop = crop[:, :, ::-1].copy() if mirrored else crop
            with torch.inference_mode():
                logits, fc7 = predictor.network(torch.from_numpy(crop)[None])
            e = np.exp(logits[0].double().numpy() - logits.max().item())
            each.append(e / e.sum())
            features.append(fc7[0].numpy())
    return np.array(each), features[4]


def test_ten_crops_are_averaged_after_the_softmax(predictor: Predictor, image: np.ndarray) -> None:
    each, feature = by_hand(predictor, image)
    look = predictor.predict(image)
    np.testing.assert_allclose(look.crop_probabilities, each, atol=1e-5)
    np.testing.assert_allclose(look.probabilities, each.mean(0), atol=1e-5)
    np.testing.assert_allclose(look.fc7, feature, rtol=1e-3, atol=1e-4)
    assert look.probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert each.std(0).max() > 1e-3  # crops differ, or the test shows nothing
    assert CENTRE_CROP == 4


def test_the_index_and_the_page_see_the_same_features(
    predictor: Predictor, image: np.ndarray
) -> None:
    batch = np.stack([image, image[::-1], image[:, ::-1]])
    features = predictor.extract_features(batch)
    assert features.shape == (3, 4096)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features[0], predictor.predict(image).fc7, rtol=1e-3, atol=1e-4)
    probabilities = predictor.predict_probabilities(batch)
    np.testing.assert_allclose(probabilities[0], predictor.predict(image).probabilities, atol=1e-5)


def test_the_five_most_probable_labels_falling(predictor: Predictor) -> None:
    probabilities = np.array([0.05, 0.3, 0.05, 0.2, 0.25, 0.1, 0.05], np.float32)
    top = predictor.top5(probabilities)
    assert [guess.label for guess in top] == ["B", "E", "D", "F", "A"]
    assert top[0] == LabelProbability("B", pytest.approx(0.3))
    assert len(predictor.top5(probabilities[:3])) == 3


def test_a_photographs_bytes_go_all_the_way(predictor: Predictor) -> None:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(skimage.data.coffee()).save(buffer, "PNG")
    square = cut_central_square(decode_image(buffer.getvalue()))
    assert predictor.predict(square).probabilities.shape == (len(LABELS),)


def test_the_device_is_found_or_named() -> None:
    assert find_device("cpu").type == "cpu"
    assert find_device("auto").type in ("cpu", "cuda", "mps")
