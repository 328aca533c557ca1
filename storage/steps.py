"""What a run records every few seconds: the lines of its steps.jsonl.

Training appends them; the application's page of a run shows the last one.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from storage.tolerant_json import dict_or_empty, finite_number, natural_number, read_bounded

MAX_TAIL_BYTES = 64 * 1024
"""The end of steps.jsonl that is read: a line has about one kilobyte."""
MAX_STEPS = 10**9


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """The state of a run after a step, and what it did since the line before."""

    time: float
    """Seconds since 1970."""
    epoch: int
    """The current epoch, counted from 1."""
    step: int
    """Steps of the epoch that are done."""
    steps: int
    """Steps of the whole epoch."""
    images: int
    """Images that the steps done have trained on."""
    loss: float | None
    """Mean cross-entropy of the steps since the line before."""
    images_per_second: float | None
    """Training speed since the line before, without checkpoints."""
    data_wait: float | None
    """Seconds that the training loop waited for batches since the line before, and nothing else."""
    memory: float | None
    """Peak memory so far in GiB, as in epochs.jsonl."""
    remaining: float | None
    """Estimated seconds until the last planned epoch; None if unknown."""
    rates: Mapping[str, float]
    """The learning rate of each group of parameters."""
    gradient_norms: Mapping[str, float]
    """The Euclidean norm of the loss's gradient by layer, weights and biases together."""
    update_norms: Mapping[str, float]
    """The norm of what the step added to the layer's weights and biases."""
    loss_scale: float | None = None
    """What the loss is multiplied by before float16 gradients are computed; None in others."""

    @property
    def total_step(self) -> int:
        """The number of the step in the run, if all its epochs have as many."""
        return (self.epoch - 1) * self.steps + self.step


def append_step(file: Path, record: StepRecord) -> None:
    """Append a line. Raises OSError."""
    with file.open("a") as out:
        out.write(json.dumps(asdict(record)) + "\n")


def read_last_step(file: Path) -> StepRecord | None:
    """Read the last whole line; None if there is none that is valid."""
    data = read_bounded(file, MAX_TAIL_BYTES, tail_only=True) or b""
    for line in reversed(data.split(b"\n")):
        if record := parse_step(line):
            return record
    return None


def parse_step(line: bytes) -> StepRecord | None:
    """Parse a line; None if it is not a record. What is not a number becomes None."""
    try:
        values = dict_or_empty(json.loads(line.decode("utf-8", "replace")))
    except (ValueError, RecursionError):
        return None
    time = finite_number(values.get("time"))
    whole = {
        name: natural_number(values.get(name), maximum=MAX_STEPS)
        for name in ("epoch", "step", "steps", "images")
    }
    if time is None or not all(whole[name] for name in ("epoch", "step", "steps")):
        return None
    return StepRecord(
        time=time,
        epoch=whole["epoch"] or 0,
        step=min(whole["step"] or 0, whole["steps"] or 0),
        steps=whole["steps"] or 0,
        images=whole["images"] or 0,
        loss=finite_number(values.get("loss")),
        images_per_second=finite_number(values.get("images_per_second")),
        data_wait=finite_number(values.get("data_wait")),
        memory=finite_number(values.get("memory")),
        remaining=finite_number(values.get("remaining")),
        rates=parse_numbers(values.get("rates")),
        gradient_norms=parse_numbers(values.get("gradient_norms")),
        update_norms=parse_numbers(values.get("update_norms")),
        loss_scale=finite_number(values.get("loss_scale")),
    )


def parse_numbers(values: object) -> dict[str, float]:
    """Return the finite numbers of a JSON object by name."""
    numbers = {str(name): finite_number(value) for name, value in dict_or_empty(values).items()}
    return {name: number for name, number in numbers.items() if number is not None}


def remove_later_steps(file: Path, epochs: int, step: int) -> None:
    """Cut off the lines after a position, as when a run is resumed from a checkpoint.

    epochs: whole epochs before it. step: steps of the next one. Raises OSError.
    """
    if not file.exists():
        return
    keep = 0
    with file.open("r+b") as opened:
        for line in opened:
            record = parse_step(line)
            if record is None or (record.epoch, record.step) > (epochs + 1, step):
                break
            keep += len(line)
        opened.truncate(keep)
