"""A listing: back as it was written, compact, and a damaged one is never believed."""

from pathlib import Path

import numpy as np
import pytest

from index.building.file_list import FileEntry, escape_file_name, read_file_list, write_file_list
from index.manifest import StoreError


def entries(count: int) -> list[FileEntry]:
    """Entries with paths of every length, some not ASCII, and times of today in nanoseconds."""
    random = np.random.default_rng(0)
    return [
        FileEntry(
            path=f"train/{'ä猫 '[n % 3] * (n % 40)}/{n}.jpg",
            size=n * 10**8,
            mtime_ns=1_700_000_000_123_456_789 + n,
            ctime_ns=1_800_000_000_987_654_321 - n,
            sha256=random.bytes(32).hex(),
            format=("JPEG", "PNG", "WebP")[n % 3],
            width=n + 1,
            height=70_000 - n,
            pixels=random.bytes(16).hex(),
        )
        for n in range(count)
    ]


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_what_was_written_comes_back(tmp_path: Path, count: int) -> None:
    written = entries(count)
    rows = np.arange(count)[::-1] // 2
    write_file_list(tmp_path / "files.npz", written, rows)
    found, places = read_file_list(tmp_path / "files.npz")
    assert found == written
    assert places.dtype == np.int64
    assert places.tolist() == rows.tolist()
    text = sum(len(entry.path.encode()) for entry in written)
    assert (tmp_path / "files.npz").stat().st_size <= text + 110 * count + 4000


def test_every_entry_needs_a_row(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 entries"):
        write_file_list(tmp_path / "files.npz", entries(3), np.arange(2))


def test_a_damaged_listing_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "files.npz"
    with pytest.raises(StoreError, match="cannot be read"):
        read_file_list(file)
    write_file_list(file, entries(100), np.arange(100))
    whole = file.read_bytes()
    for end in (0, 10, 300, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:end])
        with pytest.raises(StoreError, match=r"files\.npz is damaged"):
            read_file_list(file)
    for at in range(100, len(whole), len(whole) // 40):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        try:
            found, _ = read_file_list(file)
        except StoreError:
            continue
        # A byte that no check looks at, between the columns.
        assert found == entries(100)


def test_columns_of_different_lengths_are_an_error(tmp_path: Path) -> None:
    file = tmp_path / "files.npz"
    write_file_list(file, entries(5), np.arange(5))
    with np.load(file) as found:
        columns = dict(found)
    columns["rows"] = columns["rows"][:4]
    np.savez(file, **columns)
    with pytest.raises(StoreError, match="damaged"):
        read_file_list(file)


def test_names_that_are_not_utf8_are_shown_written_out() -> None:
    assert escape_file_name("ä.jpg") == "ä.jpg"
    assert escape_file_name("a\udcff.jpg") == "a\\udcff.jpg"
