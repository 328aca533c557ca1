"""The benchmark of the index, on a few vectors."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from benchmarks import peers, retrieval, synthetic, windows
from benchmarks.drawing import draw_query_times
from benchmarks.index import COLUMNS, make_table, take_medians
from model.network.config import AlexNetConfig
from model.predict import Predictor
from model.weights.checkpoint import Weights

ROWS = 64


@pytest.fixture(scope="module")
def predictor(weights_of: Callable[..., Weights]) -> Predictor:
    """The whole network with seeded weights."""
    torch.manual_seed(1)
    config = AlexNetConfig(classes=2, init="he", input_scale=60)
    weights = weights_of(config, (), torch.full((3, 256, 256), 120.0))
    return Predictor.from_weights(weights, "cpu")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Eight photographs."""
    folder = tmp_path_factory.mktemp("photographs")
    whole = Image.fromarray(skimage.data.astronaut())
    files = [folder / f"{number}.png" for number in range(8)]
    for number, file in enumerate(files):
        whole.crop((20 * number, 30 * number, 20 * number + 200, 30 * number + 200)).save(file)
    return files


@pytest.fixture
def work(
    tmp_path: Path,
    predictor: Predictor,
    photographs: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """Two slices of crops, and queries."""
    for module in (windows, retrieval):
        monkeypatch.setattr(module, "ROWS_PER_SLICE", ROWS)
    windows.make_slices(predictor, photographs, 2 * ROWS, tmp_path / "windows")
    np.save(tmp_path / "queries.npy", np.load(tmp_path / "windows/00001.npy")[-6:].astype("f4"))
    np.save(tmp_path / "held_out.npy", np.load(tmp_path / "windows/00001.npy")[:6].astype("f4"))
    return tmp_path


def test_the_first_vectors_are_the_photographs_own(
    predictor: Predictor, photographs: list[Path], work: Path
) -> None:
    slices = [np.load(file) for file in sorted((work / "windows").glob("*.npy"))]
    assert [found.shape for found in slices] == [(ROWS, 4096)] * 2
    assert {found.dtype for found in slices} == {np.dtype(np.float16)}
    squares = np.stack([windows.read_square(file) for file in photographs])
    assert np.allclose(slices[0][:8], predictor.extract_features(squares), rtol=2e-3, atol=1e-3)
    assert len(np.unique(np.concatenate(slices), axis=0)) == 2 * ROWS


def test_a_crop_among_others_has_nearly_the_features_of_one_cut_out(
    predictor: Predictor, photographs: list[Path]
) -> None:
    square = windows.read_square(photographs[0])[None]
    (alone,) = windows.window_features(predictor, square, 0, mirror=False)
    assert alone.shape == (4096,)
    found = windows.window_features(predictor, square, 1, mirror=False).astype(np.float64)
    assert found.shape == (4, 4096)
    side = predictor.config.crop + windows.STRIDE
    large = torch.nn.functional.interpolate(
        predictor.prepare_input(square), (side, side), mode="bicubic", align_corners=False
    )
    with torch.inference_mode():
        cut = predictor.network(large[..., 32:, 32:]).fc7.double().numpy()[0]
    distances = np.linalg.norm(found - cut, axis=1)
    assert distances.argmin() == 3
    assert distances[3] < 0.7 * np.delete(distances, 3).min()


@pytest.mark.parametrize("kind", ["exact", "flat", "ivf"])
def test_a_kind_is_built_and_asked(
    work: Path,
    kind: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = {"size": 110, "work": str(work), "queries": 6, "recall": 1.0, "kind": kind}
    monkeypatch.setattr(sys, "stdin", io.StringIO("go\ngo\n"))
    monkeypatch.setattr(torch, "set_num_threads", lambda _count: None)
    for part in ("truth", "build", "ask"):
        retrieval.run_part(part, told)
    _, built, opened, *turns = map(json.loads, capsys.readouterr().out.splitlines())
    assert (built["megabytes"] > 0) == (kind == "ivf")
    assert opened["recall@6"] > 0.9 if kind == "ivf" else opened["recall@6"] == 1
    assert len(turns) == 2
    assert all(turn["one_ms"] > 0 and turn["resident_gib"] > turn["own_gib"] for turn in turns)
    figures = [{"size": 110, "kind": kind, **built, **opened, **take_medians(turns)}]
    assert len(make_table(figures, COLUMNS).columns) == len(COLUMNS)


def test_the_truth_is_brute_force(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    retrieval.run_part("truth", {"size": 110, "work": str(work), "queries": 6})
    slices = [np.load(work / f"windows/0000{n}.npy").astype(np.float64) for n in range(2)]
    known = np.concatenate(slices)[:110]
    ids = np.load(work / "truth-110.npz")["ids"]
    for query, found in zip(np.load(work / "queries.npy"), ids, strict=True):
        distances = np.linalg.norm(known - query, axis=1)
        assert (found == np.argsort(distances, kind="stable")[:100] + 1).all()


def test_synthetic_vectors_have_the_spectrum_that_is_asked_for() -> None:
    values = synthetic.draw_slice(0, 600).astype(np.float64)
    assert (synthetic.draw_slice(0, 600) == values).all()
    variances = np.linalg.svd(values - values.mean(axis=0), compute_uv=False) ** 2
    shares = variances / variances.sum()
    assert 0.4 < (values == 0).mean() < 0.6
    # Of real features 0.48, 0.73 and 0.96, of far more vectors.
    assert 0.35 < shares[:8].sum() < 0.6
    assert 0.6 < shares[:128].sum() < 0.9


def test_exact_and_a_peer_are_compared_with_brute_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (synthetic, retrieval):
        monkeypatch.setattr(module, "ROWS_PER_SLICE", 300)
    work = {"size": 300, "work": str(tmp_path), "queries": 5}
    options = peers.Options(
        work=tmp_path, sizes=(300,), contenders=("exact", "faiss"), queries=5, rounds=1
    )
    peers.prepare_vectors(options)
    figures = peers.measure_size(options, 300)
    assert [found["contender"] for found in figures] == ["exact", "faiss"]
    assert figures[0]["recall"] == 1.0
    assert figures[0]["rows_read"] == 300
    assert figures[1]["recall"] >= options.recall
    known = np.load(tmp_path / "windows/00000.npy").astype(np.float64)
    queries = np.load(tmp_path / "queries.npy")
    nearest = [np.argsort(np.linalg.norm(known - q, axis=1), kind="stable")[:6] for q in queries]
    assert (peers.find_truth(work, queries) == nearest).all()
    assert len(make_table(figures, peers.COLUMNS).columns) == len(peers.COLUMNS)


def test_times_are_the_rounds_medians() -> None:
    turns: list[dict[str, Any]] = [
        {"one_ms": 1.0, "resident_gib": 1.0},
        {"one_ms": 9.0, "resident_gib": 1.5},
        {"one_ms": 2.0, "resident_gib": 1.6},
    ]
    assert take_medians(turns) == {"one_ms": 2.0, "resident_gib": 1.6}


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    figures = [{"kind": "exact", "size": n, "one_ms": float(n)} for n in (10, 100)]
    draw_query_times(figures, tmp_path / "new" / "a.svg")
    assert (tmp_path / "new" / "a.svg").read_bytes().startswith(b"<?xml")
