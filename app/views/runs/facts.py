"""What tables say of runs: what they ran on, how fast they were, what came out."""

from collections.abc import Sequence

from app.views.format import THIN_SPACE, format_duration, format_percent
from app.views.runs.comparison import Row, mean_of, most_of, total_of
from app.views.runs.plots import figures
from app.views.runs.recipe import plain
from model.architectures import VARIANTS
from model.checkpoint import WeightsError, read_weights_header
from storage.runs import Epoch, Run
from storage.tolerant_json import dict_or_empty

UNKNOWN = "–"
MOST_VERSIONS = 12


def identities(run: Run) -> list[str]:
    """What the networks are called that a run has made: its result, and its best epoch's."""
    try:
        best = read_weights_header(run.folder.best).identity
    except (WeightsError, OSError):
        best = None
    return list(dict.fromkeys(one for one in (run.weights, best) if one))


def towers_of(run: Run) -> int:
    """How many GPUs the run's network is split over, by its variant; two where that is unknown."""
    variant = run.recipe.get("variant")
    known = VARIANTS.get(variant) if isinstance(variant, str) else None
    return known.config.towers if known else 2


def machine_of(run: Run) -> list[tuple[str, str]]:
    """What a run began from and ran on, by word; what is not known is left out."""
    machine = run.environment
    versions = dict_or_empty(machine.get("versions"))
    found = {
        "Preset": run.preset,
        "Photographs": run.data,
        "Began from weights": run.initial_weights[:8],
        "Arithmetic": run.precision,
        "Processor": machine.get("processor"),
        "Device": machine.get("device"),
        "Cores": machine.get("cores"),
        "Threads": machine.get("threads"),
        "Processes": machine.get("processes"),
        "System": machine.get("system"),
        "Python": machine.get("python"),
        **{str(name): versions[name] for name in sorted(versions)[:MOST_VERSIONS]},
        "Commit": run.commit,
    }
    return [(word, plain(value)) for word, value in found.items() if value not in ("", None)]


def figures_of(run: Run) -> list[tuple[str, str]]:
    """How fast a run was and what it took, by word."""
    return [
        ("Images a second", images(mean_of(run, "images_per_second"))),
        ("Time an epoch", format_duration(mean_of(run, "seconds"))),
        ("Time in all", format_duration(total_of(run, "seconds"))),
        ("Waited for images", format_duration(total_of(run, "data_wait"))),
        ("Memory at most", memory(most_of(run, "memory"))),
    ]


def results(runs: Sequence[Run]) -> list[Row]:
    """What came out of runs and what they took: a line a figure, a value a run."""
    lines = [
        ("Epochs", [f"{len(run.epochs)}" for run in runs]),
        ("Top-1 error, lowest", [error(of(run.best_epoch, "top1_error")) for run in runs]),
        ("Top-1 error, last", [error(of(run.last_epoch, "top1_error")) for run in runs]),
        ("Top-5 error, last", [error(of(run.last_epoch, "top5_error")) for run in runs]),
        ("Top-1 error, ten crops", [error(run.ten_crops and run.ten_crops[0]) for run in runs]),
        ("Training loss, last", [loss(of(run.last_epoch, "loss")) for run in runs]),
    ]
    taken = [dict(figures_of(run)) for run in runs]
    lines += [(word, [each[word] for each in taken]) for word in (taken[0] if taken else {})]
    return [Row(word=word, section="", values=tuple(values)) for word, values in lines]


def of(epoch: Epoch[float | None] | None, name: str) -> float | None:
    """A value of an epoch, where there is one."""
    return getattr(epoch, name) if epoch else None


def error(share: float | None) -> str:
    """Write an error, where there is one."""
    return UNKNOWN if share is None else format_percent(share)


def loss(value: float | None) -> str:
    """Write a loss, where there is one."""
    return UNKNOWN if value is None else figures(value)


def images(value: float | None) -> str:
    """Write a speed, where it is known."""
    return UNKNOWN if value is None else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def memory(value: float | None) -> str:
    """Write an amount of memory, where it is known."""
    return UNKNOWN if value is None else f"{value:.1f}{THIN_SPACE}GiB"
