"""Caffe's networks, from files written here, against NumPy's forward pass of them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from model.formats.caffe import read_mean_image
from model.formats.deep_compression import read_counts, read_deep_compression
from model.formats.importing import ImportOptions, import_weights, read_mean_file
from model.formats.network import FormatError
from model.image.preprocess import CENTRE_CROP
from model.network.alexnet import AlexNet
from model.predict import Predictor
from model.visualization.kernels import draw_kernels
from model.weights.checkpoint import Weights, save_weights
from tests.published_files import (
    SHAPES,
    Doubles,
    Layers,
    caffe_forward,
    caffe_layer,
    draw_layers,
    field,
    write_caffemodel,
    write_deep_compression,
    write_mean,
)

MEAN = np.array([104.007, 116.669, 122.679])
"""Blue, green, red."""


@pytest.fixture(scope="module")
def layers() -> Layers:
    return draw_layers()


@pytest.fixture(scope="module")
def square() -> np.ndarray:
    """uint8 [256, 256, 3], red first."""
    return np.random.default_rng(1).integers(0, 256, (256, 256, 3), np.uint8)


@pytest.fixture(scope="module")
def alexnet(layers: Layers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_caffemodel(tmp_path_factory.mktemp("caffe") / "mine.caffemodel", layers)


@pytest.fixture(scope="module")
def imported(alexnet: Path) -> Weights:
    return import_weights(alexnet).weights


@pytest.fixture(scope="module")
def expected(imported: Weights, layers: Layers, square: np.ndarray) -> Doubles:
    """fc8 of the centre crop, as NumPy computes it; the mean is float32, as in the file."""
    mean = imported.mean.double().numpy()[::-1]
    np.testing.assert_allclose(mean[:, 0, 0], MEAN, rtol=1e-6)
    return caffe_forward(layers, caffe_input(square, mean))


@pytest.fixture(scope="module")
def compressed(layers: Layers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_deep_compression(tmp_path_factory.mktemp("han") / "AlexNet_compressed.net", layers)


def logits(weights: Weights, square: np.ndarray) -> Doubles:
    """fc8 of the centre crop, in float64, as this project computes it."""
    predictor = Predictor.from_weights(weights, "cpu")
    x = torch.from_numpy(square).permute(2, 0, 1)[None].double() - weights.mean.double()
    network: AlexNet = predictor.network.double()
    with torch.inference_mode():
        found: Doubles = network(x[..., 14:241, 14:241]).logits[0].numpy()
    return found


def caffe_input(square: np.ndarray, mean: np.ndarray) -> Doubles:
    """What Caffe's data layer makes of pixels, red first, and a mean, blue first."""
    blue_first = square[..., ::-1].transpose(2, 0, 1).astype(np.float64)
    centred: Doubles = (blue_first - mean)[:, 14:241, 14:241]
    return centred


def assert_equal(found: Doubles, expected: Doubles) -> None:
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


def test_alexnet_computes_what_caffe_does(
    imported: Weights, square: np.ndarray, expected: Doubles
) -> None:
    assert imported.config.net == "caffe-alexnet"
    assert_equal(logits(imported, square), expected)
    probabilities = Predictor.from_weights(imported, "cpu").predict(square).crop_probabilities
    np.testing.assert_allclose(
        probabilities[CENTRE_CROP], np.exp(expected) / np.exp(expected).sum(), rtol=1e-3, atol=1e-7
    )
    assert imported.provenance.data == "unknown"
    assert (imported.provenance.images, imported.provenance.top1_error) == (None, None)
    assert (imported.classes[0].folder, imported.classes[0].label) == ("n01440764", "tench")


def test_caffenet_in_the_new_form_with_a_mean_image(
    layers: Layers, square: np.ndarray, tmp_path: Path
) -> None:
    file = write_caffemodel(tmp_path / "net.caffemodel", layers, pool_first=True, old=False)
    image = np.random.default_rng(2).uniform(80, 150, (3, 256, 256)).astype(np.float32)
    mean = write_mean(tmp_path / "imagenet_mean.binaryproto", image)
    weights = import_weights(file, ImportOptions(mean=mean)).weights
    assert weights.config.net == "caffenet"
    x = caffe_input(square, image.astype(np.float64))
    assert_equal(logits(weights, square), caffe_forward(layers, x, pool_first=True))
    # NumPy's file of the same image, as Caffe's Python examples have it.
    array = tmp_path / "ilsvrc_2012_mean.npy"
    np.save(array, image)
    np.testing.assert_array_equal(read_mean_file(array, bgr=True), weights.mean.numpy())
    np.save(array, image[:, 1:])
    with pytest.raises(FormatError, match=r"\[3, 255, 256\], expected \[3, 256, 256\]"):
        import_weights(file, ImportOptions(mean=array))


def test_the_compressed_file_computes_what_caffe_does(
    compressed: Path, layers: Layers, square: np.ndarray, expected: Doubles
) -> None:
    assert compressed.stat().st_size < 10e6
    tensors = read_deep_compression(compressed)
    for name, (weights, biases) in layers.items():
        np.testing.assert_array_equal(tensors[f"{name}.weight"], weights)
        np.testing.assert_array_equal(tensors[f"{name}.bias"], biases)
    read = import_weights(compressed)
    assert_equal(logits(read.weights, square), expected)
    # Stored in this project's own coding it is as small.
    assert read.few_values
    file = compressed.with_suffix(".safetensors")
    save_weights(read.weights, file, compressed=True)
    assert file.stat().st_size < 10e6


def test_kernels_are_shown_in_true_colours(imported: Weights, layers: Layers) -> None:
    picture = draw_kernels(imported.state["conv1.weight"], scale=1, gap=0).convert("RGB")
    for number in (0, 95):
        kernel = layers["conv1"][0][number]
        shades = np.rint(128 + 127 * kernel.astype(np.float64) / np.abs(kernel).max())
        corner = picture.getpixel((11 * (number % 8), 11 * (number // 8)))
        blue, green, red = shades[:, 0, 0].tolist()
        assert corner == (red, green, blue)


def test_a_caffemodel_that_is_not_one_of_the_two_is_refused(layers: Layers, tmp_path: Path) -> None:
    small = {
        name: (w[:, :1, :1, :1] if w.ndim == 4 else w[:1, :1], b[:1])
        for name, (w, b) in layers.items()
    }
    file = tmp_path / "other.caffemodel"
    write_caffemodel(file, small, alpha=5e-4)
    with pytest.raises(FormatError, match=r"norm1 has alpha 0\.0005, expected 0\.0001"):
        import_weights(file)
    write_caffemodel(file, small)
    with pytest.raises(FormatError, match=r"conv1.weight has shape \[96, 1, 1, 1\], expected"):
        import_weights(file)
    write_caffemodel(file, {k: v for k, v in small.items() if k != "fc8"})
    with pytest.raises(FormatError, match="layer fc8 is missing"):
        import_weights(file)
    file.write_bytes(caffe_layer("conv1", "data", old=True))
    with pytest.raises(FormatError, match="--variant"):
        import_weights(file)
    file.write_bytes(field(1, b"AlexNet"))
    with pytest.raises(FormatError, match="no layers"):
        import_weights(file)
    with pytest.raises(FormatError, match="not a mean image"):
        read_mean_image(write_mean(file, np.zeros((1, 4, 4), np.float32)))


def test_a_cut_caffemodel_is_refused(alexnet: Path, tmp_path: Path) -> None:
    whole = alexnet.read_bytes()
    for length in (30, 1000, 1_000_000):
        file = tmp_path / "cut.caffemodel"
        file.write_bytes(whole[:length])
        with pytest.raises(FormatError, match="may be damaged or not downloaded completely"):
            import_weights(file)


def damaged(whole: bytes) -> Iterator[tuple[bytes, str]]:
    """Parts of the compressed file changed, and what is said of it."""
    counts = read_counts(whole) or []
    books, biases = 32, 32 + 4 * 256
    codes = biases + 4 * 96
    gaps = codes + counts[0]

    def change(at: int, new: bytes) -> bytes:
        return whole[:at] + new + whole[at + len(new) :]

    yield whole[:20], "the header"
    yield whole[:500], "the codebook of conv1"
    yield whole[: biases + 4], "the biases of conv1"
    yield whole[: codes + 9], "the codes of conv1"
    yield whole[: gaps + 9], "the gaps of conv1"
    yield whole[:-1], "the gaps of fc8"
    yield change(books, np.float32(0.5).tobytes()), "the codebook of conv1 is 0.5, not zero"
    yield change(books + 4, np.float32(np.nan).tobytes()), "NaN or infinity"
    yield change(gaps, b"\xff" * 4000), "run past its 34,848 weights"
    yield change(0, b"\xff" * 4), "does not begin with the numbers"
    yield change(0, bytes(4)), "does not begin with the numbers"


def test_a_damaged_compressed_file_is_refused_in_words(compressed: Path, tmp_path: Path) -> None:
    for number, (data, said) in enumerate(damaged(compressed.read_bytes())):
        file = tmp_path / f"{number}.net"
        file.write_bytes(data)
        with pytest.raises(FormatError, match=said):
            import_weights(file)


def test_odd_counts_and_wide_gaps(tmp_path: Path) -> None:
    layers = {}
    for name, shape in SHAPES.items():
        weights = np.zeros(shape, np.float32)
        # The first, one after exactly sixteen zeros, one far behind, and the last.
        weights.reshape(-1)[[0, 17, 5000, -1]] = 1, 2, 3, 4
        layers[name] = weights, np.full(shape[0], 0.25, np.float32)
    for name in ("conv2", "fc6"):
        layers[name][0].reshape(-1)[5001] = 1
    file = write_deep_compression(tmp_path / "few.net", layers)
    assert {count % 2 for count in read_counts(file.read_bytes()) or []} == {0, 1}
    tensors = read_deep_compression(file)
    for name, (weights, biases) in layers.items():
        np.testing.assert_array_equal(tensors[f"{name}.weight"], weights)
        np.testing.assert_array_equal(tensors[f"{name}.bias"], biases)
