"""Pictures of kernels and maps: where each lies, its colours, how much ink a value gets."""

import itertools

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.stats import permutation_test

from model.visualization.feature_maps import MIN_INK, draw_maps
from model.visualization.kernels import (
    compare_selectivities,
    compute_colour_selectivity,
    compute_low_frequency_share,
    draw_kernels,
    find_noise_share,
    split_towers,
)

Weights = npt.NDArray[np.float32]


@pytest.fixture
def conv1() -> Weights:
    return np.random.default_rng(0).normal(0, 0.01, (96, 3, 11, 11)).astype(np.float32)


def tile(picture: npt.NDArray[np.uint8], row: int, column: int) -> npt.NDArray[np.uint8]:
    return picture[row * 48 : row * 48 + 44, column * 48 : column * 48 + 44]


def test_the_first_48_kernels_are_one_towers_and_the_last_48_the_others(conv1: Weights) -> None:
    first, second = split_towers(torch.from_numpy(conv1))
    assert first.shape == second.shape == (48, 3, 11, 11)
    assert torch.equal(torch.cat([first, second]), torch.from_numpy(conv1))
    assert np.array_equal(split_towers(conv1)[1], conv1[48:])


def test_48_kernels_are_eight_by_six_of_44_pixels_with_4_transparent_between(
    conv1: Weights,
) -> None:
    picture = draw_kernels(conv1[:48])
    assert picture.mode == "RGBA"
    assert picture.size == (8 * 44 + 7 * 4, 6 * 44 + 5 * 4)
    alpha = np.asarray(picture)[..., 3]
    across = np.arange(picture.width) % 48 < 44
    down = np.arange(picture.height) % 48 < 44
    assert np.array_equal(alpha, np.where(down[:, None] & across, 255, 0))


def test_every_weight_is_a_square_of_one_colour_by_the_rule_stated(conv1: Weights) -> None:
    picture = np.asarray(draw_kernels(conv1[:48]))[..., :3]
    for number in (0, 7, 8, 47):
        kernel = conv1[number].astype(np.float64)
        seen = tile(picture, *divmod(number, 8)).reshape(11, 4, 11, 4, 3)
        assert np.all(seen == seen[:, :1, :, :1])
        expected = 128 + 127 * kernel / np.abs(kernel).max()
        assert np.abs(seen[:, 0, :, 0] - expected.transpose(1, 2, 0)).max() <= 0.5


def test_each_kernel_is_stretched_by_itself_and_keeps_its_signs(conv1: Weights) -> None:
    kernels = conv1[:48].copy()
    kernels[1] = kernels[0] * 1000
    kernels[2] = -kernels[0]
    kernels[3] = 0
    picture = np.asarray(draw_kernels(kernels)).astype(int)[..., :3]
    first = tile(picture, 0, 0)
    assert np.abs(tile(picture, 0, 1) - first).max() <= 1
    assert np.abs(tile(picture, 0, 2) + first - 256).max() <= 1
    assert np.all(tile(picture, 0, 3) == 128)


def test_another_scale_and_another_gap(conv1: Weights) -> None:
    assert draw_kernels(conv1[:48], scale=1, gap=0).size == (88, 66)
    assert draw_kernels(conv1[:9], scale=2, gap=3).size == (8 * 22 + 7 * 3, 2 * 22 + 3)
    assert draw_kernels(conv1[:1]).size == (44, 44)


def test_a_tensor_that_is_being_trained_gives_the_same_picture(conv1: Weights) -> None:
    parameter = torch.nn.Parameter(torch.from_numpy(conv1[:48]))
    expected = np.asarray(draw_kernels(conv1[:48]))
    assert np.array_equal(np.asarray(draw_kernels(parameter)), expected)


def test_grey_kernels_select_no_colour_and_opposed_ones_nothing_else(conv1: Weights) -> None:
    kernels = conv1[:4].copy()
    kernels[0] = kernels[0, :1]  # the same for red, green and blue
    kernels[1] -= kernels[1].mean(axis=0)  # the three sum to zero everywhere
    kernels[2] = 0
    kernels[3, 1:] = 0  # red alone: a third of it is grey
    seen = compute_colour_selectivity(kernels)
    assert seen.dtype == np.float32
    assert np.allclose(seen, [0, 1, 0, 2 / 3], atol=1e-6)
    assert np.all((seen >= 0) & (seen <= 1))


def test_selectivity_is_the_energy_left_after_projecting_on_the_grey_axis(conv1: Weights) -> None:
    grey = np.ones(3) / np.sqrt(3)
    across = np.eye(3) - np.outer(grey, grey)
    for kernel, seen in zip(
        conv1, compute_colour_selectivity(torch.from_numpy(conv1)), strict=True
    ):
        colours = kernel.reshape(3, -1).astype(np.float64)
        left = np.linalg.norm(across @ colours) ** 2 / np.linalg.norm(colours) ** 2
        assert seen == pytest.approx(left, abs=1e-6)


def test_selectivity_does_not_depend_on_the_strength_of_a_kernel(conv1: Weights) -> None:
    weak = (conv1 * np.float32(1e-18)).astype(np.float32)
    assert np.allclose(
        compute_colour_selectivity(weak), compute_colour_selectivity(conv1), atol=1e-6
    )


def wave(across: float, down: float, side: int = 11) -> Weights:
    """A kernel of one frequency, in cycles per pixel, the same in all colours."""
    y, x = np.mgrid[:side, :side]
    return np.tile(np.cos(2 * np.pi * (across * x + down * y)), (3, 1, 1)).astype(np.float32)


def test_of_white_noise_21_of_121_frequencies_are_low() -> None:
    # i² + j² < (11/4)² = 7.56 for whole numbers: 1 zero, 4 each of 1, 2 and 4, and 8 of 5.
    assert find_noise_share(11, 11) == (1 + 4 + 4 + 4 + 8) / 121
    # The expected energy of white noise is that of an orthonormal basis, such as all single pixels.
    pixels = np.eye(363, dtype=np.float32).reshape(363, 3, 11, 11)
    assert compute_low_frequency_share(pixels) == pytest.approx(21 / 121, abs=1e-9)
    noise = np.random.default_rng(1).normal(0, 0.01, (96, 3, 11, 11)).astype(np.float32)
    assert compute_low_frequency_share(noise) == pytest.approx(21 / 121, abs=0.01)


@pytest.mark.parametrize(
    ("across", "down", "low"),
    [(0, 0, 1), (2, 0, 1), (2, 1, 1), (2, 2, 0), (3, 0, 0), (0, 5, 0), (-2, 1, 1), (4, 4, 0)],
)
def test_a_wave_is_low_if_it_has_less_than_a_cycle_in_four_pixels(
    across: int, down: int, low: float
) -> None:
    # 11 pixels hold whole cycles; the radius is what counts: 2√2 / 11 = 0.257.
    kernels = wave(across / 11, down / 11)[None]
    assert compute_low_frequency_share(kernels) == pytest.approx(low, abs=1e-6)


def test_the_share_is_that_of_all_kernels_energy_together() -> None:
    low, high = 3 * wave(1 / 11, 0), wave(4 / 11, 0)
    found = compute_low_frequency_share(np.stack([low, high]))
    assert found == pytest.approx(9 / 10, abs=1e-6)
    assert compute_low_frequency_share(np.zeros((2, 3, 11, 11), np.float32)) == 0
    # Each colour has a spectrum of its own: opposite signs do not cancel.
    opposed = wave(1 / 11, 0) * np.array([1, -1, 0], np.float32)[:, None, None]
    assert compute_low_frequency_share(opposed[None]) == pytest.approx(1, abs=1e-6)


def test_smooth_kernels_have_most_of_their_energy_at_low_frequencies(conv1: Weights) -> None:
    smooth = conv1.copy()
    for axis in (2, 3):
        smooth = sum(np.roll(smooth, n, axis) for n in range(4)) / 4
    assert compute_low_frequency_share(smooth) > 0.8


@pytest.mark.parametrize("shape", [(48, 11, 11), (48, 4, 11, 11), (0, 3, 11, 11)])
def test_what_is_no_stack_of_colour_kernels_is_refused(shape: tuple[int, ...]) -> None:
    for use in (
        split_towers,
        draw_kernels,
        compute_colour_selectivity,
        compute_low_frequency_share,
    ):
        with pytest.raises(ValueError, match=r"\[N, 3, height, width\]"):
            use(np.zeros(shape, dtype=np.float32))


def test_an_odd_number_of_kernels_has_no_two_towers(conv1: Weights) -> None:
    with pytest.raises(ValueError, match="95"):
        split_towers(conv1[:95])


@pytest.mark.parametrize("shift", [0.0, 0.8, -1.2])
def test_the_p_value_equals_an_exact_permutation_test(shift: float) -> None:
    drawn = np.random.default_rng(4)
    first, second = drawn.normal(0.5, 1, 6), drawn.normal(0.5 + shift, 1, 6)
    exact = permutation_test(
        (first, second), lambda a, b: abs(a.mean() - b.mean()), alternative="greater"
    )
    assert exact.null_distribution.size == 924  # every split there is
    found = compare_selectivities(first, second)
    error = (exact.pvalue * (1 - exact.pvalue) / found.splits) ** 0.5
    assert found.as_extreme / found.splits == pytest.approx(exact.pvalue, abs=5 * error)
    assert found.means == pytest.approx((first.mean(), second.mean()))
    assert found.difference == pytest.approx(second.mean() - first.mean())
    assert found.p == pytest.approx(exact.pvalue, abs=5 * error + 1 / found.splits)
    assert found.by_chance == (exact.pvalue > 0.05)


def test_a_full_separation_is_significant() -> None:
    found = compare_selectivities(np.linspace(0, 0.2, 48), np.linspace(0.6, 0.9, 48))
    assert (found.as_extreme, found.by_chance) == (0, False)


def test_weights_of_a_diverged_training_are_refused(conv1: Weights) -> None:
    conv1[5, 0, 0, 0] = np.nan
    for use in (draw_kernels, compute_colour_selectivity, compute_low_frequency_share):
        with pytest.raises(ValueError, match="NaN"):
            use(conv1)


def alpha(picture) -> np.ndarray:
    *colours, ink = np.moveaxis(np.asarray(picture.convert("RGBA")), -1, 0)
    assert not np.any(colours)
    return ink


@pytest.mark.parametrize(
    ("count", "columns", "side", "scale", "gap"), [(48, 8, 5, 2, 2), (5, 3, 1, 4, 0)]
)
def test_every_value_is_a_square_of_ink_by_the_root_of_its_share(
    count: int, columns: int, side: int, scale: int, gap: int
) -> None:
    maps = np.random.default_rng(0).random((count, side, side), dtype=np.float32)
    ink = alpha(draw_maps(maps, columns, scale=scale, largest=2.0, gap=gap))
    cell = side * scale + gap
    expected = np.zeros((-(-count // columns) * cell, columns * cell))
    for n, y, x in itertools.product(range(count), range(side), range(side)):
        top, left = n // columns * cell + y * scale, n % columns * cell + x * scale
        value = MIN_INK + (255 - MIN_INK) * (maps[n, y, x] / 2) ** 0.5
        expected[top : top + scale, left : left + scale] = value
    assert ink.shape == expected.shape
    assert np.abs(ink - expected).max() <= 0.51
    assert np.array_equal(ink == 0, expected == 0)


def test_nothing_has_faint_ink_and_the_largest_all_of_it() -> None:
    maps = np.array([[[0.0, 3.0], [-3.0, 5.0]]], np.float32)
    assert alpha(draw_maps(maps, 1, scale=1, largest=3.0, gap=0)).tolist() == [
        [MIN_INK, 255],
        [255, 255],
    ]
    assert np.unique(alpha(draw_maps(np.zeros_like(maps), 1, scale=1, largest=0.0, gap=0))) == [
        MIN_INK
    ]
