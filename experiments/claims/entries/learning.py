"""The experiments on how it learns: §4 and §5."""

from experiments.claims.experiment import Claim, Contrast, Experiment
from experiments.claims.recipes import (
    Changes,
    cifar_setting,
    define_cifar_with_dropout,
    define_start,
    imagenet_setting,
    imagenette_setting,
    pair,
    photograph_settings,
)
from training.recipe.config import PAPER, SMALL

COLOUR: Changes = {"with colour noise": {}, "without": {"colour_noise": 0.0}}
DROPOUT: Changes = {"with dropout": {}, "without dropout": {"variant": "no-dropout"}}
DECAY: Changes = {"with decay": {}, "without decay": {"decay": 0.0}}
NO_DECAY = {"decay": 0.0, "conv_decay": None, "layer_decays": ()}
STARTS: Changes = {
    "the paper's start": {},
    "biases of zero": define_start(biases=False),
    "σ of 0.03 in conv3 to conv5": define_start(sigma=0.03),
    "biases' rate of 0.02": {"bias_rate": 0.02},
    "no dropout": {"variant": "no-dropout"},
    "no LRN": {"variant": "no-lrn"},
    "He's weights": {"init": "he", "input_scale": SMALL.input_scale},
}
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
