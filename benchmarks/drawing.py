"""The plot of benchmarks/index.py: query times by number of vectors."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


def draw_query_times(figures: list[dict[str, Any]], file: Path) -> None:
    """Plot the time of a single query against the number of vectors, a line for each kind."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for kind in dict.fromkeys(found["kind"] for found in figures):
        own = [found for found in figures if found["kind"] == kind]
        axes.plot([f["size"] for f in own], [f["one_ms"] for f in own], "o-", label=kind)
    first = min(figures, key=lambda found: found["size"])
    sizes = sorted({found["size"] for found in figures})
    times = [first["one_ms"] * size / first["size"] for size in sizes]
    axes.plot(sizes, times, ":", color="0.6", label="proportional")
    axes.set(xscale="log", yscale="log", xlabel="vectors", ylabel="ms per query, alone")
    axes.grid(alpha=0.3)
    axes.legend()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
