"""How numbers are written."""

import pytest

from app.views.format import format_size


@pytest.mark.parametrize(
    ("count", "words"),
    [(812, "812 bytes"), (999_499, "999 kB"), (999_500, "1.0 MB"), (12_340_000, "12.3 MB")],
)
def test_sizes_have_a_unit(count: int, words: str) -> None:
    assert format_size(count).replace("\u2009", " ") == words
