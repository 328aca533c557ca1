"""The pages of training images, in a real browser."""

import re
from collections.abc import Callable
from typing import Any

import pytest

Open = Callable[..., Any]
pytestmark = pytest.mark.timeout(120)


def test_one_goes_on_from_neighbour_to_neighbour(tab: Open) -> None:
    page = tab()
    page.goto("/explore")
    page.click(".classes a >> nth=2")
    page.click(".tile >> nth=0")
    for _ in range(3):
        page.wait_for_url(re.compile(r"/images/\d+$"))
        assert page.locator(".neighbours a").count() == 6
        page.click(".neighbours a >> nth=0")
