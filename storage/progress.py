"""Progress reports of long tasks, and the terminal's progress bars that show them."""

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
"""A function that starts a step, given its name and total; call its result with the count done."""


def ignore_progress(_name: str, _total: int) -> Callable[[int], None]:
    """Ignore the progress: a Report that shows nothing."""
    return lambda _done: None


def count_up(
    advance: Callable[[int], None], report_done: Callable[[int], None]
) -> Callable[[int], None]:
    """Return a function that passes a further count to `advance`, and the sum to `report_done`."""
    done = 0

    def add(count: int) -> None:
        nonlocal done
        done += count
        advance(count)
        report_done(done)

    return add


class SpeedColumn(ProgressColumn):
    """The current speed of a task; once it is finished, its average speed."""

    def __init__(self, unit: str = "") -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        """Return the speed per second; empty while it is unknown."""
        speed = task.finished_speed or task.speed
        text = f"{speed:,.1f} {self.unit}".rstrip() + "/s" if speed else ""
        return Text(text, style="progress.data.speed")


def progress_columns() -> tuple[ProgressColumn, ...]:
    """Return the columns of every bar: description, bar and count."""
    return TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()


def create_progress_bars(console: Console, speed: SpeedColumn | None = None) -> Progress:
    """Create bars with the time remaining and, if given, the speed; they vanish when stopped.

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
def show_progress_bar(
    console: Console, description: str, total: int | None, speed: SpeedColumn | None = None
) -> Iterator[Callable[[int], None]]:
    """Show one bar; yield a function that advances it by a count."""
    with create_progress_bars(console, speed) as progress:
        task = progress.add_task(description, total=total)
        yield lambda count: progress.advance(task, count)


@contextmanager
def show_step_bars(console: Console) -> Iterator[Report]:
    """Show a bar for each reported step; yield the Report that starts them.

    Finished bars stay. If the console is not a terminal, each is printed as one line.
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
