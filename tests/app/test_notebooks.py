"""The notebooks run from beginning to end, and what they find is what other code finds."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from app.config import Settings
from index.store import open_version, read_current_version
from model import load
from model.network.switches import Switches
from model.visualization.activations import trace_switched_activations
from storage.pretrained import SHIPPED

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def run_notebook() -> Run:
    """Runs a notebook with some of its variables set; gives all that it defines."""
    pytest.importorskip("marimo", reason="marimo is not installed")

    def run(name: str, **variables: Any) -> Any:
        return importlib.import_module(f"notebooks.{name}").app.run(defs=variables)[1]

    return run


@pytest.fixture(scope="module")
def weights(narrow_settings: Settings) -> Path:
    """Weights that are computed with in no time."""
    return narrow_settings.home.weights


def test_every_notebook_is_tested() -> None:
    assert {file.stem for file in NOTEBOOKS.glob("*.py")} == {
        "figure_3",
        "figure_4",
        "lrn_and_dropout",
    }


def test_figure_3_tests_whether_the_towers_differ(run_notebook: Run) -> None:
    if not SHIPPED.weights.exists():
        pytest.skip("no weights ship with this copy")
    # The weights that ship, whose towers differ: their first layer is all that is computed with.
    found = run_notebook("figure_3")
    first, second = found["selectivities"]
    assert (len(first), len(second)) == (48, 48)
    kernels = found["predictor"].conv1.astype(float)
    grey = np.square(kernels.sum(axis=1)).sum(axis=(1, 2)) / 3
    share = 1 - grey / np.square(kernels).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(np.concatenate([first, second]), share, atol=1e-6)
    assert found["contrast"].difference == pytest.approx(second.mean() - first.mean(), abs=1e-6)
    assert found["contrast"].p < 0.05
    assert found["learned"] > 2 * found["noise"]


def test_figure_4_finds_the_nearest_of_a_folder(
    run_notebook: Run, weights: Path, photographs: Path
) -> None:
    found = run_notebook("figure_4", weights=weights, **ask(photographs, None))
    (gallery, labels), (queries, asked) = found["gallery"], found["queries"]
    predictor = load(weights, device="cpu")
    distances = cdist(predictor.extract_features(queries), predictor.extract_features(gallery))
    for row, near in zip(distances, found["near"], strict=True):
        nearest = np.argsort(row, kind="stable")[:6]
        assert [label for _, label in near] == [labels[n] for n in nearest]
        for n, (square, _) in zip(nearest, near, strict=True):
            np.testing.assert_array_equal(square, gallery[n])
    assert len(asked) == len(set(asked))


def test_figure_4_searches_an_index(
    run_notebook: Run, weights: Path, narrow_settings: Settings
) -> None:
    root = narrow_settings.home.index
    found = run_notebook("figure_4", weights=weights, **ask(None, root))
    index = open_version(root, read_current_version(root) or "")
    features = load(weights, device="cpu").extract_features(found["queries"][0])
    distances = index.search(features, 6).distances
    shown = np.stack([[square for square, _ in row] for row in found["near"]])
    own = load(weights, device="cpu").extract_features(shown.reshape(-1, 256, 256, 3))
    again = np.linalg.norm(own.reshape(len(features), 6, -1) - features[:, None], axis=2)
    np.testing.assert_allclose(again, distances, rtol=1e-2, atol=1e-2)


def test_lrn_and_dropout_are_switched(run_notebook: Run, weights: Path) -> None:
    found = run_notebook("lrn_and_dropout", weights=weights)
    assert found["changes"]["conv1"] == 0
    assert found["changes"]["conv2"] > 0.01
    predictor, square = load(weights, device="cpu"), found["square"]
    thinned = trace_switched_activations(predictor, square, Switches(dropout_samples=10))
    best = thinned.probabilities.argmax(axis=1)
    whole = found["before"].probabilities[0].argmax()
    assert found["agreeing"] == (best == whole).sum()
    assert np.ptp(thinned.probabilities, axis=0).max() > 0


def ask(folder: Path | None, index_root: Path | None) -> dict[str, Any]:
    """The variables of Figure 4's notebook that a reader may set."""
    return {
        "folder": folder,
        "index_root": index_root,
        "per_class": 4,
        "queries_per_class": 1,
    }
