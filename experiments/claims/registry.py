"""Every experiment: the paper's claim, its arms, what is measured, and how long it runs."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from experiments.claims.experiment import Claim, Contrast, DataKind, Experiment, Setting
from experiments.claims.recipes import (
    AS_RUN,
    Changes,
    cifar_setting,
    define_cifar_with_dropout,
    define_cifar_without_overlap,
    define_start,
    imagenet_setting,
    imagenette_setting,
    make_figure_1_arms,
)
from training.config import ORIGINAL, PAPER, SMALL, Recipe

PLAIN = {"decay": 0.0, "dropout": 0.0, "colour_noise": 0.0, "mirrors": False}
"""No regularisation of any kind, for the whole network."""
RATES = (0.001, 0.003, 0.01)
MIDDLE_LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")
WITHOUT = {f"without {name}": {"variant": f"no-{name}"} for name in MIDDLE_LAYERS}
TOWERS: Changes = {
    "two towers": {},
    "one half": {"variant": "one-gpu"},
    "towers apart": {"variant": "separate-towers"},
}
LRN: Changes = {"with LRN": {}, "without LRN": {"variant": "no-lrn"}}
OVERLAP: Changes = {"overlapping": {}, "apart": {"variant": "no-overlap"}}
COLOUR: Changes = {"with colour noise": {}, "without": {"colour_noise": 0.0}}
DROPOUT: Changes = {"with dropout": {}, "without dropout": {"variant": "no-dropout"}}
DECAY: Changes = {"with decay": {}, "without decay": {"decay": 0.0}}
TANH: Changes = {"ReLU": PLAIN, "tanh": PLAIN | {"variant": "tanh"}}
NO_DECAY = {"decay": 0.0, "conv_decay": None, "layer_decays": ()}
ALL_AS_RUN: Recipe = replace(
    ORIGINAL,
    drop_after=(),
    slow_conv1_after=None,
    freeze_conv1_after=None,
    colour_until=None,
)
"""The recipe of 2012 without its schedule, which was for 91 epochs."""
AS_RUN_ARMS: Changes = {
    "the paper's words": {},
    "as run": {
        name: value for name, value in vars(ALL_AS_RUN).items() if value != vars(PAPER)[name]
    },
    **{f"with its {name}": changed for name, changed in AS_RUN.items()},
}
AS_RUN_PARTS = tuple(f"with its {name}" for name in AS_RUN)
STARTS: Changes = {
    "the paper's start": {},
    "biases of zero": define_start(biases=False),
    "σ of 0.03 in conv3 to conv5": define_start(sigma=0.03),
    "biases' rate of 0.02": {"bias_rate": 0.02},
    "no dropout": {"variant": "no-dropout"},
    "no LRN": {"variant": "no-lrn"},
    "He's weights": {"init": "he", "input_scale": SMALL.input_scale},
}


LOOK_UP = Setting(make_arms=lambda _: {}, epochs=0, seeds=1, minutes=30)
"""Nothing is trained."""


def pair(more: str, less: str) -> tuple[Contrast, ...]:
    """Return the only contrast of a claim: by the claim, the first arm has more."""
    return (Contrast(more=more, less=less),)


def photograph_settings(changes: Changes, **more: Any) -> dict[DataKind, Setting]:
    """Return the settings on Imagenette and, with the paper's recipe, on ImageNet."""
    return {
        "imagenette": imagenette_setting(changes, **more),
        "imagenet": imagenet_setting(changes),
    }


FIGURE_1 = Experiment(
    name="figure1",
    title="ReLU against tanh",
    section="§3.1, Figure 1",
    claims=(
        Claim(
            statement="A four-layer network with ReLUs reaches 25 % training error on CIFAR-10 six "
            "times sooner than one with tanh, without any regularisation, each at its own best "
            "learning rate.",
            measure="epochs to 25 %",
            paper="6 times fewer epochs",
            paper_value=6.0,
            contrasts=pair("tanh", "ReLU"),
            ratio=True,
        ),
        Claim(
            statement="The same at the lowest training error that both of a pair reached, where "
            "the runs end before 25 %.",
            measure="epochs to the lowest error of both",
            paper="not in the paper",
            contrasts=pair("tanh", "ReLU"),
            ratio=True,
        ),
    ),
    settings={
        "cifar10": Setting(
            make_arms=make_figure_1_arms,
            epochs=40,
            seeds=3,
            minutes=150,
            images=10_000,
            held_out=5,
            rates=RATES,
            search_epochs=3,
            target=0.25,
            sample=1000,
            test_images=2500,
        ),
        "imagenette": imagenette_setting(TANH, epochs=40, target=0.25, rates=(0.005, 0.01, 0.02)),
        "imagenet": imagenet_setting(TANH, target=0.25, rates=(0.005, 0.01, 0.02)),
    },
    note="The rates are searched on training images that the measured runs do not see: the one "
    "that reaches 25 %, or else the lowest training error, in the fewest epochs.",
)
LRN_EXPERIMENT = Experiment(
    name="lrn",
    title="Local response normalisation",
    section="§3.3",
    claims=(
        Claim(
            statement="A four-layer network on CIFAR-10 has 13 % test error without normalisation "
            "and 11 % with it.",
            measure="error, crops",
            paper="13 % against 11 %",
            paper_value=0.02,
            contrasts=pair("without LRN", "with LRN"),
            data=("cifar10",),
        ),
        Claim(
            statement="Normalisation lowers the errors of the whole network.",
            measure="error, crops",
            paper="1.4 points top-1, 1.2 top-5",
            paper_value=0.014,
            contrasts=pair("without LRN", "with LRN"),
            data=("imagenette", "imagenet"),
        ),
    ),
    settings={
        "cifar10": cifar_setting(
            {"without LRN": ("cifar-24", {}), "with LRN": ("cifar-lrn-24", {})}, seeds=3
        ),
        **photograph_settings(LRN),
    },
    note="On CIFAR-10 these are the networks that the authors published as 13 % and 11 %, which "
    "also differ in the maps of the first local layer, 32 and 64, and in the last layer's decay.",
)
POOLING = Experiment(
    name="pooling",
    title="Overlapping pooling",
    section="§3.4",
    claims=(
        Claim(
            statement="Pooling windows that overlap (z = 3, s = 2) lower the error against those "
            "that do not (z = 2, s = 2).",
            measure="error, crops",
            paper="0.4 points top-1, 0.3 top-5",
            paper_value=0.004,
            contrasts=pair("apart", "overlapping"),
        ),
    ),
    settings={
        "cifar10": cifar_setting(
            {
                "overlapping": ("cifar-24", {}),
                "apart": ("cifar-24", define_cifar_without_overlap()),
            }
        ),
        **photograph_settings(OVERLAP),
    },
)
COLOUR_EXPERIMENT = Experiment(
    name="colour",
    title="PCA colour augmentation",
    section="§4.1",
    claims=(
        Claim(
            statement="Colour noise along the principal components of the pixels lowers the top-1 "
            "error.",
            measure="error, crops",
            paper="more than 1 point top-1",
            paper_value=0.01,
            contrasts=pair("without", "with colour noise"),
        ),
    ),
    settings={
        "cifar10": cifar_setting(
            {"with colour noise": ("cifar-24", {"colour_noise": 0.1}), "without": ("cifar-24", {})}
        ),
        **photograph_settings(COLOUR),
    },
)
DROPOUT_EXPERIMENT = Experiment(
    name="dropout",
    title="Dropout",
    section="§4.2",
    claims=(
        Claim(
            statement="Without dropout the network overfits: its test error is further above its "
            "training error.",
            measure="gap",
            paper="substantial overfitting",
            contrasts=pair("without dropout", "with dropout"),
        ),
        Claim(
            statement="Dropout roughly doubles the iterations that it takes to converge.",
            measure="epochs to converge",
            paper="about 2 times",
            paper_value=2.0,
            contrasts=pair("with dropout", "without dropout"),
            ratio=True,
        ),
    ),
    settings={
        "cifar10": cifar_setting(
            {
                "with dropout": ("cifar-24", define_cifar_with_dropout()),
                "without dropout": ("cifar-24", {}),
            }
        ),
        **photograph_settings(DROPOUT),
    },
    note="The four-layer net has no fully connected hidden layer: on CIFAR-10 half of what its "
    "last layer sees is dropped, which the authors did not do.",
)
DECAY_EXPERIMENT = Experiment(
    name="decay",
    title="Weight decay",
    section="§5",
    claims=(
        Claim(
            statement="A small amount of weight decay is not merely a regulariser: it reduces the "
            "training error.",
            measure="training error",
            paper="important for the model to learn",
            contrasts=pair("without decay", "with decay"),
        ),
    ),
    settings={
        "cifar10": cifar_setting(
            {"with decay": ("cifar-24", {}), "without decay": ("cifar-24", NO_DECAY)}, seeds=3
        ),
        **photograph_settings(DECAY),
    },
)
TOWERS_EXPERIMENT = Experiment(
    name="towers",
    title="Two GPUs against one",
    section="§3.2",
    claims=(
        Claim(
            statement="Two towers have lower errors than one net with half the kernels in conv1 to "
            "conv4.",
            measure="error, crops",
            paper="1.7 points top-1, 1.2 top-5",
            paper_value=0.017,
            contrasts=pair("one half", "two towers"),
        ),
        Claim(
            statement="Towers that never meet before fc6 have higher errors (network 150 of the "
            "published source).",
            measure="error, crops",
            paper="not in the paper; 1.17 points in the log",
            paper_value=0.0117,
            contrasts=pair("towers apart", "two towers"),
        ),
    ),
    settings=photograph_settings(TOWERS, minutes=300),
)
DEPTH = Experiment(
    name="depth",
    title="Any layer left out",
    section="§7",
    claims=(
        Claim(
            statement="Removing any middle layer costs about 2 % top-1: depth is important.",
            measure="error, crops",
            paper="about 2 points top-1",
            paper_value=0.02,
            contrasts=tuple(Contrast(more=name, less="the whole") for name in WITHOUT),
        ),
    ),
    settings=photograph_settings({"the whole": {}, **WITHOUT}, few=dict.fromkeys(WITHOUT, 1)),
    note="With one seed of each arm but the whole, no difference has an interval: more seeds "
    "(--seeds) make one.",
)
CROPS = Experiment(
    name="crops",
    title="Ten crops against the centre",
    section="§4.1",
    claims=(
        Claim(
            statement="Predictions averaged over ten crops have lower errors than the centre "
            "crop's.",
            measure="crops against centre",
            paper="1.5 points top-1, 1.3 top-5",
            paper_value=0.015,
            over="runs",
        ),
    ),
    note="Read from every other run that sees less than the whole image; the nets for CIFAR-10 are "
    "tested on nine crops.",
)
ENSEMBLE = Experiment(
    name="ensemble",
    title="Five networks averaged",
    section="§6, Table 2",
    claims=(
        Claim(
            statement="The mean of five networks' predictions has lower errors than one network's.",
            measure="one against five",
            paper="2.6 points top-1, 1.8 top-5",
            paper_value=0.026,
            over="images",
        ),
    ),
    settings={
        "cifar10": cifar_setting({"one network": ("cifar-24", {})}),
        "imagenette": imagenette_setting({"one network": {}}, seeds=5, minutes=300),
        "imagenet": imagenet_setting({"one network": {}}, seeds=5),
    },
    special="ensemble",
)
COLOUR_TOWERS = Experiment(
    name="colour-towers",
    title="The towers divide colour",
    section="§6.1, Figure 3",
    claims=(
        Claim(
            statement="In every run, the kernels of one GPU are largely colour-agnostic and those "
            "of the other largely colour-specific.",
            measure="towers that differ",
            paper="every run",
            paper_value=1.0,
            over="runs",
        ),
        Claim(
            statement="Towers that exchange nothing before fc6 divide colour, too.",
            measure="towers apart that differ",
            paper="not in the paper",
            over="runs",
        ),
    ),
    settings=photograph_settings(
        {name: TOWERS[name] for name in ("two towers", "towers apart")}, seeds=5, minutes=300
    ),
    note="Read from every run of two towers of at least 20 epochs: a permutation test of the mean "
    "colour selectivity of conv1's two halves, p ≤ 0.05. The claim holds if all of at least five "
    "runs differ.",
)
NEIGHBOURS = Experiment(
    name="neighbours",
    title="Neighbours by fc7 and by pixels",
    section="§6.1, Figure 4",
    claims=(
        Claim(
            statement="Images near to each other by fc7 share the class far more often than images "
            "near to each other by pixels.",
            measure="precision of six",
            paper="shown by five examples",
            contrasts=pair("fc7", "pixels"),
            over="images",
        ),
        Claim(
            statement="So they do if the query is mirrored or shifted by 16 pixels.",
            measure="precision of six",
            paper="Figure 4: poses differ",
            contrasts=(
                Contrast(more="fc7, mirrored", less="pixels, mirrored"),
                Contrast(more="fc7, shifted", less="pixels, shifted"),
            ),
            over="images",
        ),
    ),
    settings={"imagenette": LOOK_UP, "imagenet": LOOK_UP},
    special="neighbours",
    note="By the weights that ship with the project or that --weights names. Precision is the "
    "share of a validation image's six nearest training images that are of its class.",
)
BASELINE = Experiment(
    name="baseline",
    title="What the field did before",
    section="§6, Table 1",
    claims=(
        Claim(
            statement="The network has lower errors than SIFT features, Fisher vectors and a "
            "linear classifier.",
            measure="error, crops",
            paper="8.2 points top-1, 8.7 top-5",
            paper_value=0.082,
            contrasts=pair("SIFT + Fisher vectors", "the network"),
        ),
    ),
    settings=photograph_settings({"the network": {}}, minutes=300),
    special="baseline",
    note="scikit-image's SIFT and Fisher vectors, scikit-learn's linear SVM, one crop.",
)
AS_RUN_EXPERIMENT = Experiment(
    name="as-run",
    title="As run in 2012",
    section="published source",
    claims=(
        Claim(
            statement="The network and recipe of 2012 have lower errors than the paper's words.",
            measure="error, crops",
            paper="not in the paper",
            contrasts=pair("the paper's words", "as run"),
        ),
        Claim(
            statement="Each of its differences alone lowers the error.",
            measure="error, crops",
            paper="not in the paper",
            contrasts=tuple(Contrast(more="the paper's words", less=p) for p in AS_RUN_PARTS),
        ),
    ),
    settings={
        "imagenette": imagenette_setting(
            AS_RUN_ARMS, PAPER, epochs=45, minutes=600, few=dict.fromkeys(AS_RUN_PARTS, 1)
        ),
        "imagenet": imagenet_setting(AS_RUN_ARMS),
    },
    note="With the paper's schedule for both. The paper gives no recipe for CIFAR-10 that the "
    "authors' could be held against.",
)
START = Experiment(
    name="start",
    title="The first plateau",
    section="§5",
    claims=(
        Claim(
            statement="The paper's start holds the loss at that of guessing for longer than each "
            "change of it.",
            measure="steps on the plateau",
            paper="biases of one accelerate the early stages",
            contrasts=tuple(
                Contrast(more="the paper's start", less=name)
                for name in STARTS
                if name not in ("the paper's start", "biases of zero")
            ),
            ratio=True,
        ),
        Claim(
            statement="Biases of one accelerate the early stages of learning.",
            measure="steps on the plateau",
            paper="accelerates",
            contrasts=pair("biases of zero", "the paper's start"),
            ratio=True,
        ),
    ),
    settings={
        "imagenette": imagenette_setting(
            STARTS, PAPER, epochs=30, minutes=300, plateau=True, sample=200
        ),
        "imagenet": imagenet_setting(STARTS, epochs=3, plateau=True, sample=200),
    },
    note="Steps of 128 images until the mean loss of 20 steps is under 90 % of ln(classes), to "
    "which each run is trained.",
)
CHAIN = Experiment(
    name="chain",
    title="Pretraining on more classes",
    section="§6, Table 2",
    claims=(
        Claim(
            statement="A network with a sixth convolutional layer, pretrained on more classes and "
            "fine-tuned, has lower errors than one trained on the classes alone.",
            measure="error, crops",
            paper="1.7 points top-1, 1.6 top-5",
            paper_value=0.017,
            contrasts=pair("the classes alone", "pretrained, with conv6"),
        ),
    ),
    settings=photograph_settings(
        {"all classes": {}, "all classes, with conv6": {"variant": "conv6"}}, minutes=300
    ),
    special="chain",
    note="A miniature: every second class stands for ILSVRC-2012, all of them for the wider "
    "releases of 2009 and 2011. conv1 to conv5 of a network trained on all classes start one with "
    "conv6 on the same, which starts the network that is fine-tuned on every second class.",
)
EXPERIMENTS: Mapping[str, Experiment] = {
    one.name: one
    for one in (
        *(FIGURE_1, LRN_EXPERIMENT, POOLING, COLOUR_EXPERIMENT, DROPOUT_EXPERIMENT),
        *(DECAY_EXPERIMENT, TOWERS_EXPERIMENT, DEPTH, CROPS, ENSEMBLE, COLOUR_TOWERS),
        *(NEIGHBOURS, BASELINE, AS_RUN_EXPERIMENT, START, CHAIN),
    )
}
