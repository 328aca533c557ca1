"""The map: near images lie near, copies on one place, and it stays as it was between versions."""

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.manifold import trustworthiness

from index.building import tsne
from index.building.tsne import MapLayout, draw_together, layout_images
from index.vectors import Vectors, write_shard

Floats = npt.NDArray[np.float32]
Make = Callable[[Floats], Vectors]
COUNT, CLUSTERS = 150, 5


@pytest.fixture
def stored(tmp_path: Path) -> Make:
    """Writes vectors and opens them."""
    return lambda values: Vectors(
        tmp_path, [write_shard(tmp_path / "v.npy", [values], "float32")], "float32"
    )


def check_scale(points: Floats) -> None:
    """From 0 to 1 by one scale: the wider direction whole, the other about the middle."""
    assert points.dtype == np.float32
    low, high = points.min(axis=0), points.max(axis=0)
    assert (high - low).max() == pytest.approx(1)
    np.testing.assert_allclose((low + high) / 2, 0.5, atol=1e-6)


def test_near_images_lie_near(vectors: Callable[..., Floats], stored: Make) -> None:
    features = vectors(COUNT, seed=1, clusters=CLUSTERS)
    rows = np.arange(COUNT)
    layout = layout_images(stored(features), rows)
    check_scale(layout.points)
    assert trustworthiness(features, layout.points, n_neighbors=10) > 0.9
    apart = np.linalg.norm(layout.points[:, None] - layout.points, axis=2)
    np.fill_diagonal(apart, np.inf)
    assert (apart.argmin(axis=1) % CLUSTERS == rows % CLUSTERS).all()


def test_images_beyond_the_limit_are_placed_among_the_others(
    vectors: Callable[..., Floats], stored: Make
) -> None:
    features = vectors(COUNT, seed=1, clusters=CLUSTERS)
    said: list[int] = []
    layout = layout_images(
        stored(features), np.arange(COUNT), report=lambda _, total: said.append, most=COUNT // 2
    )
    check_scale(layout.points)
    assert trustworthiness(features, layout.points, n_neighbors=10) > 0.85
    together, others = draw_together(COUNT, COUNT // 2)
    assert sorted([*together, *others]) == list(range(COUNT))
    apart = np.linalg.norm(layout.points[others][:, None] - layout.points[together], axis=2)
    assert (together[apart.argmin(axis=1)] % CLUSTERS == others % CLUSTERS).all()
    assert said == sorted(said)
    assert said[-1] == 850


def test_it_can_be_repeated(vectors: Callable[..., Floats], stored: Make) -> None:
    held, rows = stored(vectors(40, seed=1)), np.arange(40)
    again = [layout_images(held, rows) for _ in range(2)]
    np.testing.assert_array_equal(again[0].points, again[1].points)


def test_images_of_one_row_lie_on_one_place(vectors: Callable[..., Floats], stored: Make) -> None:
    rows = np.array([*range(30), 7, 7, 29])
    points = layout_images(stored(vectors(30, seed=1)), rows).points
    np.testing.assert_array_equal(points[30:], points[[7, 7, 29]])
    assert len(np.unique(points, axis=0)) == 30


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 9])
def test_few_images(vectors: Callable[..., Floats], stored: Make, count: int) -> None:
    layout = layout_images(stored(vectors(max(count, 1), seed=1)), np.arange(count))
    assert layout.points.shape == (count, 2)
    if count < 2:
        assert (layout.points == 0.5).all()
    else:
        check_scale(layout.points)
        assert len(np.unique(layout.points, axis=0)) == count


@pytest.mark.parametrize("count", [2, 3, 12, 40])
@pytest.mark.parametrize("value", [0, 3])
def test_equal_features_do_not_harm(stored: Make, count: int, value: float) -> None:
    points = layout_images(
        stored(np.full((count, 4096), value, np.float32)), np.arange(count)
    ).points
    assert np.isfinite(points).all()
    assert points.min() >= 0
    assert points.max() <= 1


def test_many_equal_ones_among_others(vectors: Callable[..., Floats], stored: Make) -> None:
    features = vectors(60, seed=1)
    features[20:] = features[3]
    assert np.isfinite(layout_images(stored(features), np.arange(60)).points).all()


def test_a_later_map_is_like_the_one_before(vectors: Callable[..., Floats], stored: Make) -> None:
    """Of 150 images ten vanish and ten are new: the rest stay about where they were."""
    held = stored(vectors(COUNT, seed=1, clusters=CLUSTERS))
    first = layout_images(held, np.arange(COUNT - 10))
    known = np.concatenate([first.points[10:], np.full((10, 2), np.nan, np.float32)])
    before = MapLayout(points=known, span=first.span, changed=10)
    later = layout_images(held, np.arange(10, COUNT), before)
    check_scale(later.points)
    moved = np.linalg.norm(later.points[:-10] - known[:-10], axis=1)
    anew = np.linalg.norm(
        layout_images(held, np.arange(10, COUNT)).points[:-10] - known[:-10], axis=1
    )
    assert np.median(moved) < 0.1
    assert np.median(moved) < np.median(anew) / 2
    clusters = np.arange(10, COUNT) % CLUSTERS
    middles = np.array([later.points[:-10][clusters[:-10] == c].mean(axis=0) for c in range(5)])
    nearest = np.linalg.norm(later.points[-10:, None] - middles, axis=2).argmin(axis=1)
    np.testing.assert_array_equal(nearest, clusters[-10:])


def test_a_map_of_the_same_images_stays(vectors: Callable[..., Floats], stored: Make) -> None:
    held, rows = stored(vectors(30, seed=1)), np.arange(30)
    first = layout_images(held, rows)
    assert layout_images(held, rows, first) == first


def test_while_few_have_come_or_gone_the_others_stay_and_new_ones_stand_near_theirs(
    vectors: Callable[..., Floats], stored: Make
) -> None:
    features = vectors(COUNT, seed=1, clusters=CLUSTERS)
    held, gone = stored(features), 1
    first = layout_images(held, np.arange(COUNT - 1))
    assert first.changed == 0
    known = np.concatenate([first.points[gone:], np.full((1, 2), np.nan, np.float32)])
    before = replace(first, points=known, changed=gone)
    later = layout_images(held, np.arange(gone, COUNT), before)
    np.testing.assert_array_equal(later.points[:-1], first.points[gone:])
    assert (later.span, later.changed) == (first.span, 2)
    clusters = np.arange(gone, COUNT) % CLUSTERS
    apart = np.linalg.norm(features[gone:-1] - features[-1], axis=1)
    nearest = later.points[:-1][np.argsort(apart)[:25]]
    np.testing.assert_allclose(later.points[-1], np.median(nearest, axis=0))
    middles = [later.points[:-1][clusters[:-1] == c].mean(axis=0) for c in range(CLUSTERS)]
    assert np.linalg.norm(later.points[-1] - middles, axis=1).argmin() == clusters[-1]
    # One more, and it is laid out again.
    more = layout_images(held, np.arange(gone, COUNT), replace(before, changed=gone + 1))
    assert more.changed == 0
    assert (more.points[:-1] != first.points[gone:]).any()


def test_a_new_image_with_known_features_stands_on_their_point(
    vectors: Callable[..., Floats], stored: Make
) -> None:
    held, rows = stored(vectors(60, seed=1)), np.array([*range(60), 17])
    first = layout_images(held, rows[:-1])
    known = np.concatenate([first.points, np.full((1, 2), np.nan, np.float32)])
    later = layout_images(held, rows, replace(first, points=known))
    np.testing.assert_array_equal(later.points[60], first.points[17])


def test_near_rows_are_those_of_brute_force(vectors: Callable[..., Floats], stored: Make) -> None:
    features = vectors(40, seed=2)
    rows, among = np.arange(5), np.arange(5, 40)
    apart = np.linalg.norm(features[rows][:, None] - features[among], axis=2)
    found = tsne.find_near_rows(stored(features), rows, among, 6)
    np.testing.assert_array_equal(np.sort(found), np.sort(apart.argsort(axis=1)[:, :6]))
    assert tsne.find_near_rows(stored(features), rows, among[:3], 6).shape == (5, 3)


def test_one_with_too_little_known_is_made_anew(
    vectors: Callable[..., Floats], stored: Make
) -> None:
    held, rows = stored(vectors(40, seed=1)), np.arange(40)
    points = np.full((40, 2), np.nan, np.float32)
    points[:10] = 0.3
    found = layout_images(held, rows, MapLayout(points=points, span=10.0))
    np.testing.assert_array_equal(found.points, layout_images(held, rows).points)


def test_it_tells_how_far_it_is_and_can_be_stopped(
    vectors: Callable[..., Floats], stored: Make
) -> None:
    held, rows, told = stored(vectors(30, seed=1)), np.arange(30), []

    def report(name: str, total: int) -> Callable[[int], None]:
        told.append((name, total))
        return told.append  # type: ignore[arg-type]

    layout_images(held, rows, report=report)
    (name, total), *steps = told
    assert name == "Laying out the map"
    assert steps == sorted(steps)
    assert steps[-1] == total

    def stop(name: str, total: int) -> Callable[[int], None]:
        return lambda done: signal.raise_signal(signal.SIGINT) if done >= 50 else None

    with pytest.raises(KeyboardInterrupt):
        layout_images(held, rows, report=stop)
