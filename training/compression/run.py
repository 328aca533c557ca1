"""Run a compression, from the command line to the weights file."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from torch import Tensor

from model.weights.checkpoint import (
    Weights,
    check_finite,
    collect_tensors,
    load_weights,
    read_tensors,
    save_weights,
)
from model.weights.header import read_weights_header
from model.weights.loaded_network import find_device
from storage.files import check_writable
from storage.home import Home
from training.compression.finetune import Errors, FineTuning, choose_recipe, reduce_dropout
from training.compression.options import (
    CompressionError,
    CompressionOptions,
    LayerCompression,
    choose_layers,
    parse_compression_options,
)
from training.compression.prune import choose_largest
from training.compression.share import share_weights
from training.dataset.prepare import PreparedDataset
from training.optimisation.device import has_bf16, keep_freed_memory
from training.records.run_folder import RunSpec, read_commit
from training.train import find_or_fetch_data, prepare_data


def compress(arguments: Sequence[str], home: Home, console: Console) -> Path:
    """Compress or decompress weights as the command line says; return the file written.

    Raises CompressionError or one of training.train's EXPECTED_ERRORS. Until the file is whole,
    nothing of it is there.
    """
    options = parse_compression_options(arguments)
    weights = load_weights(options.weights)
    check_finite(weights)
    target = options.target
    check_writable(target)
    if options.decompress:
        if not read_weights_header(options.weights).compressed:
            raise CompressionError(f"{options.weights} is not compressed")
        save_weights(weights, target)
        console.print(f"Wrote weights {weights.identity} to {target}.", markup=False)
        return target
    layers = choose_layers(weights.config, options)
    if options.data is None:
        console.print("Without --data the network is neither fine-tuned nor measured.")
        smaller = compress_at_once(weights, layers)
    else:
        smaller = compress_with_data(weights, layers, options, home, console)
    save_weights(smaller, target, compressed=True)
    print_file(smaller, options, layers, console)
    return target


def compress_at_once(weights: Weights, layers: Mapping[str, LayerCompression]) -> Weights:
    """Prune and share weights without training."""
    pruned = {
        name: tensor * choose_largest(tensor, layers[name].density) if name in layers else tensor
        for name, tensor in weights.state.items()
    }
    return replace_state(weights, share_weights(pruned, layers))


def compress_with_data(
    weights: Weights,
    layers: Mapping[str, LayerCompression],
    options: CompressionOptions,
    home: Home,
    console: Console,
) -> Weights:
    """Prune, with training if it was asked for, and share weights; measure before and after."""
    assert options.data is not None
    keep_freed_memory()
    source = find_or_fetch_data(options.data, home, console)
    data = prepare_data(source, home, console, weights.config, options.prepared_gigabytes)
    data = use_statistics(data, weights)
    device = find_device(options.device)
    bf16 = options.precision == "bf16" or (options.precision == "auto" and has_bf16(device))
    recipe = choose_recipe(weights.provenance.preset, max(1, options.epochs), options.rate)
    spec = RunSpec(data, recipe, weights.identity, "bf16" if bf16 else "f32")
    density = options.dense.density if options.epochs else 1.0
    dropout = reduce_dropout(weights.config, density)
    tuning = FineTuning(weights, spec, device, console, dropout)
    console.print(f"Measuring {options.weights} on {data.root}.", markup=False)
    before = tuning.measure()
    if options.epochs:
        tuning.train_and_prune({name: layer.density for name, layer in layers.items()})
        smaller = replace_state(weights, share_weights(tuning.read(), layers))
    else:
        smaller = compress_at_once(weights, layers)
    tuning.load(smaller.state)
    console.print("Measuring what was made of it.")
    after = tuning.measure()
    print_errors(before, after, console)
    provenance = replace(
        smaller.provenance,
        data=str(data.root),
        images=len(data.train),
        epochs=(weights.provenance.epochs or 0) + options.epochs,
        top1_error=after.top1,
        top5_error=after.top5,
        ten_crop_top1_error=after.ten_crop_top1,
        ten_crop_top5_error=after.ten_crop_top5,
    )
    return replace(smaller, provenance=provenance)


def use_statistics(data: PreparedDataset, weights: Weights) -> PreparedDataset:
    """Return the photographs with the mean image and PCA that the network was trained with.

    Raises CompressionError if their classes are not the network's.
    """
    found, known = ([c.folder for c in names] for names in (data.class_names, weights.classes))
    if found != known:
        raise CompressionError(
            f"{data.root} has the classes {', '.join(found[:5])}{' …' * (len(found) > 5)}, but the "
            f"weights know {', '.join(known[:5])}{' …' * (len(known) > 5)}; --data takes what they "
            "were trained on"
        )
    return replace(data, mean=weights.mean, pca=weights.pca)


def replace_state(weights: Weights, state: Mapping[str, Tensor]) -> Weights:
    """Return weights made now with another state, of which no errors are known."""
    provenance = replace(
        weights.provenance,
        top1_error=None,
        top5_error=None,
        ten_crop_top1_error=None,
        ten_crop_top5_error=None,
        commit=read_commit(),
        created=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
    )
    return replace(weights, state=state, provenance=provenance)


def print_errors(before: Errors, after: Errors, console: Console) -> None:
    """Print the errors before and after, and the differences in points."""
    table = Table(title="Validation errors", title_justify="left")
    table.add_column("")
    for name in ("before", "after", "difference"):
        table.add_column(name, justify="right")
    rows = {
        "top-1, centre crop": (before.top1, after.top1),
        "top-5, centre crop": (before.top5, after.top5),
        "top-1, ten crops": (before.ten_crop_top1, after.ten_crop_top1),
        "top-5, ten crops": (before.ten_crop_top5, after.ten_crop_top5),
    }
    for name, (old, new) in rows.items():
        table.add_row(name, f"{old:.2%}", f"{new:.2%}", f"{100 * (new - old):+.2f} points")
    console.print(table)


def print_file(
    weights: Weights,
    options: CompressionOptions,
    layers: Mapping[str, LayerCompression],
    console: Console,
) -> None:
    """Print what the file holds, by layer, and how large and how quick to read it is."""
    file = options.target
    _, parts = read_tensors(file)
    table = Table(title="Layers", title_justify="left")
    table.add_column("")
    for name in ("weights", "kept", "values", "bytes"):
        table.add_column(name, justify="right")
    for name in layers:
        values = weights.state[name].numpy()
        kept = values[values != 0]
        table.add_row(
            name.removesuffix(".weight"),
            f"{values.size:,}",
            f"{kept.size / values.size:.1%}",
            f"{len(np.unique(kept)):,}",
            f"{sum(part.nbytes for key, part in parts.items() if key.startswith(f'{name}.')):,}",
        )
    console.print(table)
    start = time.perf_counter()
    load_weights(file)
    seconds = time.perf_counter() - start
    size, plain = file.stat().st_size, sum(t.nbytes for t in collect_tensors(weights).values())
    console.print(
        f"Wrote weights {weights.identity} to {file}: {size / 1e6:.1f} MB, {plain / size:.1f} "
        f"times smaller than the {plain / 1e6:.1f} MB of its tensors, read in {seconds:.1f} s.",
        markup=False,
    )
