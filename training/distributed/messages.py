"""How a process of a run speaks: itself, or through the process that started it."""

import sys
from dataclasses import dataclass, field
from multiprocessing.queues import SimpleQueue
from typing import Literal, Protocol

Message = tuple[Literal["said", "note", "lost"], str]
Messages = SimpleQueue[Message]


class Channel(Protocol):
    """How a process speaks.

    say:  to people, once.
    note: what is to be said when this process, or another, cannot go on.
    lost: another process seems to be gone, and this one ends with it; what torch said.
    """

    def say(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...

    def lost(self, text: str) -> None: ...


@dataclass(frozen=True)
class StderrChannel:
    """The voice of a process that this project did not start: it speaks itself."""

    notes: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Print a line."""
        print(text, file=sys.stderr)  # noqa: T201

    def note(self, text: str) -> None:
        """Keep it, for when another process is gone."""
        self.notes.append(text)

    def lost(self, text: str) -> None:
        """Say it, in the process that was told how to go on."""
        for note in self.notes[-1:]:
            self.say(
                f"training/run.py: another process is gone ({text}), and the run ends with it. "
                f"{note}"
            )


@dataclass(frozen=True)
class QueueChannel:
    """The voice of one process of several: the process that started it speaks."""

    messages: Messages

    def say(self, text: str) -> None:
        """Hand on a line."""
        self.messages.put(("said", text))

    def note(self, text: str) -> None:
        """Hand on what is to be said when this process cannot."""
        self.messages.put(("note", text))

    def lost(self, text: str) -> None:
        """Hand it on, in case the process that started this one sees nobody gone."""
        self.messages.put(("lost", text))
