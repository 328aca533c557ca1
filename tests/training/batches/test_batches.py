"""Batches: every image once, the right pixels, made elsewhere, and errors that arrive."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.image.preprocess import subtract_mean
from model.image.ten_crop import centre_crop
from training.batches.augment import Augmentation, draw_augmentations
from training.batches.batches import Batch, Batches, load_validation_crops, load_validation_squares
from training.dataset.prepare import PreparedDataset

SCALED = Augmentation(input_scale=60.0)
SHARED = Augmentation(sharing=3, inclusive=True, colour="original")


@pytest.fixture(params=["prepared", "prepared_as_jpeg"])
def data(request: pytest.FixtureRequest) -> PreparedDataset:
    found: PreparedDataset = request.getfixturevalue(request.param)
    return found


def same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(one, other) for one, other in zip(a, b, strict=True))


def test_an_epoch_shows_every_image_once_cut_mirrored_and_coloured(data: PreparedDataset) -> None:
    batches = list(Batches(data, SCALED, batch=8, epoch=3))
    assert [tuple(batch.x.shape) for batch in batches] == [(8, 3, 224, 224)] * 3
    assert all(b.x.is_contiguous(memory_format=torch.channels_last) for b in batches)
    order = np.random.default_rng([0, 3, 0]).permutation(24)
    assert sorted(order) == list(range(24))
    draws = draw_augmentations(SCALED, order, batch=8, side=256, seed=0, epoch=3)
    x, classes, rows = (torch.cat(parts).numpy() for parts in zip(*batches, strict=True))
    np.testing.assert_array_equal(rows, order)
    np.testing.assert_array_equal(classes, data.train.classes[order])
    pixels = data.train.read(order)
    for place, row in enumerate(order[:5]):
        top, left = draws.offsets[row]
        centred = pixels[place].transpose(2, 0, 1) - data.mean.numpy()
        crop = centred[:, top : top + 224, left : left + 224]
        if draws.mirrors[row]:
            crop = crop[:, :, ::-1]
        weighted = draws.alphas[row] * data.pca.eigenvalues.numpy()
        shift = 255 * data.pca.eigenvectors.numpy() @ weighted
        np.testing.assert_allclose(x[place], (crop + shift[:, None, None]) / 60, atol=1e-5)


def test_what_an_image_gets_does_not_depend_on_the_batch_size(prepared: PreparedDataset) -> None:
    whole, parts = (
        torch.cat([batch.x for batch in Batches(prepared, SCALED, batch=size)]) for size in (24, 4)
    )
    assert torch.equal(whole, parts)


@pytest.mark.parametrize("augmentation", [SCALED, SHARED])
def test_replicas_get_the_slices_of_each_batch(
    prepared: PreparedDataset, augmentation: Augmentation
) -> None:
    whole = list(Batches(prepared, augmentation, batch=8, seed=5, epoch=2))
    for parts in (2, 3, 8):
        own = [
            list(
                Batches(prepared, augmentation, batch=8, seed=5, epoch=2, replica_slice=(i, parts))
            )
            for i in range(parts)
        ]
        assert {len(batches) for batches in own} == {3}
        for step, batch in enumerate(whole):
            slices = [batches[step] for batches in own]
            sizes = [len(part.rows) for part in slices]
            assert max(sizes) - min(sizes) <= 1
            assert same(batch, Batch(*map(torch.cat, zip(*slices, strict=True))))


@pytest.mark.parametrize("augmentation", [SCALED, SHARED])
def test_an_epoch_taken_up_in_its_middle_goes_on_as_it_would_have(
    prepared: PreparedDataset, augmentation: Augmentation
) -> None:
    batches = Batches(prepared, augmentation, batch=4, seed=1, epoch=7)
    late = replace(batches, first=4)
    assert len(late) == len(batches) == 6
    rest = list(late)
    assert len(rest) == 2
    assert all(same(a, b) for a, b in zip(list(batches)[4:], rest, strict=True))
    assert list(replace(batches, first=6)) == []


@pytest.mark.parametrize("augmentation", [SCALED, SHARED])
@pytest.mark.parametrize("kind", ["prepared", "prepared_as_jpeg"])
def test_any_number_of_threads_prepares_the_same_bits_in_the_same_order(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    augmentation: Augmentation,
    kind: str,
) -> None:
    batches = Batches(request.getfixturevalue(kind), augmentation, batch=5, seed=2, epoch=3)
    alone = [batches.plan_batches()(step) for step in range(len(batches))]
    for threads in (1, 4):
        monkeypatch.setattr(
            "training.batches.batches.count_threads", lambda threads=threads: threads
        )
        found = list(batches)
        assert len(found) == 4
        assert all(same(a, b) for a, b in zip(alone, found, strict=True))
    for number in (1, 3, 8):
        monkeypatch.setattr("training.batches.batches.cores", lambda number=number: number)
        found = list(replace(batches, together=True))
        assert len(found) == 4
        assert all(same(a, b) for a, b in zip(alone, found, strict=True))


def test_epochs_and_seeds_are_shuffled_differently(prepared: PreparedDataset) -> None:
    orders = [
        torch.cat([batch.rows for batch in Batches(prepared, SCALED, seed=seed, epoch=epoch)])
        for seed, epoch in ((0, 1), (0, 2), (1, 1))
    ]
    assert not torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


def test_in_a_fixed_order_epochs_have_the_same_batches_cut_anew(prepared: PreparedDataset) -> None:
    first, later = (
        list(Batches(prepared, SHARED, batch=8, seed=3, epoch=epoch, fixed_order=True))
        for epoch in (1, 5)
    )
    shuffled = list(Batches(prepared, SHARED, batch=8, seed=3, epoch=1))
    for a, b, c in zip(first, later, shuffled, strict=True):
        assert torch.equal(a.rows, b.rows)
        assert torch.equal(a.classes, b.classes)
        assert not torch.equal(a.x, b.x)
        assert same(a, c)


def test_validation_is_the_centre_crop_in_order(data: PreparedDataset) -> None:
    batches = list(load_validation_crops(data, SCALED, 5))
    x, classes, rows = map(torch.cat, zip(*batches, strict=True))
    assert [len(batch.x) for batch in batches] == [5, 5, 2]
    assert batches[0].x.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(rows.numpy(), np.arange(12))
    np.testing.assert_array_equal(classes.numpy(), data.val.classes)
    pixels = data.val.read(np.arange(12))
    cut = pixels[:, 16:240, 16:240].transpose(0, 3, 1, 2)
    np.testing.assert_allclose(x, (cut - data.mean.numpy()[:, 16:240, 16:240]) / 60, atol=1e-5)
    # Bit for bit what the application gives the network for the same pixels.
    everywhere = centre_crop(subtract_mean(torch.from_numpy(pixels), data.mean)) / 60
    assert torch.equal(x, everywhere)


def test_validation_has_no_colour_and_no_1_1(prepared: PreparedDataset) -> None:
    ours, papers = (
        torch.cat([batch.x for batch in load_validation_crops(prepared, how)])
        for how in (SHARED, Augmentation())
    )
    assert torch.equal(ours, papers)


def test_validation_squares_are_whole_and_may_be_parted(prepared: PreparedDataset) -> None:
    whole = Batch(*map(torch.cat, zip(*load_validation_squares(prepared, SCALED, 5), strict=True)))
    assert whole.x.shape == (12, 3, 256, 256)
    expected = (prepared.val.read(np.arange(12)).transpose(0, 3, 1, 2) - prepared.mean.numpy()) / 60
    np.testing.assert_allclose(whole.x.numpy(), expected, atol=1e-5)
    parts = [b for i in range(5) for b in load_validation_squares(prepared, SCALED, 2, (i, 5))]
    assert same(whole, Batch(*map(torch.cat, zip(*parts, strict=True))))


def test_fewer_images_than_a_batch_are_one_batch(prepared: PreparedDataset) -> None:
    batches = Batches(prepared, SCALED)
    assert len(batches) == 1
    assert [len(batch.x) for batch in batches] == [24]


def test_images_held_out_are_a_fifth_and_stay_the_same_ones(prepared: PreparedDataset) -> None:
    def seen(epoch: int, **values: float) -> list[int]:
        batches = Batches(prepared, SCALED, batch=4, epoch=epoch, **values)  # type: ignore[arg-type]
        rows = torch.cat([batch.rows for batch in batches]).tolist()
        assert len(rows) == 4 * len(batches)
        return rows

    # A fifth of 24 images, in whole ones.
    first = [seen(epoch, hold_out=0.2) for epoch in range(1, 12)]
    together = {row for rows in first for row in rows}
    assert len(together) == 24 - 5
    assert all(len(rows) == len(set(rows)) == 16 for rows in first)
    assert {row for epoch in range(1, 4) for row in seen(epoch)} == set(range(24))
    others = {row for epoch in range(1, 12) for row in seen(epoch, hold_out=0.2, seed=1)}
    assert len(others) == 19
    assert others != together


def test_images_that_are_not_held_out_look_as_they_do_without(prepared: PreparedDataset) -> None:
    def pixels(hold_out: float) -> dict[int, torch.Tensor]:
        batches = Batches(prepared, SCALED, batch=4, hold_out=hold_out)
        return {
            int(row): x for batch in batches for row, x in zip(batch.rows, batch.x, strict=True)
        }

    whole, part = pixels(0.0), pixels(0.2)
    assert all(torch.equal(x, whole[row]) for row, x in part.items())
