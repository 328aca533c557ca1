"""Every experiment: the paper's claim, its arms, what is measured, and how long it runs."""

from collections.abc import Mapping

from experiments.claims.entries.learning import (
    COLOUR_EXPERIMENT,
    CROPS,
    DECAY_EXPERIMENT,
    DROPOUT_EXPERIMENT,
    START,
)
from experiments.claims.entries.network import (
    AS_RUN_EXPERIMENT,
    DEPTH,
    FIGURE_1,
    LRN_EXPERIMENT,
    POOLING,
    TOWERS_EXPERIMENT,
)
from experiments.claims.entries.outcome import (
    BASELINE,
    CHAIN,
    COLOUR_TOWERS,
    ENSEMBLE,
    NEIGHBOURS,
)
from experiments.claims.experiment import Experiment

EXPERIMENTS: Mapping[str, Experiment] = {
    one.name: one
    for one in (
        *(FIGURE_1, LRN_EXPERIMENT, POOLING, COLOUR_EXPERIMENT, DROPOUT_EXPERIMENT),
        *(DECAY_EXPERIMENT, TOWERS_EXPERIMENT, DEPTH, CROPS, ENSEMBLE, COLOUR_TOWERS),
        *(NEIGHBOURS, BASELINE, AS_RUN_EXPERIMENT, START, CHAIN),
    )
}
