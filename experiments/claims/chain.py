"""The chain behind the paper's best rows in miniature: 2009 → 2011 → 2012 (§6, Table 2).

A network trained on all classes gives its convolutional layers to one with conv6, which is trained
on them again; that one is fine-tuned on every second class.
"""

from dataclasses import replace
from pathlib import Path

from experiments.arms import Arm
from experiments.claims.experiment import Experiment, Setting, find_data_kind
from experiments.claims.runner import Workplace, run_or_read, weights_file
from experiments.claims.train import Parts, divide
from experiments.held_out import keep_classes
from model.weights.checkpoint import Weights, load_weights
from training.recipe.config import fit_finetuning

WIDE, WIDER = "all classes", "all classes, with conv6"
ALONE, TUNED = "the classes alone", "pretrained, with conv6"
EVERY = 2
"""One in so many classes is the target's."""
TAKEN = ("conv1", "conv2", "conv3", "conv4", "conv5")
SLOWER = 0.1
"""Of the layers taken from other weights, in the network with conv6: 0.001 beside 0.01."""


def run_chain(experiment: Experiment, setting: Setting, seeds: int, work: Workplace) -> None:
    """Run what is missing, seed by seed. Raises StoppedError."""
    wide = divide(work.data, setting)
    narrow = divide(keep_classes(work.data, EVERY), setting)
    kind = find_data_kind(work.data.class_names)
    narrow = replace(narrow, data=replace(narrow.data, kind=kind))
    recipes = setting.make_arms(setting.epochs)

    def run(arm: Arm, parts: Parts, *, kept: bool) -> Path | None:
        """Run an arm, and return where its weights were kept."""
        run_or_read(experiment, arm, parts, setting, work, keep_weights=kept)
        return weights_file(experiment, arm, parts, work) if kept else None

    for seed in range(seeds):
        alone = replace(recipes[WIDE], seed=seed)
        run(Arm(name=ALONE, recipe=alone), narrow, kept=False)
        first = load_kept(run(Arm(name=WIDE, recipe=alone), wide, kept=True))
        wider = replace(
            recipes[WIDER],
            seed=seed,
            from_layers=TAKEN,
            layer_rates=tuple(f"{name}={SLOWER}" for name in TAKEN),
        )
        second = load_kept(run(Arm(name=WIDER, recipe=wider, weights=first), wide, kept=True))
        tuned = replace(fit_finetuning(setting.epochs), seed=seed)
        run(Arm(name=TUNED, recipe=tuned, weights=second), narrow, kept=False)


def load_kept(file: Path | None) -> Weights:
    """Load the weights of an earlier link of the chain."""
    assert file is not None
    return load_weights(file)
