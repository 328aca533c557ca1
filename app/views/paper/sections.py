"""The paper's sections in order: what each says, where it lives in the code, where it is shown."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PaperSection:
    """A section of the paper.

    says: its content in a sentence. code: files of this project. pages: endpoints that show it,
    each with its word in the navigation. experiments: those that measure its claims, by name.
    """

    number: str
    title: str
    says: str
    code: tuple[str, ...]
    pages: tuple[tuple[str, str], ...] = ()
    experiments: tuple[str, ...] = ()


CLASSIFY = ("classify.show_classify_form", "Classify")
EXPLORE = ("explore.show_classes", "Explore")
MAP = ("map.show_map", "Map")
FILTERS = ("filters.show_filters", "Filters")
LAYERS = ("layers.show_layers", "Layers")
FIGURE_4 = ("figure4.show_figure", "Figure 4")
TRAINING = ("training.show_runs", "Training")
MODELS = ("models.show_models", "Models")
SECTIONS = (
    PaperSection(
        number="2",
        title="The dataset",
        says="Images are scaled to 256 on their short side and cut to a square; the mean image of "
        "the training set is subtracted, and nothing else is done to the pixels.",
        code=("model/image/preprocess.py", "training/dataset/prepare.py"),
        pages=(EXPLORE,),
    ),
    PaperSection(
        number="3.1",
        title="ReLU nonlinearity",
        says="Neurons that do not saturate learn several times faster than tanh.",
        code=("model/network/layers.py", "model/network/alexnet.py"),
        pages=(LAYERS,),
        experiments=("figure1",),
    ),
    PaperSection(
        number="3.2",
        title="Training on multiple GPUs",
        says="Half of each layer's kernels lie on either GPU, and the GPUs exchange maps in "
        "certain layers only.",
        code=(
            "model/network/towers.py",
            "model/network/architectures.py",
            "training/distributed/mesh.py",
        ),
        pages=(LAYERS, FILTERS),
        experiments=("towers",),
    ),
    PaperSection(
        number="3.3",
        title="Local response normalisation",
        says="Each response is divided by a sum over adjacent maps at the same place, a form of "
        "lateral inhibition.",
        code=("model/network/lrn.py",),
        pages=(LAYERS,),
        experiments=("lrn",),
    ),
    PaperSection(
        number="3.4",
        title="Overlapping pooling",
        says="Pooling windows of 3 × 3 that lie 2 apart overlap, which makes it slightly harder to "
        "overfit.",
        code=("model/network/layers.py",),
        experiments=("pooling",),
    ),
    PaperSection(
        number="3.5",
        title="Overall architecture",
        says="Five convolutional and three fully connected layers, 60 million parameters.",
        code=("model/network/alexnet.py", "model/network/config.py"),
        pages=(LAYERS, MODELS),
        experiments=("as-run",),
    ),
    PaperSection(
        number="4.1",
        title="Data augmentation",
        says="Random crops and mirror images enlarge the training set, colour noise along the "
        "principal components changes it, and ten crops are averaged in the test.",
        code=("training/batches/augment.py", "model/image/ten_crop.py"),
        pages=(CLASSIFY,),
        experiments=("colour", "crops"),
    ),
    PaperSection(
        number="4.2",
        title="Dropout",
        says="Half of the neurons of fc6 and fc7 are set to zero at each step, which stops them "
        "from relying on each other.",
        code=("model/network/layers.py", "model/network/counter_rng.py"),
        experiments=("dropout",),
    ),
    PaperSection(
        number="5",
        title="Details of learning",
        says="Stochastic gradient descent with momentum and a little weight decay, small random "
        "weights and biases of one, the rate divided by ten at plateaus.",
        code=(
            "training/optimisation/sgd.py",
            "training/recipe/schedule.py",
            "training/recipe/config.py",
        ),
        pages=(TRAINING,),
        experiments=("decay", "start"),
    ),
    PaperSection(
        number="6",
        title="Results",
        says="The network's errors are far below those of the methods before it, and fall further "
        "with several networks and with pretraining on more classes.",
        code=("training/evaluate.py", "training/optimisation/validate.py"),
        pages=(TRAINING, MODELS),
        experiments=("baseline", "ensemble", "chain"),
    ),
    PaperSection(
        number="6.1",
        title="Qualitative evaluations",
        says="conv1's kernels divide into colour-agnostic and colour-specific ones, one kind on "
        "each GPU, and images near in fc7 show the same kind of thing.",
        code=("model/visualization/kernels.py", "index/search.py", "app/views/figure4/page.py"),
        pages=(FILTERS, FIGURE_4, MAP),
        experiments=("colour-towers", "neighbours"),
    ),
    PaperSection(
        number="7",
        title="Discussion",
        says="Depth matters: the network is worse without any one of its layers.",
        code=("model/network/architectures.py",),
        experiments=("depth",),
    ),
)
"""Sections 1 and 8 on have nothing to measure."""
