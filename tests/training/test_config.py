"""What a run is told: presets, flags, where the photographs are."""

from dataclasses import fields, replace

import pytest

from model.architectures import VARIANTS
from training.config import (
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
from training.options import Options, choose_data_source, choose_preset, parse_flags


def test_the_preset_follows_the_size_of_the_training_set() -> None:
    assert choose_preset(Options(), 9_469, demo=False)[0] == "small"
    assert choose_preset(Options(), 1_281_167, demo=False)[0] == "paper"
    assert choose_preset(Options(initial_weights="file"), 672, demo=True)[0] == "demo"
    assert choose_preset(Options(initial_weights="file"), 9_469, demo=False)[0] == "finetune"
    assert choose_preset(Options(initial_weights="scratch"), 9_469, demo=False)[0] == "small"
    assert choose_preset(Options(initial_weights="scratch"), 672, demo=True)[0] == (
        "demo-from-scratch"
    )
    assert choose_preset(Options(), 672, demo=True)[0] == "demo-from-scratch"
    assert choose_preset(Options(preset="paper"), 100, demo=True) == ("paper", "as named")
    assert "9,469" in choose_preset(Options(), 9_469, demo=False)[1]


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name.startswith("cifar")])
def test_nets_for_cifar_get_the_rates_their_authors_published(variant: str) -> None:
    job = Options(recipe=replace(PAPER, variant=variant))
    assert choose_preset(job, 50_000, demo=False)[0] == "cifar"
    # ORIGINAL.md: rates 0.001, biases 0.002, momentum 0.9, decay 0.004 on the local and fc
    # layers, 0 on the convolutions.
    assert (CIFAR.rate, CIFAR.bias_rate, CIFAR.momentum) == (0.001, 0.002, 0.9)
    assert (CIFAR.decay, CIFAR.conv_decay) == (0.004, 0.0)


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
