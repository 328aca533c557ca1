"""Batches: every image once, the right pixels, made elsewhere, and errors that arrive."""

import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from training.augment import draw
from training.config import PAPER
from training.data import Batch, Batches, ahead, validation
from training.prepare import Prepared

RECIPE = replace(PAPER, batch=8, input_scale=60.0)


def test_an_epoch_shows_every_image_once_cut_mirrored_and_coloured(prepared: Prepared) -> None:
    batches = list(Batches(prepared, RECIPE, epoch=3))
    assert [tuple(x.shape) for x, _ in batches] == [(8, 3, 224, 224)] * 3
    draws = draw(24, RECIPE.colour_noise, RECIPE.seed, 3)
    order = np.random.default_rng([RECIPE.seed, 3, 0]).permutation(24)
    assert sorted(order) == list(range(24))
    x = torch.cat([x for x, _ in batches]).numpy()
    classes = torch.cat([classes for _, classes in batches]).numpy()
    np.testing.assert_array_equal(classes, prepared.train.classes[order])
    for place, row in enumerate(order[:5]):
        top, left = draws.offsets[row]
        pixels = prepared.train.images[row].transpose(2, 0, 1) - prepared.mean.numpy()
        crop = pixels[:, top : top + 224, left : left + 224]
        if draws.mirrors[row]:
            crop = crop[:, :, ::-1]
        weighted = draws.alphas[row] * prepared.pca.eigenvalues.numpy()
        shift = 255 * prepared.pca.eigenvectors.numpy() @ weighted
        np.testing.assert_allclose(x[place], (crop + shift[:, None, None]) / 60, atol=1e-4)


def test_what_an_image_gets_does_not_depend_on_the_batch_size(prepared: Prepared) -> None:
    whole, parts = (
        torch.cat([x for x, _ in Batches(prepared, replace(RECIPE, batch=size), 1)])
        for size in (24, 4)
    )
    assert torch.equal(whole, parts)


def test_validation_is_the_centre_crop_in_order(prepared: Prepared) -> None:
    x, classes = (torch.cat(part) for part in zip(*validation(prepared, RECIPE, 5), strict=True))
    np.testing.assert_array_equal(classes.numpy(), prepared.val.classes)
    pixels = prepared.val.images[:, 16:240, 16:240].transpose(0, 3, 1, 2)
    sought = (pixels - prepared.mean.numpy()[:, 16:240, 16:240]) / 60
    np.testing.assert_allclose(x.numpy(), sought, atol=1e-5)


def test_fewer_images_than_a_batch_are_one_batch(prepared: Prepared) -> None:
    batches = Batches(prepared, replace(RECIPE, batch=128), 1)
    assert len(batches) == 1
    assert [len(x) for x, _ in batches] == [24]


def test_batches_are_made_on_another_thread_at_most_a_few_ahead() -> None:
    made: list[str] = []

    def make() -> Iterator[Batch]:
        for _ in range(100):
            made.append(threading.current_thread().name)
            yield torch.zeros(1), torch.zeros(1)

    batches = ahead(make())
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert set(made) == {"batches"}
    assert len(made) <= 5
    assert "batches" not in {thread.name for thread in threading.enumerate()}


def test_an_error_while_making_a_batch_arrives() -> None:
    def make() -> Iterator[Batch]:
        yield torch.zeros(1), torch.zeros(1)
        raise OSError("the disk went away")

    with pytest.raises(OSError, match="went away"):
        list(ahead(make()))
