"""How long work reports its progress, and the bars on the terminal that show it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Report = Callable[[str, int], Callable[[int], None]]
"""Begin a step, given its name and its total; call the result with how much is done so far."""


def ignore_progress(_name: str, _total: int) -> Callable[[int], None]:
    """Report nothing."""
    return lambda _done: None


class SpeedColumn(ProgressColumn):
    """The present speed of a task, at its end the average one."""

    def __init__(self, unit: str = "") -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        """The number per second; nothing before it is known."""
        speed = task.finished_speed or task.speed
        text = f"{speed:,.1f} {self.unit}".rstrip() + "/s" if speed else ""
        return Text(text, style="progress.data.speed")


def progress_columns() -> tuple[ProgressColumn, ...]:
    """A bar with its description and its count."""
    return TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()


def progress_bars(console: Console, speed: SpeedColumn | None = None) -> Progress:
    """Bars with the time remaining and, if given, the speed; they vanish when they are stopped.

    Nothing is shown unless the console is a terminal.
    """
    return Progress(
        *progress_columns(),
        *((speed,) if speed else ()),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


@contextmanager
def progress_bar(
    console: Console, description: str, total: int | None, speed: SpeedColumn | None = None
) -> Iterator[Callable[[int], None]]:
    """Show one bar; give the body a function that advances it."""
    with progress_bars(console, speed) as progress:
        task = progress.add_task(description, total=total)
        yield lambda count: progress.advance(task, count)


@contextmanager
def step_bars(console: Console) -> Iterator[Report]:
    """Show a bar for each step reported, from the first step on.

    They stay when they are finished; where the console is not a terminal they are a line each.
    """
    bars = Progress(*progress_columns(), SpeedColumn(), TimeRemainingColumn(), console=console)

    def report(name: str, total: int) -> Callable[[int], None]:
        bars.start()
        task = bars.add_task(name, total=total)
        return lambda done: bars.update(task, completed=done)

    try:
        yield report
    finally:
        if bars.tasks:
            bars.stop()
