"""The sections of docs/gpu.md: a part's figures as Markdown."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console

Figures = dict[str, Any]
CURVE_ROWS = 12
"""Epochs of a curve that are shown, evenly spread."""


def make_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """Yield the lines of a table, and an empty one."""
    yield f"| {' | '.join(headings)} |"
    yield f"|{'---|' * len(headings)}"
    for row in rows:
        # A bar or a line's end would end the cell.
        cells = (" ".join(str(cell).replace("|", "/").split()) for cell in row)
        yield f"| {' | '.join(cells)} |"
    yield ""


def format_number(value: object, digits: int = 3) -> str:
    """Format a number with a few significant digits; anything else as it is."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return "–" if value is None else str(value)
    if abs(value) >= 10**digits:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def format_error(figure: object) -> str:
    """Format what a step left that failed, or that was not reached."""
    return str(figure["error"]) if isinstance(figure, dict) and "error" in figure else "not reached"


def list_machine(figures: Figures) -> Iterator[str]:
    """The card, the machine and its rates."""
    names = (
        *("card", "cards", "gpu_memory_gib", "processor", "cores", "memory_gib"),
        *("python", "cuda", "cudnn", "nccl", "commit"),
    )
    rows: list[tuple[str, object]] = [(n.replace("_", " "), figures.get(n, "–")) for n in names]
    versions = ", ".join(f"{k} {v}" for k, v in figures.get("packages", {}).items() if v)
    rows.append(("packages", versions))
    for name in ("product_bf16", "product_tf32", "product_f32"):
        rate = f"{figures[name] / 1e12:,.0f} TFLOP/s" if name in figures else "–"
        rows.append((f"8192³ {name.replace('_', ', ')}", rate))
    copy = figures.get("copy_bytes_per_second")
    rows.append(("copy, read and written", f"{copy / 1e12:.2f} TB/s" if copy else "–"))
    yield from make_table(("what", "value"), rows)


def list_answers(figures: Figures) -> Iterator[str]:
    """Errors against the CPU's float64."""
    yield "Errors against the CPU in float64, as norms of differences over norms:\n"
    kinds = ("logits", "fc7", "gradient", "worst gradient", "update", "worst update")
    rows = []
    for name, errors in figures["errors"].items():
        outputs = max(errors["logits"], errors["fc7"]) <= errors["limit"]
        others = max(errors["gradient"], errors["update"]) <= 10 * errors["limit"]
        good = "yes" if outputs and others else "no"
        rows.append((name, *(f"{errors[kind]:.1e}" for kind in kinds), good))
    yield from make_table(("computed in", *kinds, "as rounding explains"), rows)
    crops = figures.get("ten_crops", {})
    said = crops.get("error") or ", ".join(f"{k} {v:.1e}" for k, v in crops.items())
    yield f"Ten crops in float32: {said}.\n"
    same = figures.get("deterministic")
    said = format_error(same)
    if isinstance(same, bool):
        said = "the same bits" if same else "different bits"
    yield f"Three steps, twice, with deterministic algorithms: {said}.\n"
    tests = figures.get("gpu_tests", {})
    yield f"Tests marked `gpu`: {tests.get('summary', format_error(tests)).strip('= ')}.\n"


def list_speed(figures: Figures) -> Iterator[str]:
    """Images a second by setting, and by where images come from."""
    peak, rows = figures.get("peak_bf16"), list[Sequence[object]]()
    for setting, networks in figures["settings"].items():
        for name, values in networks.items():
            if "error" in values:
                rows.append((setting, name, format_error(values)[:200], *["–"] * 5))
                continue
            known = "torchvision" if name == "torchvision" else "ours"
            operations = figures["operations_per_image"][known]
            speed = values.get("images_per_second", 0)
            share = f"{speed * operations / peak:.1%}" if peak else "–"
            ratio = next(iter(values.get("ratios", {}).values()), None)
            cells = (speed, values.get("ms_per_step"), ratio)
            rest = (format_number(values["gib"]), format_number(values["first_turn_seconds"]))
            rows.append((setting, name, *map(format_number, cells), share, *rest))
    headings = ("setting", "network", "images/s", "ms a step", "times the other's", "of the peak")
    yield from make_table((*headings, "GiB", "s, first turn"), rows)
    rows = [
        (where, format_number(values["images_per_second"]), f"{values['wait']:.0%}")
        for where, values in figures.get("images_from", {}).items()
        if where != "error"
    ]
    yield from make_table(("images from", "images/s", "waiting for data"), rows)


def list_run(figures: Figures) -> Iterator[str]:
    """A run's curve and its errors."""
    curve = figures.get("curve", [])
    yield (
        f"{figures['images']:,} images, {figures['validation_images']:,} for validation; prepared "
        f"in {figures['prepare_seconds']:.0f} s. Recipe `{figures.get('preset')}`, "
        f"{figures.get('epochs')} epochs, {figures.get('precision')}, {figures.get('compiled')}.\n"
    )
    step = max(1, -(-len(curve) // CURVE_ROWS))
    shown = [e for e in curve if e["epoch"] % step == 0 or e["epoch"] in (1, len(curve))]
    rows = [
        (
            e["epoch"],
            f"{e['rate']:.2g}",
            f"{e['loss']:.3f}",
            f"{e['top1_error']:.2%}",
            f"{e['top5_error']:.2%}",
            format_number(e["images_per_second"]),
            format_number(e["conv1_low_frequency"]),
            f"{e['seconds']:.1f}",
        )
        for e in shown
    ]
    headings = ("epoch", "learning rate", "training loss", "top-1 error", "top-5 error")
    yield from make_table((*headings, "images/s", "conv1, low frequencies", "s"), rows)
    if "ten_crops" in figures:
        top1, top5 = figures["ten_crops"]
        yield f"Ten crops: top-1 {top1:.2%}, top-5 {top5:.2%}. Weights {figures['weights']}.\n"


def list_weights(figures: Figures) -> Iterator[str]:
    """The compressed file and what it costs."""
    size = f", {figures['bytes'] / 1e6:.1f} MB" if "bytes" in figures else ""
    yield f"The weights, {figures['how']}{size}.\n"
    lines = [*figures["said"], *figures.get("also_said", [])]
    # Not those with a path, which is the machine's.
    yield from make_block([line for line in lines if "/" not in line])


def make_block(lines: Sequence[str]) -> Iterator[str]:
    """Yield lines as they are."""
    yield from ("```text", *lines, "```", "")


def list_arms(figures: Figures) -> Iterator[str]:
    """The experiments' own tables."""
    from experiments import recipe

    out = Console(file=io.StringIO(), width=110)
    for table in recipe.make_tables(figures["recipe"]):
        out.print(table)
    assert isinstance(out.file, io.StringIO)
    yield from make_block([line.rstrip() for line in out.file.getvalue().splitlines()])
    headings = (
        "network",
        "epochs",
        "seed",
        "ten crops, top-1 error, %",
        "first half",
        "second half",
    )
    yield "Mean colour selectivity of conv1's halves, and p of a permutation test:"
    yield ""
    yield from make_table((*headings, "p"), [describe_run(run) for run in figures["towers"]])
    yield from make_table(("command", "ended"), [*figures["ended"].items()])


def describe_run(run: Figures) -> tuple[str, ...]:
    """Return a row of the towers' runs."""
    known = (run["arm"], str(run["epochs"]), str(run["seed"]))
    if run["diverged"]:
        return (*known, "diverged", "–", "–", "–")
    halves = (f"{run[name]:.3f}" for name in ("first half", "second half"))
    return (*known, f"{100 * run['error']:.2f}", *halves, f"{run['p']:.4f}")


def list_towers(figures: Figures) -> Iterator[str]:
    """Which exchange works, and what it gives."""
    rows = []
    for name, found in figures["tries"].items():
        if "error" in found:
            rows.append((name, found["error"].splitlines()[-1][:120], "–", "–", "–"))
            continue
        errors = found["errors"]
        worst = [f"{max(e[k] for e in errors):.1e}" for k in ("logits", "worst gradient")]
        speeds = [found[f"{k}_images_per_second"] for k in ("towers", "whole")]
        rows.append((name, *worst, *map(format_number, speeds)))
    headings = ("exchange", "error of logits", "worst gradient", "images/s", "one process")
    yield from make_table(headings, rows)


def list_serving(figures: Figures) -> Iterator[str]:
    """Times of predictions."""
    rows = [
        (name, *(format_number(values[k]) for k in ("p50_ms", "p95_ms", "images_per_second")))
        for name, values in (*figures["predictions"].items(), ("decoding", figures["decoding"]))
    ]
    yield from make_table(("what, images at once", "p50 ms", "p95 ms", "images/s"), rows)


def list_search(figures: Figures) -> Iterator[str]:
    """Recall, queries a second and memory."""
    yield f"FAISS {figures['faiss']}, {figures['gpus']} GPUs.\n"
    rows = []
    for name, found in figures.items():
        if not isinstance(found, dict):
            continue
        if "error" in found:
            rows.append((name, "–", format_error(found)[:200], *["–"] * 5))
            continue
        for where, own in (("GPU" if found["on_gpu"] else "CPU", found), ("CPU", found.get("cpu"))):
            if own is None:
                continue
            speeds = own["queries_per_second"]
            memory = (found["bytes_taken"], found["bytes_estimated"])
            cells = [f"{b / 2**20:,.0f}" for b in memory] if own is found else ["–", "–"]
            recall = f"{own['recall']:.3f}"
            rows.append((name, where, recall, *(format_number(s) for s in speeds.values()), *cells))
    batches = [f"queries/s, {n} at once" for n in (1, 64, 256)]
    headings = ("kind, vectors", "on", "recall@6 of candidates", *batches)
    yield from make_table((*headings, "MiB taken", "MiB estimated"), rows)


def list_layers(figures: Figures) -> Iterator[str]:
    """Times by layer, of other ways, and of kernels."""
    rest = ("ms_per_layer", "kernels")
    values = {**figures["ms_per_layer"], **{k: v for k, v in figures.items() if k not in rest}}
    rows = [
        (name, f"{ms:.3f}" if isinstance(ms, float) else format_error(ms)[:200])
        for name, ms in sorted(values.items())
    ]
    yield from make_table(("layer, forward and backward", "ms"), rows)
    found = figures.get("kernels", [])
    if isinstance(found, dict):
        yield f"No list of kernels: {format_error(found)}.\n"
        return
    kernels = [(f"`{k['name']}`", f"{k['ms_per_step']:.3f}", f"{k['share']:.1%}") for k in found]
    yield from make_table(("kernel", "ms a step", "share"), kernels)


SECTIONS: Mapping[str, Callable[[Figures], Iterator[str]]] = {
    "machine": list_machine,
    "answers": list_answers,
    "speed": list_speed,
    "whole": list_run,
    "weights": list_weights,
    "arms": list_arms,
    "towers": list_towers,
    "serving": list_serving,
    "search": list_search,
    "paper": list_run,
    "layers": list_layers,
}
