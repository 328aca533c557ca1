"""What a run is told: presets, flags, where the photographs are."""

from dataclasses import fields, replace

import pytest
import torch

from model.network.alexnet import AlexNet
from model.network.architectures import VARIANTS
from training.optimisation.sgd import group_parameters
from training.recipe.config import (
    CIFAR,
    DEMO,
    DEMO_FROM_SCRATCH,
    ORIGINAL,
    PAPER,
    PRESETS,
    SMALL,
    Recipe,
    RecipeError,
)
from training.recipe.options import (
    Options,
    choose_data_source,
    choose_preset,
    parse_flags,
    parse_options,
)


def test_the_preset_follows_the_size_of_the_training_set() -> None:
    assert choose_preset(Options(), 9_469, demo=False)[0] == "small"
    assert choose_preset(Options(), 1_281_167, demo=False)[0] == "paper"
    assert choose_preset(Options(initial_weights="file"), 672, demo=True)[0] == "demo"
    assert choose_preset(Options(initial_weights="file"), 9_469, demo=False)[0] == "finetune-small"
    assert choose_preset(Options(initial_weights="file"), 1_281_167, demo=False)[0] == "finetune"
    assert choose_preset(Options(initial_weights="scratch"), 9_469, demo=False)[0] == "small"
    assert choose_preset(Options(initial_weights="scratch"), 672, demo=True)[0] == (
        "demo-from-scratch"
    )
    assert choose_preset(Options(), 672, demo=True)[0] == "demo-from-scratch"
    assert choose_preset(Options(preset="paper"), 100, demo=True) == ("paper", "as named")
    assert "9,469" in choose_preset(Options(), 9_469, demo=False)[1]


def decays_of(recipe: Recipe) -> dict[str, float]:
    """The weight decay of every layer of the recipe's network."""
    with torch.device("meta"):
        network = AlexNet(recipe.network(10))
    named = {id(p): name for name, p in network.named_parameters()}
    groups = group_parameters(network, recipe)
    decays = {named[id(p)]: group.decay for group in groups for p in group.parameters}
    assert {decay for name, decay in decays.items() if name.endswith("bias")} == {0.0}
    return {k.removesuffix(".weight"): v for k, v in decays.items() if k.endswith("weight")}


CIFAR_DECAYS = {
    # ORIGINAL.md: 0.004 on the local and fc layers of "13 %", 0 on the convolutions; "11 %" with
    # 0.01 on fc10; "18 %" with 1 on fc10.
    "13 %": {"conv1": 0, "conv2": 0, "local3": 0.004, "local4": 0.004, "fc10": 0.004},
    "11 %": {"conv1": 0, "conv2": 0, "local3": 0.004, "local4": 0.004, "fc10": 0.01},
    "18 %": {"conv1": 0.004, "conv2": 0.004, "conv3": 0.004, "fc10": 1},
    "80sec": {"conv1": 0.004, "conv2": 0.004, "conv3": 0.004, "fc64": 0.03, "fc10": 0.03},
}


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name.startswith("cifar")])
def test_nets_for_cifar_learn_as_their_authors_published(variant: str) -> None:
    job = Options(recipe=replace(PAPER, variant=variant))
    assert choose_preset(job, 50_000, demo=False)[0] == "cifar"
    recipe = parse_options(["--preset", "cifar", "--variant", variant]).recipe
    # ORIGINAL.md: rates 0.001, biases 0.002, momentum 0.9.
    assert (recipe.rate, recipe.bias_rate, recipe.momentum) == (0.001, 0.002, 0.9)
    published = {"cifar-18pct": "18 %", "cifar-80sec": "80sec"}
    kind = published.get(variant, "11 %" if "lrn" in variant else "13 %")
    assert decays_of(recipe) == CIFAR_DECAYS[kind]


def test_the_preset_for_cifar_has_the_published_phases() -> None:
    assert (CIFAR.epochs, CIFAR.hold_out, CIFAR.hold_out_until) == (520, 0.2, 350)
    # Nine offsets in each direction; no colours.
    augmentation = CIFAR.augmentation(CIFAR.network(10))
    assert (augmentation.crop, augmentation.count_offsets(32)) == (24, 9)
    assert (augmentation.mirrors, augmentation.colour_noise) == (True, 0.0)
    held = [CIFAR.held_out(epoch) for epoch in (1, 350, 351, 520)]
    assert held == [0.2, 0.2, 0, 0]


def test_a_shorter_run_has_the_same_phases() -> None:
    short = parse_options(["--preset", "cifar-short"]).recipe
    assert (short.epochs, short.hold_out_until, short.drop_after) == (52, 35, (50, 51))
    fitted = parse_options(["--preset", "cifar", "--epochs", "104"]).recipe
    assert (fitted.epochs, fitted.hold_out_until, fitted.drop_after) == (104, 70, (100, 102))
    lrn = parse_options(["--preset", "cifar-short", "--variant", "cifar-lrn-24"]).recipe
    assert (lrn.variant, lrn.epochs, lrn.layer_decays) == ("cifar-lrn-24", 52, ("fc10=0.01",))
    one = parse_options(["--preset", "cifar", "--epochs", "1"]).recipe
    assert (one.epochs, one.hold_out_until) == (1, 1)


def test_figure_1_has_no_regularisation_of_any_kind() -> None:
    for variant in ("cifar", "cifar-tanh"):
        recipe = parse_options(["--preset", "figure-1", "--variant", variant]).recipe
        config = recipe.network(10)
        assert set(decays_of(recipe).values()) == {0.0}
        assert (config.lrn, config.dropout, recipe.smoothing, recipe.hold_out) == (False, 0, 0, 0)
        augmentation = recipe.augmentation(config)
        assert (augmentation.count_offsets(config.side), augmentation.mirrors) == (1, False)
        assert (augmentation.colour_noise, augmentation.smallest_area) == (0, None)


def departures(recipe: Recipe) -> set[str]:
    return {name for name, value in vars(recipe).items() if value != vars(PAPER)[name]}


def test_presets_depart_from_the_paper_in_what_they_declare_only() -> None:
    assert departures(PRESETS["paper"]) == set()
    assert departures(SMALL) == {
        *("init", "input_scale", "epochs", "batch"),
        *("schedule", "warmup", "crops", "smoothing"),
    }
    started = {"batch", "rate", "dropout", "epochs"}
    assert departures(DEMO_FROM_SCRATCH) == started | {"init", "input_scale"}
    assert departures(DEMO) == started | {"freeze_conv", "momentum", "schedule"}


def test_as_run_in_2012_every_difference_is_a_field() -> None:
    assert departures(ORIGINAL) == {
        "variant",
        "epochs",
        "bias_rate",
        "bias_decay",
        "drop_after",
        "slow_conv1_after",
        "freeze_conv1_after",
        "colour",
        "colour_until",
        "sharing",
        "all_offsets",
        "fixed_order",
    }
    net = ORIGINAL.network(1000)
    assert net.net == "original"
    augmentation = ORIGINAL.augmentation(net)
    assert (augmentation.sharing, augmentation.inclusive, augmentation.divisor) == (32, True, 1.1)


def test_flags_override_the_preset() -> None:
    job = parse_flags(["--data", "x", "--epochs", "3", "--rate", "0.5"], Options(recipe=SMALL))
    assert (job.data, job.recipe.epochs, job.recipe.rate) == ("x", 3, 0.5)
    assert (job.recipe.init, job.recipe.input_scale) == ("he", SMALL.input_scale)


def test_every_number_of_the_recipe_has_its_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_flags(["--help"])
    helped = capsys.readouterr().out
    for field in fields(Recipe):
        assert f"--{field.name.replace('_', '-')}" in helped


def test_the_data_is_the_flags_then_the_settings_then_the_demo() -> None:
    there = {"ALEXNET_DATA": "there"}
    assert choose_data_source(Options(data="here"), there) == ("here", "named by --data")
    assert choose_data_source(Options(), there) == ("there", "named by ALEXNET_DATA")
    assert choose_data_source(Options(), {"ALEXNET_DATA": ""})[0] is None
    assert "demo" in choose_data_source(Options(), {})[1]


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("epochs", "0"),
        ("batch", "-1"),
        ("rate", "nan"),
        ("rate", "inf"),
        ("bias-rate", "0"),
        ("momentum", "1"),
        ("decay", "-0.1"),
        ("conv-decay", "nan"),
        ("drops", "-1"),
        ("dropout", "1.5"),
        ("patience", "0"),
        ("drop-after", "0"),
        ("slow-conv1-after", "0"),
        ("freeze-conv1-after", "-2"),
        ("colour-noise", "-1"),
        ("sharing", "0"),
        ("fall", "0.5"),
        ("hold-out", "1"),
        ("hold-out-until", "0"),
        ("layer-decays", "fc10=-1"),
        ("layer-decays", "fc10.bias=1"),
        ("layer-momenta", "fc10=1"),
        ("layer-bias-rates", "fc10"),
        ("definition", "{}"),
        ("input-scale", "0"),
        ("seed", "-3"),
        ("variant", "vgg"),
        ("towers", "3"),
        ("replicas", "0"),
        ("prepared-gigabytes", "-1"),
        ("checkpoint-seconds", "nan"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_flag(
    flag: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RecipeError, match=f"--{flag} cannot be"):
        parse_flags([f"--{flag}={value}"])
    assert capsys.readouterr() == ("", "")


def test_an_unknown_variant_is_told_the_known_ones() -> None:
    with pytest.raises(RecipeError) as refused:
        parse_flags(["--variant", "vgg"])
    assert all(name in str(refused.value) for name in VARIANTS)
