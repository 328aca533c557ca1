"""torchvision's alexnet against torchvision itself."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from skimage import data as photographs
from torch import Tensor, nn
from torchvision.models import AlexNet_Weights, alexnet

from model.dataset.folder import ClassName
from model.formats.exporting import write_state_dict
from model.formats.importing import ImportOptions, import_weights
from model.formats.network import FormatError
from model.image.ten_crop import centre_crop
from model.predict import Predictor
from model.weights.checkpoint import Weights, load_weights, save_weights

CLASSES = 12


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    """A network of torchvision's with weights as they are drawn."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(7)
        return alexnet(weights=None, num_classes=CLASSES).eval()


@pytest.fixture(scope="module")
def file(theirs: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("torchvision") / "mine.pth"
    torch.save(theirs.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def ours(file: Path) -> Weights:
    return import_weights(file).weights


def test_logits_are_equal_in_float64(theirs: nn.Module, ours: Weights) -> None:
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1)).double()
    with torch.inference_mode():
        expected = theirs.double()(x)
        found = ours.build_network().double()(x).logits
    theirs.float()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_a_photograph_becomes_the_same_input_and_the_same_probabilities(
    theirs: nn.Module, ours: Weights
) -> None:
    predictor = Predictor.from_weights(ours, "cpu")
    transform = AlexNet_Weights.IMAGENET1K_V1.transforms()
    for pixels in (photographs.astronaut(), photographs.rocket()[:200, :333]):
        image = Image.fromarray(pixels)
        expected: Tensor = transform(image)[None]
        square = predictor.make_square(image)
        found = centre_crop(predictor.prepare_input(square[None]), 224)
        # A grey level is 0.0175; a few pixels of a scaled picture are rounded otherwise.
        assert (found - expected).abs().max() < 0.02
        assert (found - expected).abs().mean() < 1e-4
        with torch.inference_mode():
            probabilities = theirs(expected).softmax(1)[0].numpy()
        mine = predictor.predict(square).crop_probabilities[4]
        np.testing.assert_allclose(mine, probabilities, atol=1e-4)


def test_what_is_not_known_is_said_and_a_thousand_outputs_get_labels(
    theirs: nn.Module, ours: Weights, tmp_path: Path
) -> None:
    assert ours.provenance.data == "unknown"
    assert ours.provenance.source == "torchvision's alexnet"
    assert ours.provenance.folder is None
    assert ours.classes[11] == ClassName("11", "class 11")
    state = theirs.state_dict()
    state["classifier.6.weight"] = torch.zeros(1000, 4096)
    state["classifier.6.bias"] = torch.arange(1000.0)
    save_file(state, tmp_path / "thousand.safetensors")
    imported = import_weights(tmp_path / "thousand.safetensors")
    categories = AlexNet_Weights.IMAGENET1K_V1.meta["categories"]
    assert [known.label for known in imported.weights.classes] == categories
    assert imported.assumptions
    told = import_weights(tmp_path / "thousand.safetensors", ImportOptions(data="ILSVRC-2012"))
    assert not told.assumptions
    assert told.weights.provenance.data == "ILSVRC-2012"


def test_it_comes_back_as_a_weights_file_and_goes_back_to_torchvision(
    theirs: nn.Module, ours: Weights, tmp_path: Path
) -> None:
    save_weights(ours, tmp_path / "ours.safetensors")
    read = load_weights(tmp_path / "ours.safetensors")
    assert (read.config, read.provenance) == (ours.config, ours.provenance)
    assert read.config.channel_scales == (0.229, 0.224, 0.225)
    for name in ("back.pth", "back.safetensors"):
        write_state_dict(read, tmp_path / name)
        again = import_weights(tmp_path / name).weights
        assert {k: v.tolist() for k, v in again.state.items() if "bias" in k} == {
            k: v.tolist() for k, v in ours.state.items() if "bias" in k
        }
    fresh = alexnet(weights=None, num_classes=CLASSES)
    fresh.load_state_dict(torch.load(tmp_path / "back.pth", weights_only=True))
    assert all(
        torch.equal(a, b) for a, b in zip(fresh.parameters(), theirs.parameters(), strict=True)
    )


Change = Callable[[dict[str, Tensor]], object]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("features.3.bias"), r"conv2\.bias is missing"),
        (lambda s: s.update(extra=torch.zeros(2)), "extra is unexpected"),
        (
            lambda s: s.update({"features.0.weight": torch.zeros(96, 3, 11, 11)}),
            r"conv1\.weight has shape \[96, 3, 11, 11\], expected \[64, 3, 11, 11\]",
        ),
        (lambda s: s.pop("classifier.6.bias"), r"classifier\.6\.bias, is missing"),
        (
            lambda s: s.update({"features.0.bias": torch.full((64,), torch.nan)}),
            r"conv1\.bias contains NaN",
        ),
        (
            lambda s: s.update({"features.0.bias": torch.zeros(64, dtype=torch.int64)}),
            r"conv1\.bias holds int64",
        ),
    ],
)
def test_what_does_not_fit_is_named(
    theirs: nn.Module, tmp_path: Path, change: Change, said: str
) -> None:
    state = dict(theirs.state_dict())
    change(state)
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=said):
        import_weights(tmp_path / "other.pth")


def test_another_network_by_name_is_refused(file: Path) -> None:
    with pytest.raises(FormatError, match="not the network caffenet"):
        import_weights(file, ImportOptions(variant="caffenet"))
    with pytest.raises(FormatError, match="12 outputs, but 2 classes' names"):
        import_weights(file, ImportOptions(classes=(ClassName("a", "a"), ClassName("b", "b"))))
