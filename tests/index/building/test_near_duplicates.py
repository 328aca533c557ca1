"""What counts as nearly the same: beyond an image saved again, below any other image."""

from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest
import skimage.data
from PIL import Image

from index.building.near_duplicates import measure_near_duplicate_distance
from model.image.preprocess import cut_central_square, decode_square
from model.predict import Pixels, Predictor


class Coarse:
    """A network's stand-in whose features are the mean colours of 16×16 fields."""

    make_square = staticmethod(cut_central_square)
    decode_square = staticmethod(decode_square)

    def extract_features(self, images: Pixels) -> npt.NDArray[np.float32]:
        fields = images.reshape(len(images), 16, 16, 16, 16, 3).mean(axis=(2, 4))
        return fields.reshape(len(images), -1).astype(np.float32)


COARSE = cast(Predictor, Coarse())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Crops of photographs that lie apart."""
    root = tmp_path_factory.mktemp("files")
    made = []
    for name in ("chelsea", "coffee", "astronaut"):
        whole = getattr(skimage.data, name)()
        for number, left in enumerate((0, 100, 200)):
            made.append(root / f"{name}{number}.png")
            Image.fromarray(whole[: 150 + left // 2, left : left + 200]).save(made[-1])
    return made


def test_it_lies_between_copies_and_other_images(files: list[Path], tmp_path: Path) -> None:
    near = measure_near_duplicate_distance(COARSE, files)
    own = COARSE.extract_features(np.stack([cut_central_square(Image.open(f)) for f in files]))
    apart = np.linalg.norm(own[:, None] - own, axis=2)
    np.fill_diagonal(apart, np.inf)
    assert 0 < near <= np.median(apart.min(axis=1)) / 2
    again = []
    for file in files:
        with Image.open(file) as image:
            image.save(tmp_path / f"{file.name}.jpg", quality=75)
        with Image.open(tmp_path / f"{file.name}.jpg") as image:
            again.append(cut_central_square(image))
    assert (
        np.mean(np.linalg.norm(COARSE.extract_features(np.stack(again)) - own, axis=1) <= near)
        >= 0.9
    )


def test_it_can_be_repeated(files: list[Path]) -> None:
    assert measure_near_duplicate_distance(
        COARSE, files, seed=3, sample=4
    ) == measure_near_duplicate_distance(COARSE, files, seed=3, sample=4)


def test_files_that_cannot_be_read_or_are_alone(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"nothing")
    bad = [tmp_path / "bad.jpg", tmp_path / "gone.jpg"]
    assert (
        measure_near_duplicate_distance(COARSE, bad)
        == measure_near_duplicate_distance(COARSE, [])
        == 0
    )
    alone = measure_near_duplicate_distance(COARSE, [files[0], *bad])
    assert alone > 0
    # The same image twice has no other to be told from.
    assert measure_near_duplicate_distance(COARSE, [files[0], files[0]]) == pytest.approx(
        alone, rel=0.1
    )
