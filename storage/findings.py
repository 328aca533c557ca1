"""The findings of the experiments: what `experiments/run.py report` writes and the page shows.

`asdict` of `Findings` is the JSON file, which is committed beside the runs that it was computed
from (experiments/claims/result.py).
"""

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from storage.evaluation_files import decode_dataclass, stamp_file
from storage.files import write_atomically
from storage.tolerant_json import parse_json_object, read_bounded

RESULTS = Path(__file__).resolve().parents[1] / "experiments" / "results"
"""The folder of the experiments' results in the project."""
FINDINGS = RESULTS / "findings.json"
FINDINGS_FORMAT = 1
"""Version of the JSON format."""
MAX_BYTES = 8 * 1024 * 1024
Verdict = Literal["held", "not held", "not resolved", "not run"]
Unit = Literal["share", "times", "number"]
Comparison = Literal["difference", "ratio", "count"]


@dataclass(frozen=True, kw_only=True)
class ArmFigures:
    """What was measured of an arm. low, high: the 95 % interval of the mean over its runs."""

    arm: str
    runs: int
    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Two arms compared: by the claim, the first has more of what is measured.

    value: the difference, or the ratio, with its 95 % interval; None if there is none. compared:
    how many pairs, images or runs the interval is over. at_least: whether the value is a lower
    bound, since runs ended before they reached what is compared.
    """

    more: str
    less: str
    value: float | None
    low: float | None
    high: float | None
    compared: int
    verdict: Verdict
    reason: str
    at_least: bool = False


@dataclass(frozen=True, kw_only=True)
class DataFindings:
    """A claim on one kind of data. setting: images, epochs, precision, in words."""

    kind: str
    data: str
    setting: str
    arms: tuple[ArmFigures, ...]
    effects: tuple[Effect, ...]
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class ClaimFindings:
    """A claim.

    measure, unit: what is compared. comparison: "count": of the runs, those that do as it says.
    paper_value: the paper's effect, if comparable.
    """

    statement: str
    paper: str
    paper_value: float | None
    measure: str
    unit: Unit
    comparison: Comparison
    verdict: Verdict
    data: tuple[DataFindings, ...]

    @property
    def outcome(self) -> str:
        """The verdict in words; of a ratio also whether it falls short of the paper's."""
        effects = [effect for one in self.data for effect in one.effects]
        falls_short = self.comparison == "ratio" and all(
            not effect.at_least
            and effect.high is not None
            and effect.high < (self.paper_value or 0)
            for effect in effects
        )
        return (
            f"{self.verdict}, but by less"
            if self.verdict == "held" and falls_short
            else self.verdict
        )


@dataclass(frozen=True, kw_only=True)
class RunCurve:
    """The errors of a run after each of its epochs, 0–1, from the first; None: not measured."""

    kind: str
    arm: str
    seed: int
    training: tuple[float | None, ...]
    held_out: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class ArmErrors:
    """The mean test errors of an arm's runs, 0–1, crops averaged."""

    kind: str
    data: str
    arm: str
    runs: int
    top1: float
    top5: float


@dataclass(frozen=True, kw_only=True)
class ExperimentFindings:
    """What came of an experiment.

    choice: what was chosen on training images held out, in words. runs: how many count.
    cpu_seconds: of all its own runs.
    """

    name: str
    title: str
    section: str
    note: str
    choice: str
    claims: tuple[ClaimFindings, ...]
    errors: tuple[ArmErrors, ...]
    curves: tuple[RunCurve, ...]
    runs: int
    cpu_seconds: float

    @property
    def command(self) -> str:
        """What runs it."""
        return f"python experiments/run.py {self.name}"


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that the experiments found. machines: the processors that ran them."""

    format: int
    experiments: tuple[ExperimentFindings, ...]
    machines: tuple[str, ...]
    cpu_seconds: float

    def find(self, name: str) -> ExperimentFindings | None:
        """Return an experiment's findings; None if it is not among them."""
        return next((one for one in self.experiments if one.name == name), None)


def format_measured(value: float, unit: Unit) -> str:
    """Format what was measured of an arm: 12.34 %, 18.2."""
    return f"{100 * value:.2f} %" if unit == "share" else f"{value:.3g}"


def format_effect(value: float, claim: ClaimFindings) -> str:
    """Format a difference or a ratio: +1.20 points, 6.1 times, 100 %."""
    if claim.comparison == "ratio":
        return f"{value:.2f} times"
    if claim.comparison == "count":
        return f"{100 * value:.0f} %"
    return f"{100 * value:+.2f} points"


def format_interval(effect: Effect, claim: ClaimFindings) -> str:
    """Format the 95 % interval of an effect; empty if it has none."""
    if effect.low is None or effect.high is None:
        return ""
    low, high = (format_effect(end, claim) for end in (effect.low, effect.high))
    return f"{low.split()[0]} to {high}"


def locate_kernel_sheet(experiment: str, kind: str, results: Path = RESULTS) -> Path:
    """Return where an experiment's picture of all runs' first kernels lies, if it has one."""
    return results / experiment / f"{kind}-conv1.png"


def write_findings(findings: Findings, file: Path = FINDINGS) -> None:
    """Write the file. Raises OSError."""
    write_atomically(file, json.dumps(asdict(findings), indent=1, ensure_ascii=False) + "\n")


def read_findings(file: Path = FINDINGS) -> Findings | None:
    """Read the file; None if there is none, or if it is damaged or of another format."""
    stamp = stamp_file(file)
    return parse_findings(file, stamp) if stamp else None


@lru_cache(maxsize=4)
def parse_findings(file: Path, stamp: object) -> Findings | None:
    """Parse the file, cached until its stamp changes."""
    values = parse_json_object(read_bounded(file, MAX_BYTES))
    if values.get("format") != FINDINGS_FORMAT:
        return None
    try:
        return decode_dataclass(Findings, values)
    except ValueError:
        return None
