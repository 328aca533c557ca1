"""How long work tells how far it is."""

from collections.abc import Callable

Report = Callable[[str, int], Callable[[int], None]]
"""Begins a step, by its name and how much it has to do; what it gives is told how much is done."""


def silent(_name: str, _total: int) -> Callable[[int], None]:
    """Report nothing."""
    return lambda _done: None
