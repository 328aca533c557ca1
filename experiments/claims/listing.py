"""The table that `experiments/run.py list` prints."""

from collections.abc import Iterator, Sequence

from rich.table import Table

from experiments.claims.experiment import DATA_LABELS, Experiment
from experiments.claims.registry import EXPERIMENTS
from experiments.claims.result import RunResult


def make_listing(results: Sequence[RunResult]) -> Table:
    """List every experiment with its claims, its arms, and how many runs there are."""
    table = Table(title="Experiments", show_lines=True)
    for heading in ("name", "claims", "runs, by default, and so far"):
        table.add_column(heading, ratio={"name": None, "claims": 5}.get(heading, 4))
    for one in EXPERIMENTS.values():
        claims = "\n".join(f"{one.section}: {claim.statement}" for claim in one.claims)
        table.add_row(one.name, claims, "\n".join(list_settings(one, results)))
    return table


def list_settings(experiment: Experiment, results: Sequence[RunResult]) -> Iterator[str]:
    """Yield how an experiment runs on each kind of data, and how far it is."""
    if not experiment.settings:
        yield "read from other experiments' runs"
    for kind, setting in experiment.settings.items():
        arms = setting.make_arms(max(1, setting.epochs))
        runs = sum(setting.count_seeds(arm, setting.seeds) for arm in arms)
        images = f"{setting.images:,} images" if setting.images else "all images"
        own = (run for run in results if run.experiment == experiment.name)
        so_far = sum(run.data.kind == kind for run in own)
        names = f" ({', '.join(arms)})" if arms else ""
        yield (
            f"{DATA_LABELS[kind]}: {runs} runs{names}, {images}, {setting.epochs} epochs, "
            f"{setting.minutes:,.0f} minutes; {so_far} so far"
        )
