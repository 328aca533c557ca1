"""The experiments on what it comes to: §6."""

from experiments.claims.experiment import Claim, Contrast, Experiment, Setting
from experiments.claims.pooled import APART_DIFFER, HALVES_DIFFER, TOGETHER_DIFFER
from experiments.claims.recipes import (
    TOWERS,
    cifar_setting,
    imagenet_setting,
    imagenette_setting,
    pair,
    photograph_settings,
)

LOOK_UP = Setting(make_arms=lambda _: {}, epochs=0, seeds=1, minutes=30)
"""Nothing is trained."""
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
            measure=TOGETHER_DIFFER,
            paper="every run",
            paper_value=1.0,
            over="runs",
        ),
        Claim(
            statement="Towers that exchange nothing before fc6 divide colour, too.",
            measure=APART_DIFFER,
            paper="not in the paper",
            over="runs",
        ),
        Claim(
            statement="The halves of conv1 of one GPU's net, between which nothing stands, do not "
            "differ.",
            measure=HALVES_DIFFER,
            paper="not in the paper",
            over="runs",
        ),
    ),
    settings=photograph_settings(TOWERS, seeds=5, minutes=600),
    special="kernels",
    note="Read from every run of at least 20 epochs: a permutation test of the mean colour "
    "selectivity of conv1's two halves, p ≤ 0.05. Of at least five runs, a claim holds if all "
    "differ, or, of the halves of one tower, none.",
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
    note="SIFT on a grid at four scales (OpenCV), Fisher vectors (scikit-image), a linear SVM "
    "(scikit-learn), of the whole image.",
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
