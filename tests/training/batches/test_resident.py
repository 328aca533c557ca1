"""Images in a GPU's memory become what the CPU makes of them; a CPU stands for the GPU here."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from training.batches.augment import Augmentation, Augmenter, draw_augmentations
from training.batches.batches import Batches, load_validation_crops, load_validation_squares
from training.batches.resident import GpuAugmenter, copy_images, keep_on_gpu
from training.dataset.prepare import PreparedDataset

CPU = torch.device("cpu")
PAPER = Augmentation()
ORIGINAL = Augmentation(sharing=3, inclusive=True, colour="original", input_scale=4.0)
CHANNELS = Augmentation(input_scale=60.0, channel_scales=(0.9, 1.0, 1.1))
AREAS = Augmentation(smallest_area=0.1, input_scale=4.0)


def both(
    data: PreparedDataset, augmentation: Augmentation, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Two epochs of augmented images, in grey levels: by the CPU's way and by the GPU's."""
    found: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    pixels = torch.from_numpy(data.train.read(np.arange(len(data.train))))
    on_gpu = GpuAugmenter(augmentation, data.mean, data.pca, pixels, dtype)
    on_cpu = Augmenter(augmentation, data.mean, data.pca)
    for epoch in (1, 2):
        order = np.random.default_rng(epoch).permutation(len(data.train))
        how = {"batch": 8, "side": data.side, "seed": 0, "epoch": epoch}
        draws = draw_augmentations(augmentation, order, **how)
        found[0].append(on_cpu(data.train.iter_images(order), draws, order))
        found[1].append(on_gpu(draws, order))
        assert found[1][-1].is_contiguous(memory_format=torch.channels_last)
    return tuple(torch.cat(parts) * augmentation.divisor for parts in found)  # type: ignore[return-value]


@pytest.mark.parametrize("augmentation", [PAPER, ORIGINAL, CHANNELS])
def test_crops_of_the_networks_size_are_the_same_pixels(
    prepared: PreparedDataset, augmentation: Augmentation
) -> None:
    on_cpu, on_gpu = both(prepared, augmentation, torch.float16)
    torch.testing.assert_close(on_gpu, on_cpu, rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_scaled_crops_differ_by_less_than_rounding_to_grey_levels_does(
    prepared: PreparedDataset, dtype: torch.dtype
) -> None:
    on_cpu, on_gpu = both(prepared, AREAS, dtype)
    differences = (on_gpu - on_cpu).abs()
    # The CPU rounds to whole grey levels after each direction, by half a level at most.
    assert differences.max() < 1.25
    assert differences.mean() < 0.3


def test_batches_and_validation_crops_do_not_depend_on_where_the_images_are(
    prepared: PreparedDataset,
) -> None:
    copied = copy_images(prepared, CPU)
    for a, b in zip(Batches(prepared, PAPER, 8), Batches(copied, PAPER, 8), strict=True):
        torch.testing.assert_close(a.x, b.x, rtol=0, atol=1e-3)
        assert torch.equal(a.rows, b.rows)
        assert torch.equal(a.classes, b.classes)
    for a, b in zip(
        (*load_validation_crops(prepared, AREAS, 5), *load_validation_squares(prepared, AREAS, 5)),
        (*load_validation_crops(copied, AREAS, 5), *load_validation_squares(copied, AREAS, 5)),
        strict=True,
    ):
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.classes, b.classes)


def test_an_epoch_is_resumed_in_its_middle(prepared: PreparedDataset) -> None:
    whole = Batches(copy_images(prepared, CPU), AREAS, 4, epoch=3)
    rest = list(replace(whole, first=4))
    assert all(torch.equal(a.x, b.x) for a, b in zip(list(whole)[4:], rest, strict=True))
    assert len(rest) == 2


def test_images_stay_where_they_are_without_a_gpu(prepared: PreparedDataset) -> None:
    assert keep_on_gpu(prepared, CPU) is prepared


@pytest.mark.gpu
def test_a_gpu_keeps_and_augments_images(prepared: PreparedDataset) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no GPU")
    kept = keep_on_gpu(prepared, torch.device("cuda"))
    batch = next(iter(Batches(kept, AREAS, 8)))
    truth = next(iter(Batches(prepared, AREAS, 8)))
    assert batch.x.device.type == "cuda"
    assert (batch.x.cpu() - truth.x).abs().max() * AREAS.divisor < 1.25
