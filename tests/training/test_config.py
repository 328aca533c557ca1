"""What a run is told: presets, flags, where the photographs are."""

import pytest

from training.config import (
    DEMO,
    PAPER,
    PRESETS,
    SMALL,
    Job,
    Recipe,
    RecipeError,
    choose_data,
    choose_preset,
    parse,
)


def test_the_preset_follows_the_size_of_the_training_set() -> None:
    assert choose_preset(Job(), 9_469, demo=False)[0] == "small"
    assert choose_preset(Job(), 1_281_167, demo=False)[0] == "paper"
    assert choose_preset(Job(), 672, demo=True)[0] == "demo"
    assert choose_preset(Job(preset="paper"), 100, demo=True) == ("paper", "as named")
    assert "9,469" in choose_preset(Job(), 9_469, demo=False)[1]


def test_presets_depart_from_the_paper_in_what_they_declare_only() -> None:
    def departures(recipe: Recipe) -> set[str]:
        return {name for name, value in vars(recipe).items() if value != vars(PAPER)[name]}

    assert departures(PRESETS["paper"]) == set()
    assert departures(SMALL) == {"init", "input_scale"}
    assert departures(DEMO) == {"init", "input_scale", "batch", "rate", "dropout", "epochs"}


def test_flags_override_the_preset() -> None:
    job = parse(["--data", "x", "--epochs", "3", "--rate", "0.5"], Job(recipe=SMALL))
    assert (job.data, job.recipe.epochs, job.recipe.rate) == ("x", 3, 0.5)
    assert (job.recipe.init, job.recipe.input_scale) == ("he", 60.0)


def test_the_data_is_the_flags_then_the_settings_then_the_demo() -> None:
    there = {"ALEXNET_DATA": "there"}
    assert choose_data(Job(data="here"), there) == ("here", "named by --data")
    assert choose_data(Job(), there) == ("there", "named by ALEXNET_DATA")
    assert choose_data(Job(), {"ALEXNET_DATA": ""})[0] is None
    assert "demo" in choose_data(Job(), {})[1]


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("epochs", "0"),
        ("batch", "-1"),
        ("rate", "nan"),
        ("rate", "inf"),
        ("dropout", "1.5"),
        ("patience", "0"),
        ("input-scale", "0"),
        ("seed", "-3"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_flag(flag: str, value: str) -> None:
    with pytest.raises(RecipeError, match=f"--{flag} cannot be"):
        parse([f"--{flag}={value}"])
