"""A GPU makes of images what the CPU does, kept there or sent; a CPU stands for the GPU here."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from training.batches.augment import Augmentation, Augmenter, draw_augmentations
from training.batches.batches import Batches, load_validation_crops, load_validation_squares
from training.batches.resident import GpuAugmenter, copy_images, fits_into, keep_on_gpu
from training.batches.streaming import (
    PixelSender,
    StreamedSplit,
    place_for_one_pass,
    place_images,
    stream_images,
    stream_split,
)
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
    on_gpu = GpuAugmenter(augmentation, data.mean, data.pca, CPU, dtype)
    on_cpu = Augmenter(augmentation, data.mean, data.pca)
    for epoch in (1, 2):
        order = np.random.default_rng(epoch).permutation(len(data.train))
        how = {"batch": 8, "side": data.side, "seed": 0, "epoch": epoch}
        draws = draw_augmentations(augmentation, order, **how)
        found[0].append(on_cpu(data.train.iter_images(order), draws, order))
        found[1].append(on_gpu(pixels[order], draws, order))
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


def copied(data: PreparedDataset) -> PreparedDataset:
    return copy_images(data, CPU)


def streamed(data: PreparedDataset) -> PreparedDataset:
    return stream_images(data, CPU)


@pytest.mark.parametrize("place", [copied, streamed])
def test_batches_and_validation_crops_do_not_depend_on_where_the_images_are(
    prepared: PreparedDataset, place: Callable[[PreparedDataset], PreparedDataset]
) -> None:
    other = place(prepared)
    for a, b in zip(Batches(prepared, PAPER, 8), Batches(other, PAPER, 8), strict=True):
        torch.testing.assert_close(a.x, b.x, rtol=0, atol=1e-3)
        assert torch.equal(a.rows, b.rows)
        assert torch.equal(a.classes, b.classes)
    for a, b in zip(
        (*load_validation_crops(prepared, AREAS, 5), *load_validation_squares(prepared, AREAS, 5)),
        (*load_validation_crops(other, AREAS, 5), *load_validation_squares(other, AREAS, 5)),
        strict=True,
    ):
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.classes, b.classes)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("augmentation", [ORIGINAL, AREAS])
def test_streamed_batches_are_those_of_kept_images_to_the_bit(
    prepared: PreparedDataset,
    augmentation: Augmentation,
    threads: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("training.batches.batches.count_stream_threads", lambda: threads)
    batches = Batches(
        copied(prepared), augmentation, 6, 2, epoch=3, first=1, replica_slice=(1, 2), hold_out=0.2
    )
    kept, sent = list(batches), list(replace(batches, data=streamed(prepared)))
    assert len(kept) == len(sent) > 1
    for a, b in zip(kept, sent, strict=True):
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.rows, b.rows)
        assert torch.equal(a.classes, b.classes)
        assert b.x.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("threads", [1, None])
def test_squares_and_parts_of_them_are_sent_as_bytes(
    prepared: PreparedDataset, threads: int | None
) -> None:
    rows = np.array([3, 0, 3])
    sender = PixelSender(stream_split(prepared.train, CPU))
    squares = prepared.train.read(rows)
    whole = sender.send(rows, threads=threads).receive()
    part = sender.send(rows, (slice(2, 9), slice(5, 12)), threads=threads).receive()
    assert whole.dtype == part.dtype == torch.uint8
    assert np.array_equal(whole.numpy(), squares)
    assert np.array_equal(part.numpy(), squares[:, 2:9, 5:12])


def test_an_image_that_cannot_be_read_is_not_passed_over(prepared: PreparedDataset) -> None:
    train = stream_split(prepared.train, CPU)
    damaged = replace(train, kind="jpeg", sizes=np.full(len(train), 100))
    with pytest.raises(OSError, match="identify"):
        list(Batches(replace(prepared, train=damaged), PAPER, 8))


def test_an_epoch_is_resumed_in_its_middle(prepared: PreparedDataset) -> None:
    whole = Batches(copy_images(prepared, CPU), AREAS, 4, epoch=3)
    rest = list(replace(whole, first=4))
    assert all(torch.equal(a.x, b.x) for a, b in zip(list(whole)[4:], rest, strict=True))
    assert len(rest) == 2


def test_images_stay_where_they_are_without_a_gpu(prepared: PreparedDataset) -> None:
    assert keep_on_gpu(prepared, CPU) is prepared
    assert place_images(prepared, CPU) is prepared
    assert place_for_one_pass(prepared, CPU) is prepared


def test_images_are_kept_where_a_third_of_the_memory_has_room_for_them(
    prepared: PreparedDataset,
) -> None:
    size = (len(prepared.train) + len(prepared.val)) * prepared.side**2 * 3
    assert fits_into(3 * size, prepared)
    assert not fits_into(3 * size - 3, prepared)


def test_for_one_pass_no_more_images_are_kept_on_a_gpu(prepared: PreparedDataset) -> None:
    gpu, kept = torch.device("cuda"), copied(prepared)
    sent = place_for_one_pass(prepared, gpu)
    assert isinstance(sent.val, StreamedSplit)
    assert sent.val.device == gpu
    # What is there or on the way already stays so.
    assert place_for_one_pass(kept, gpu) is kept
    assert place_for_one_pass(sent, gpu) is sent


@pytest.mark.gpu
def test_a_gpu_augments_what_is_sent_to_it_as_what_it_keeps(prepared: PreparedDataset) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no GPU")
    gpu = torch.device("cuda")
    kept, sent = copy_images(prepared, gpu), stream_images(prepared, gpu)
    for epoch in (1, 2, 3):
        for a, b in zip(
            Batches(kept, AREAS, 4, epoch=epoch), Batches(sent, AREAS, 4, epoch=epoch), strict=True
        ):
            assert b.x.device.type == "cuda"
            assert torch.equal(a.x, b.x)
    for a, b in zip(
        load_validation_crops(kept, AREAS, 5), load_validation_crops(sent, AREAS, 5), strict=True
    ):
        assert torch.equal(a.x, b.x)


@pytest.mark.gpu
def test_a_gpu_keeps_and_augments_images(prepared: PreparedDataset) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no GPU")
    kept = keep_on_gpu(prepared, torch.device("cuda"))
    batch = next(iter(Batches(kept, AREAS, 8)))
    truth = next(iter(Batches(prepared, AREAS, 8)))
    assert batch.x.device.type == "cuda"
    assert (batch.x.cpu() - truth.x).abs().max() * AREAS.divisor < 1.25
