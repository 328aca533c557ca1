"""The arms of an experiment: networks trained one after another, recorded in one file.

The file has a line of JSON for each finished epoch and one for each finished training. An
experiment that is started again skips what is finished and begins anew what was interrupted.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from model.network.config import AlexNetConfig
from model.visualization.kernels import compute_low_frequency_share
from model.weights.checkpoint import Weights
from storage.runs import Epoch
from training.batches.batches import load_validation_crops
from training.dataset.prepare import PreparedDataset
from training.optimisation.device import choose_precision, compile_network, select_device
from training.optimisation.divergence import DivergedError
from training.optimisation.loop import train_network
from training.optimisation.precision import Precision
from training.optimisation.start import init_from_weights
from training.optimisation.state import TrainingState, init_state
from training.optimisation.validate import VALIDATION_BATCH_SIZE, predict_logits
from training.recipe.config import PAPER, Recipe, finetune_config
from training.recipe.options import Options
from training.records.callbacks import Callbacks
from training.records.reporting import format_epoch

Line = dict[str, Any]
Tensors = tuple[Tensor, ...] | list[Tensor]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One training of an experiment.

    scaled_alpha: whether α of LRN is scaled as He's initial weights need it. averages: decays, for
    each step, of exponential averages of the weights that are evaluated at the end, too. weights:
    what to start from; None: random weights.
    """

    name: str
    recipe: Recipe
    scaled_alpha: bool = True
    averages: tuple[float, ...] = ()
    weights: Weights | None = None

    def network(self, classes: int) -> AlexNetConfig:
        """Return the configuration of the network to train."""
        if self.weights:
            return finetune_config(self.weights, self.recipe, classes)
        config = self.recipe.network(classes)
        return config if self.scaled_alpha else replace(config, lrn_alpha_factors=())

    def identify(self, data: PreparedDataset) -> Line:
        """Return what a line of the file belongs to: the arm, how it differs from the paper, data.

        Lines of another recipe, such as of a preset that has changed since, are not the arm's.
        """
        known = {"arm": self.name, "data": data.key, "recipe": self.describe_recipe()}
        if self.weights:
            known["weights"] = self.weights.identity
        identity: Line = json.loads(json.dumps(known))
        return identity

    def describe_recipe(self) -> Line:
        """Return the recipe's values that are not the paper's, and its seed and epochs, as JSON."""
        papers = asdict(PAPER)
        values = {k: v for k, v in asdict(self.recipe).items() if v != papers[k] or k == "seed"}
        described: Line = json.loads(json.dumps(values | {"epochs": self.epochs}))
        return described

    @property
    def epochs(self) -> int:
        """Its epochs, at most."""
        return self.recipe.epochs


@dataclass(frozen=True)
class ResultsFile:
    """A file of JSON lines."""

    path: Path

    def read(self, kind: str) -> list[Line]:
        """Return the lines of a kind: "epoch" or "result". A line cut off by a kill is skipped."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [line for line in parse_lines(lines) if line["kind"] == kind]

    def append(self, line: Line) -> None:
        """Append a line, on its own even after one that was cut off."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+") as file:
            file.seek(0)
            cut_off = not f"\n{file.read()}".endswith("\n")
            file.write("\n" * cut_off + json.dumps(line) + "\n")

    def has_result(self, identity: Line) -> bool:
        """Return whether an arm is finished."""
        return any(line.items() >= identity.items() for line in self.read("result"))


def parse_lines(lines: Sequence[str]) -> Iterator[Line]:
    """Parse lines of JSON, skipping incomplete ones."""
    for text in lines:
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and "kind" in line:
            yield line


def run_arms(
    arms: Sequence[Arm],
    data: PreparedDataset,
    results: ResultsFile,
    options: Options,
    console: Console,
) -> None:
    """Train every arm that has no result yet.

    options: of these, the device, the precision and whether to compile.
    """
    for arm in arms:
        if results.has_result(arm.identify(data)):
            console.print(f"{arm.name}, seed {arm.recipe.seed}: done")
            continue
        result = train_arm(arm, data, results, options, console)
        results.append({"kind": "result", **arm.identify(data), **result})


def train_arm(
    arm: Arm,
    data: PreparedDataset,
    results: ResultsFile,
    options: Options,
    console: Console,
) -> Line:
    """Train one arm from the beginning, and return its result line."""
    recipe = arm.recipe
    state, precision = start_arm(arm, data, options)
    averages = [Average(state.network, decay) for decay in arm.averages]

    def on_step(*_: object) -> None:
        for average in averages:
            average.update()

    def on_epoch(state: TrainingState) -> None:
        averaging = sum(average.take_seconds() for average in averages)
        epoch = state.history[-1] = without_seconds(state.history[-1], averaging, data, recipe)
        low = compute_low_frequency_share(state.network.first_conv.weight)
        line = asdict(epoch) | {"precision": precision, "conv1_low_frequency": low}
        results.append({"kind": "epoch", **arm.identify(data), **line})
        name = f"{arm.name}, seed {recipe.seed}"
        console.print(f"{name}: {format_epoch(epoch, recipe.epochs)}", markup=False)

    try:
        callbacks = Callbacks(on_step=on_step, on_epoch=on_epoch)
        train_network(state, data, recipe, precision, callbacks)
    except DivergedError as error:
        console.print(f"{arm.name}, seed {recipe.seed}: {error}", markup=False)
        return {"diverged": str(error)}
    wrong = partial(find_wrong_rows, data=data, recipe=recipe, precision=precision)
    return {
        "images": len(data.val),
        "wrong": wrong(state),
        "averages": {
            str(average.decay): wrong(replace(state, network=average.network))
            for average in averages
        },
        "conv1_low_frequency": compute_low_frequency_share(state.network.first_conv.weight),
        "images_per_second": median(epoch.images_per_second for epoch in state.history),
    }


def start_arm(arm: Arm, data: PreparedDataset, options: Options) -> tuple[TrainingState, Precision]:
    """Build an arm's network on the device that the options name, and choose its precision."""
    device = select_device(options)
    state = init_state(arm.network(len(data.class_names)), arm.recipe, device)
    if arm.weights:
        init_from_weights(arm.weights, state, arm.recipe.from_layers)
    precision = choose_precision(options, device)
    compile_network(state, options.compile, arm.recipe.epochs * len(data.train), precision)
    return state, precision


def without_seconds(
    epoch: Epoch[float], seconds: float, data: PreparedDataset, recipe: Recipe
) -> Epoch[float]:
    """Return an epoch as if these seconds had not passed during its training."""
    batch = min(recipe.batch, len(data.train))
    images = len(data.train) // batch * batch
    taken = images / epoch.images_per_second - seconds
    return replace(
        epoch,
        images_per_second=images / taken,
        data_wait=max(0.0, epoch.data_wait - seconds),
        seconds=epoch.seconds - seconds,
    )


@torch.no_grad()
def find_wrong_rows(
    state: TrainingState, *, data: PreparedDataset, recipe: Recipe, precision: Precision
) -> list[int]:
    """Return the validation images whose most probable class, by the centre crop, is wrong."""
    state.network.eval()
    wrong: list[int] = []
    augmentation = recipe.augmentation(state.network.config)
    for batch in load_validation_crops(data, augmentation, VALIDATION_BATCH_SIZE):
        guess = predict_logits(state, batch.x, precision).topk(1).indices[:, 0]
        wrong += batch.rows[guess != batch.classes].tolist()
    return wrong


class Average:
    """An exponential average of a network's weights over the steps.

    The first steps are averaged evenly until the decay is reached, so that the initial weights
    do not stay in the average.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay, self.source, self.seconds = decay, network, 0.0
        self.model = AveragedModel(network, multi_avg_fn=self.mix)

    @property
    def network(self) -> Any:
        """The network with the averaged weights."""
        return self.model.module

    @torch.no_grad()
    def mix(self, averages: Tensors, weights: Tensors, steps: Tensor | int) -> None:
        """Move the averages of this many steps towards the weights of the next."""
        share = max(1 - self.decay, 1 / (int(steps) + 1))
        for average, weight in zip(averages, weights, strict=True):
            average.lerp_(weight, share)

    def update(self) -> None:
        """Take the weights of one more step into the average."""
        start = time.perf_counter()
        self.model.update_parameters(self.source)
        self.seconds += time.perf_counter() - start

    def take_seconds(self) -> float:
        """Return how long updates took since the last call."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds
