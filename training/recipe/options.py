"""The command line of training: the recipe, the data, and where and how to compute."""

import contextlib
import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from model.formats.cuda_convnet import read_definition
from model.formats.cuda_convnet_layers import CIFAR_SIDE
from model.network.config import CIFAR_NETS, CROP_SIDE, SQUARE_SIDE
from storage.runs import RunFolder
from training.optimisation.precision import Precision
from training.recipe.config import (
    PRESETS,
    SHORT_CIFAR_EPOCHS,
    Preset,
    Recipe,
    RecipeError,
    fit_cifar,
    fit_finetuning,
)
from training.recipe.definition import apply_definition, find_parameter_file
from training.records.hooks import Tracker, check_trackers
from training.records.run_folder import RunError, read_recipe

SCRATCH = "scratch"
"""What --from says for random weights."""
MAX_SMALL_DATASET_IMAGES = 100_000
"""Training sets with fewer images get the preset `small` if no preset is named."""
MAX_SIDE = 1024
"""Side of the images that a network may be trained on, at most."""
BOX_EDGE, BOX_RULE = re.compile(r"[╭╰+]"), re.compile(r"[─-]+")
"""The frame of tyro's error messages, and the lines that divide them."""
SAVED_OPTIONS = (
    "device",
    "precision",
    "tf32",
    "compile",
    "deterministic",
    "prepared_gigabytes",
    "checkpoint_seconds",
    "report_seconds",
    "log",
)
"""Options that run.json keeps beside the recipe; a resumed run uses them again."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train the network of the paper on a folder of photographs.

    The folder holds train/<class>/* and val/<class>/*. Everything is written to the folder named
    by ALEXNET_HOME (default: var): the run's files under runs/, and weights.safetensors, which
    `flask index build` and the application use.
    """

    data: str | None = None
    """The folder; or one with train-*.tar and val-*.tar (webdataset's shards), or a URL of such
    shards, with {split} in place of train and val; or "imagenette", which is downloaded. Default:
    the folder named by ALEXNET_DATA, else the demo photographs."""
    split: float | None = None
    """Share of each class's photographs that is kept for validation, where the folder holds classes
    without train and val; 0.5 is the paper's for ImageNet of Fall 2009. The photographs stay where
    they are: the split is a folder of links in ALEXNET_HOME/splits."""
    split_seed: int = 0
    """Which photographs --split keeps for validation."""
    preset: Preset = "auto"
    """Recipe to start from. auto: finetune with weights to start from (demo for the demo
    photographs), else cifar for the networks for CIFAR-10, small below 100,000 training images,
    demo-from-scratch for the demo photographs, or paper."""
    initial_weights: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """Weights file to start from: fc8 is initialised again for the new classes, of the other layers
    those are kept whose names and shapes fit (the 22,000-class row of Table 2); or "scratch" for
    random weights, as in the paper. Default: below 100,000 training images the weights that ship
    with the project, unless a preset or a variant is named; else scratch."""
    layers: str | None = None
    """A network as its authors defined it: a layer file of cuda-convnet (.cfg). Its rates, momenta
    and weight decays by layer come with it, everything else from the preset: cifar for images of
    up to 32 pixels, else paper."""
    layer_params: str | None = None
    """With --layers: the parameter file. Default: layer-params-NAME.cfg beside layers-NAME.cfg."""
    crop: int = CROP_SIDE
    """With --layers: side of the crop that the network sees, in pixels, which the files do not
    say."""
    side: int | None = None
    """With --layers: side of the images that crops are cut from. Default: 256 for crops of 224,
    else the crop's."""
    towers: int | None = None
    """Processes to split the network over, 1 or 2. Default: 2 on a machine with two or more
    GPUs, for networks that have two towers; else 1."""
    replicas: int = 1
    """Copies of the network that share each batch. This command starts their processes, unless
    torchrun has."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train."""
    precision: Literal["auto"] | Precision = "auto"
    """Precision of the layers' arithmetic; weights, update and softmax stay float32. auto: bf16 if
    the processor supports it; f16, with a scaled loss, on older GPUs that multiply it fast."""
    tf32: bool = False
    """Let an NVIDIA GPU round the factors of float32 products to 11 bits (TF32), which is several
    times as fast."""
    compile: Literal["auto", "on", "off"] = "auto"
    """On a GPU, torch.compile the network; on a CPU, compile the augmentation, response
    normalisation with its neighbours, and the update of the largest layers, from C. auto: if there
    is a compiler and the run is long enough to gain back the time it takes."""
    deterministic: bool = False
    """Make a GPU compute the same numbers every time; a CPU always does."""
    prepared_gigabytes: float = 50.0
    """Store the decoded photographs as raw pixels up to this size, else as JPEG."""
    checkpoint_seconds: float = 300.0
    """Seconds between two checkpoints of half a gigabyte each. A signal saves one at once."""
    report_seconds: float = 5.0
    """Seconds between two lines of steps.jsonl, which the run's page shows."""
    log: tuple[Tracker, ...] = ()
    """Where the numbers go beside the run's files and TensorBoard: wandb (Weights & Biases) or
    mlflow; each needs its extra, as in pip install '.[wandb]'."""
    profile: int = 0
    """Profile this many steps with torch's profiler, after the first three, into profile.json."""
    config: str | None = None
    """A TOML file of flags, without dashes in front: epochs = 20. Each run writes one that repeats
    it, config.toml. Flags beside it override it."""
    seeds: tuple[int, ...] = ()
    """Train once with each of these seeds, one run after the other."""
    ten_crops: bool = True
    """Measure the validation errors with ten crops at the end, beside those of the centre crop."""
    if_needed: bool = False
    """Do nothing if this data has been trained on with this recipe; resume such a run if it was
    interrupted. With --data imagenette and no other recipe the weights that ship with the project
    are used."""
    resume: str | None = None
    """The folder of an interrupted run, to resume from its last checkpoint; of a finished one, to
    train on for as many epochs in all as --epochs says."""
    accept: tuple[str, ...] = ()
    """With --resume: names of values that may differ from those the run started with. Another batch
    size takes effect with the next epoch."""
    recipe: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=Recipe)
    """The recipe; each flag overrides the preset."""

    @property
    def starts_from_weights(self) -> bool:
        """Whether training starts from other weights."""
        return self.initial_weights not in (None, SCRATCH)

    def check_ranges(self) -> None:
        """Raise RecipeError for a value out of range."""
        checks = {
            "towers": self.towers in (None, 1, 2),
            "replicas": self.replicas >= 1,
            "prepared_gigabytes": 0 <= self.prepared_gigabytes < float("inf"),
            "checkpoint_seconds": self.checkpoint_seconds >= 0,
            "report_seconds": self.report_seconds >= 0,
            "profile": self.profile >= 0,
            "seeds": all(0 <= seed < 2**63 for seed in self.seeds),
            "crop": 1 <= self.crop <= MAX_SIDE,
            "split": self.split is None or 0 < self.split < 1,
            "side": self.side is None or self.crop <= self.side <= MAX_SIDE,
        }
        # What a variable of the shell that is not set leaves of a command line.
        named = {"data": self.data, "from": self.initial_weights, "resume": self.resume}
        for name, text in named.items():
            if text == "":
                raise RecipeError(f"--{name} is empty: name a file or folder, or leave it out")
        refused = {
            "--seeds starts new runs: leave it out with --resume": self.seeds,
            "--split is for new runs: --resume keeps the run's photographs": self.split,
            "--layers cannot change a run: --resume keeps the run's network": self.layers,
        }
        for reason, value in refused.items():
            if value and self.resume:
                raise RecipeError(reason)
        check_trackers(self.log)
        if self.accept and not self.resume:
            raise RecipeError("--accept needs --resume: it names what may differ from that run")
        crop = None if self.crop == CROP_SIDE else self.crop
        needing = {"layer_params": self.layer_params, "crop": crop, "side": self.side}
        for name, value in needing.items():
            if value is not None and not self.layers:
                raise RecipeError(f"--{name.replace('_', '-')} needs --layers")
        for name, good in checks.items():
            if not good:
                reason = "; the network has two towers: 1 or 2" if name == "towers" else ""
                flag, value = name.replace("_", "-"), getattr(self, name)
                raise RecipeError(f"--{flag} cannot be {value}{reason}")

    def to_json(self) -> dict[str, Any]:
        """Return the options that run.json keeps."""
        return {name: getattr(self, name) for name in SAVED_OPTIONS}


def parse_options(arguments: Sequence[str]) -> Options:
    """Parse the command line; defaults come from the run to resume, or from the preset named.

    Raises RecipeError for a value out of range, and RunError if the folder to resume is not a
    run's.
    """
    options = parse_flags(arguments)
    if options.resume:
        return parse_flags(
            arguments, read_saved_options(RunFolder(Path(options.resume)), options.preset)
        )
    if options.layers:
        return parse_with_definition(arguments, options)
    if options.preset == "auto":
        return options
    return parse_with_preset(arguments, options.preset)


def parse_with_preset(
    arguments: Sequence[str], preset: str, initial_weights: str | None = None
) -> Options:
    """Parse the command line with a preset's defaults. Raises RecipeError.

    Some presets are fitted to the network or the number of epochs that the command line names.
    """
    recipe = PRESETS[preset]
    options = parse_flags(arguments, Options(recipe=recipe, initial_weights=initial_weights))
    fitted = fit_preset(preset, options.recipe)
    if fitted == recipe:
        return options
    return parse_flags(arguments, Options(recipe=fitted, initial_weights=initial_weights))


def parse_with_definition(arguments: Sequence[str], options: Options) -> Options:
    """Parse the command line with the defaults of a network that files define, and of a preset.

    The files say nothing about epochs, the schedule and the augmentation. Raises RecipeError and
    DefinitionError.
    """
    layer_file = Path(str(options.layers))
    parameter_file = (
        Path(options.layer_params) if options.layer_params else find_parameter_file(layer_file)
    )
    side = options.side or (SQUARE_SIDE if options.crop == CROP_SIDE else options.crop)
    definition = read_definition(layer_file, parameter_file, side=side, crop=options.crop)
    preset: Preset = options.preset
    if preset == "auto":
        preset = "cifar" if side <= CIFAR_SIDE else "paper"
    # Fitted to the number of epochs, but to no network by name.
    named = parse_flags(arguments, Options(recipe=PRESETS[preset])).recipe
    if named.variant != PRESETS[preset].variant:
        raise RecipeError(f"--layers and --variant {named.variant} name two networks")
    recipe = apply_definition(fit_preset(preset, named), definition)
    return replace(parse_flags(arguments, Options(recipe=recipe)), preset=preset)


def fit_preset(preset: str, wanted: Recipe) -> Recipe:
    """Return a preset's recipe for the network and the number of epochs that are wanted."""
    recipe = PRESETS[preset]
    epochs = wanted.epochs if wanted.epochs != recipe.epochs else None
    if preset == "finetune" and epochs is not None:
        return fit_finetuning(epochs)
    if preset == "cifar":
        return fit_cifar(wanted.variant, epochs)
    if preset == "cifar-short":
        published = fit_cifar(wanted.variant).epochs
        return fit_cifar(wanted.variant, epochs or min(SHORT_CIFAR_EPOCHS, published))
    return recipe


def parse_flags(arguments: Sequence[str], default: Options | None = None) -> Options:
    """Parse the command line; what it does not set comes from `default`.

    Raises RecipeError for a value out of range.
    """
    options = parse_in_one_line(arguments, default or Options())
    # Not in __post_init__: tyro would report the error itself, in a box of several lines.
    options.check_ranges()
    return options


def parse_in_one_line(arguments: Sequence[str], default: Options) -> Options:
    """Parse the command line; raise RecipeError where tyro would print a box of several lines."""
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return tyro.cli(Options, args=list(arguments), default=default)
    except SystemExit as error:
        if not error.code:
            raise  # --help
        raise RecipeError(summarise_box(box.getvalue())) from error


def summarise_box(text: str) -> str:
    """Return what tyro's box of an error says, as one line: its first part, and what was meant."""
    lines = [line.strip(" │|") for line in text.splitlines()]
    lines = [line for line in lines if line and not BOX_EDGE.match(line)]
    ends = [n for n, line in enumerate(lines) if BOX_RULE.fullmatch(line)]
    said = " ".join(lines[: ends[0]] if ends else lines).rstrip(".")
    meant = [line.split()[0] for line in lines if line.startswith("--")]
    hint = f"; perhaps you meant {meant[0]}" if "Perhaps you meant:" in lines and meant else ""
    return f"{said}{hint}; --help lists all flags"


def read_saved_options(run: RunFolder, preset: str) -> Options:
    """Return the options that a run was started with.

    Raises RunError if `preset` is another than the run's, or the folder is not a run's.
    """
    recipe, saved = read_recipe(run), run.read_description()
    if preset not in ("auto", saved.get("preset")):
        raise RunError(
            f"{run.path} cannot be resumed with another preset: it was {saved.get('preset')}; "
            "name the values that should differ instead"
        )
    # JSON gives lists.
    options = saved.get("options", {})
    own: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    return Options(
        data=saved.get("data"),
        preset=saved.get("preset", "auto"),
        initial_weights=saved.get("start_file"),
        recipe=recipe,
        **own,
    )


def choose_preset(options: Options, images: int, *, demo: bool) -> tuple[str, str]:
    """Return the preset for a training set of this many images, and the reason."""
    if options.preset != "auto":
        return options.preset, "as named"
    if demo and options.starts_from_weights:
        return "demo", "these are the demo photographs"
    if options.starts_from_weights:
        preset = "finetune-small" if images < MAX_SMALL_DATASET_IMAGES else "finetune"
        return preset, f"{images:,} training images, from {options.initial_weights}"
    if options.recipe.base_network().net in CIFAR_NETS:
        return "cifar", "the network is made for CIFAR-10"
    if demo:
        return "demo-from-scratch", "these are the demo photographs, and there are no weights yet"
    if images < MAX_SMALL_DATASET_IMAGES:
        return "small", f"{images:,} training images are fewer than {MAX_SMALL_DATASET_IMAGES:,}"
    return "paper", f"{images:,} training images"


def choose_data_source(
    options: Options, environ: Mapping[str, str] = os.environ
) -> tuple[str | None, str]:
    """Return what to train on (None: the demo photographs), and the reason."""
    if options.data is not None:
        return options.data, "named by --data"
    if environ.get("ALEXNET_DATA"):
        return environ["ALEXNET_DATA"], "named by ALEXNET_DATA"
    return None, "neither --data nor ALEXNET_DATA is set: the demo photographs"
