"""Damage to files that are in use is noticed, whatever is changed in them."""

import os
from pathlib import Path

import numpy as np
import pytest

from index.damage import SAMPLED_SHARE, BlockChecks, DamageError, OpenedFile, compute_checksums


def test_any_changed_byte_changes_the_checksum_of_its_block_alone() -> None:
    rng = np.random.default_rng(1)
    blocks = rng.integers(0, 256, (5, 1021), np.uint8)
    before = compute_checksums(blocks)
    assert len(set(before.tolist())) == 5
    for place in range(0, 1021, 60):
        changed = blocks.copy()
        changed[2, place] ^= 1 << (place % 8)
        assert (compute_checksums(changed) != before).tolist() == [False, False, True, False, False]


def test_words_that_change_places_are_noticed() -> None:
    block = np.arange(64, dtype=np.uint64)[None]
    swapped = block.copy()
    swapped[0, [3, 40]] = swapped[0, [40, 3]]
    assert compute_checksums(swapped) != compute_checksums(block)
    assert compute_checksums(np.zeros((1, 8))) == compute_checksums(np.zeros((1, 64)))


def test_a_block_is_checked_first_and_sampled_later() -> None:
    blocks = np.random.default_rng(1).integers(0, 256, (64, 32), np.uint8)
    checks, numbers = BlockChecks(compute_checksums(blocks)), np.arange(64)
    wrong = blocks.copy()
    wrong[5] ^= 1
    assert not checks.are_whole(numbers, wrong)
    assert checks.are_whole(numbers, blocks)
    # Damage that comes later is found by the sample, within a number of reads.
    noticed = [not checks.are_whole(numbers, wrong) for _ in range(60 * SAMPLED_SHARE)]
    assert 0 < sum(noticed) < len(noticed)
    assert checks.are_whole(numbers, blocks)
    checks.forget(4, 6)
    assert not checks.are_whole(numbers, wrong)
    assert checks.are_whole(numbers[:5], wrong[:5])


def test_an_open_file_notices_what_is_written_to_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(100))
    file = OpenedFile(path)
    assert not file.has_changed()
    assert not file.notice_change()
    os.truncate(path, 90)
    assert file.has_changed()
    with pytest.raises(DamageError, match=str(path)):
        file.check_size()
    with pytest.raises(DamageError, match="shorter"):
        file.read(np.empty(20, np.uint8), 80)
    assert file.notice_change()
    assert not file.notice_change()
    assert file.has_changed()


def test_a_deleted_or_replaced_file_is_still_read(tmp_path: Path) -> None:
    path, found = tmp_path / "file", np.empty(4, np.uint8)
    path.write_bytes(b"good")
    file = OpenedFile(path)
    path.unlink()
    path.write_bytes(b"evil")
    file.read(found, 0)
    assert found.tobytes() == b"good"
    assert not file.has_changed()
