"""The benchmark of short codes computes what it says."""

import json
import sys
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import pytest
import torch

from benchmarks import codes, deep_autoencoder
from benchmarks.codes import (
    Dataset,
    Figures,
    Options,
    class_precision,
    compare,
    first_components,
    recall_at_k,
    summarise_winners,
)
from benchmarks.deep_autoencoder import choose_widths, train_machine
from index.sample import make_thumbnail
from model.dataset.folder import scan_folder
from model.image.preprocess import read_square

Floats = npt.NDArray[np.float32]


def fc7_like(count: int, seed: int, width: int = 4096) -> Floats:
    rng = np.random.default_rng(seed)
    along = np.random.default_rng(0).normal(size=(100, width))
    strength = np.arange(1, 101) ** -0.5
    return np.maximum((rng.normal(size=(count, 100)) * strength) @ along, 0).astype(np.float32)


def figures(kind: str, bits: int, recall: float, refined: float) -> Figures:
    return Figures(
        kind=kind,
        bits=bits,
        bytes=bits // 8,
        recall=recall,
        refined=refined,
        precision=None,
        refined_precision=None,
        milliseconds=1.0,
        training=1.0,
    )


def test_recall_counts_the_true_ones_found() -> None:
    truth = np.array([[1, 2, 3], [4, 5, 6]])
    assert recall_at_k(np.array([[3, 9, 8], [6, 5, 4]]), truth) == pytest.approx(4 / 6)


def test_precision_counts_those_of_the_querys_class() -> None:
    none = np.empty((0, 4096), np.float32)
    of = Dataset(none, none, np.array([0, 1, 1]), np.array([1, 0]))
    assert class_precision(of, np.array([[0, 1], [0, 2]])) == 0.5
    assert class_precision(Dataset(none, none), np.array([[0, 1], [0, 2]])) is None


def test_the_first_components_are_those_of_fewer() -> None:
    rows = fc7_like(300, 1, 40)
    whole, few = faiss.PCAMatrix(40, 20), faiss.PCAMatrix(40, 5)
    whole.train(rows)
    few.train(rows)
    found, expected = first_components(whole, 5).apply(rows), few.apply(rows)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-3)


def test_signs_of_components_are_compared_bit_by_bit() -> None:
    of = Dataset(fc7_like(500, 1), fc7_like(40, 2))
    full, code = compare(of, Options(bits=(64,), only=("PCA + sign",)))
    assert (full.recall, full.refined, full.bytes) == (1.0, 1.0, 16384)
    centre = of.rows.mean(axis=0, dtype=np.float64)
    directions = np.linalg.svd(of.rows - centre, full_matrices=False)[2][:64].T
    rows, queries = (((side - centre) @ directions) > 0 for side in (of.rows, of.queries))
    near = (queries[:, None] != rows[None]).sum(axis=2).argsort(axis=1, kind="stable")
    truth = np.square(of.queries[:, None] - of.rows[None]).sum(axis=2).argsort(axis=1)[:, :6]
    assert code.bytes == 8
    assert code.refined == pytest.approx(recall_at_k(near[:, :200], truth), abs=0.02)


def test_a_deep_autoencoders_layers_are_halved_down_to_the_code() -> None:
    assert choose_widths(256) == [2048, 1024, 512, 256]
    assert choose_widths(28) == [2048, 1024, 512, 256, 128, 64, 32, 28]


def test_a_boltzmann_machine_learns_to_give_what_it_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deep_autoencoder, "MACHINE_EPOCHS", 60)
    random = torch.Generator().manual_seed(0)
    # Four patterns of 24 units, some of them flipped.
    patterns = torch.randint(2, (4, 24), generator=random).float()
    seen = patterns[torch.arange(512) % 4]
    seen = (seen - (torch.rand(seen.shape, generator=random) < 0.05).float()).abs()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = train_machine(seen, 16, gaussian=False)
    units = torch.sigmoid(layer(patterns))
    again = torch.sigmoid((units.round() - 0.5) @ layer.weight)
    agree = ((again > 0.5) == (patterns > 0.5)).float().mean()
    assert agree > 0.8  # 0.5 by chance


def test_pixels_of_photographs_are_encoded_too(tmp_path: Path, few_photographs: Path) -> None:
    folder = scan_folder(few_photographs)
    pixels = codes.read_thumbnails(folder.root, folder.train, "train")
    assert pixels.shape == (len(folder.train), 3072)
    first = read_square(folder.root / folder.train[0].path)
    assert pixels[0].tolist() == make_thumbnail(first).ravel().tolist()
    file = tmp_path / "deep" / "cached.npy"
    for values in (pixels, pixels + 1):
        found = codes.load_cached(file, lambda kept: kept, values)
        assert found.tolist() == pixels.tolist()


def test_the_verdict_says_plainly_who_loses() -> None:
    some = [
        figures("full vectors", 0, 1, 1),
        figures("autoencoder", 64, 0.3, 0.8),
        figures("ITQ", 64, 0.2, 0.9),
        figures("autoencoder", 128, 0.5, 0.99),
        figures("ITQ", 128, 0.4, 0.9),
    ]
    refined = "recall@6 after refinement"
    alone = "recall@6 by the codes alone"
    assert summarise_winners(some) == [
        f"64 bits, {refined}: best is ITQ (0.900); the autoencoder loses (0.800)",
        f"64 bits, {alone}: best is autoencoder (0.300)",
        f"128 bits, {refined}: best is autoencoder (0.990)",
        f"128 bits, {alone}: best is autoencoder (0.500)",
    ]


def test_all_kinds_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "0.npy", fc7_like(320, 3).astype(np.float16))
    words = ["--features", str(tmp_path), "--bits", "64", "--rows", "300", "--queries", "20"]
    file = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["benchmarks/codes.py", *words, "--json", str(file)])
    monkeypatch.setattr(codes, "CANDIDATES", 100)
    monkeypatch.setattr(deep_autoencoder, "FIRST_UNITS", 512)
    codes.main()
    found = {f["kind"]: f for f in json.loads(file.read_text())["kinds"]}
    bytes_of = {name: f["bytes"] for name, f in found.items()}
    # RaBitQ stores two float32 besides the 64 bits.
    eights = {"autoencoder": 8, "PCA + sign": 8, "ITQ": 8, "RaBitQ": 16, "OPQ + PQ": 8}
    # Of two lengths, the longer comes last. Without photographs there are no pixels.
    assert bytes_of == {"full vectors": 16384, codes.DEEP: 32, **eights}
    output = capsys.readouterr().out
    for name, f in found.items():
        assert 0.6 < f["refined"] <= 1, name  # by chance: a third
        assert f["precision"] is None
        assert name in output
