"""Features of files: in order, the same in any batch, bad files left out and listed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from index.build import compute_features
from model.alexnet import FEATURES, AlexNet, AlexNetConfig
from model.checkpoint import Pca, Provenance, Weights
from model.images import read_file
from model.photographs import ClassName
from model.predict import Predictor


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    torch.manual_seed(0)
    config = AlexNetConfig(classes=3, init="he", input_scale=60)
    weights = Weights(
        config=config,
        classes=tuple(ClassName(name, name) for name in "abc"),
        mean=torch.full((3, 256, 256), 110.0),
        pca=Pca(torch.ones(3), torch.eye(3)),
        provenance=Provenance(
            data="/d",
            images=1,
            epochs=1,
            preset="p",
            top1_error=None,
            top5_error=None,
            commit="unknown",
            created="2026-01-01T00:00:00+00:00",
        ),
        state=AlexNet(config).state_dict(),
    )
    return Predictor.from_weights(weights, "cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Nine images of noise and blocks."""
    root, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    made = []
    for number in range(9):
        blocks = rng.integers(0, 256, (8, 10, 3), np.uint8).repeat(30, 0).repeat(30, 1)
        made.append(root / f"{number}.png")
        Image.fromarray(blocks).save(made[-1])
    return made


def test_features_are_those_of_the_centre_crop(predictor: Predictor, files: list[Path]) -> None:
    items = [(10 + i, file) for i, file in enumerate(files)]
    computed = compute_features(predictor, items, batch=4)
    assert computed.ids.tolist() == list(range(10, 19))
    assert computed.features.dtype == np.float32
    for row, file in enumerate(files):
        alone = predictor.look(read_file(file)).fc7
        np.testing.assert_allclose(computed.features[row], alone, rtol=1e-4, atol=1e-4)


def test_bad_files_are_listed_and_left_out(
    tmp_path: Path, predictor: Predictor, files: list[Path]
) -> None:
    cut, empty, gone = (tmp_path / name for name in ("cut.png", "empty.jpg", "gone.jpg"))
    cut.write_bytes(files[0].read_bytes()[:200])
    empty.touch()
    items = list(enumerate([cut, files[1], empty, files[2], gone], 1))
    said: list[int] = []
    computed = compute_features(predictor, items, batch=2, on_progress=said.append)
    assert computed.ids.tolist() == [2, 4]
    assert computed.features.shape == (2, FEATURES)
    assert [(i, path) for i, path, _ in computed.unreadable] == [(1, cut), (3, empty), (5, gone)]
    for _, path, reason in computed.unreadable:
        assert reason
        assert str(path) not in reason
    assert said == [2, 4, 5]


def test_nothing_to_compute(predictor: Predictor, tmp_path: Path) -> None:
    none = compute_features(predictor, [])
    assert none.features.shape == (0, FEATURES)
    bad = compute_features(predictor, [(1, tmp_path / "gone.jpg")])
    assert bad.features.shape == (0, FEATURES)
    assert len(bad.unreadable) == 1


def test_an_interrupt_ends_the_reading(predictor: Predictor, files: list[Path]) -> None:
    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compute_features(predictor, list(enumerate(files * 50)), batch=2, on_progress=interrupt)
