"""A run's configuration as a file: read, overridden, and written so that it repeats the run."""

import tomllib
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest

from model.weights.checkpoint import load_weights
from storage.runs import RunFolder
from training.recipe.config import PRESETS, RecipeError
from training.recipe.config_file import expand_config, format_config
from training.recipe.options import Options, parse_options

WORDS = ("--variant", "cifar-80sec", "--batch", "12", "--epochs", "2", "--precision", "f32")
RunTraining = Callable[..., tuple[str, str]]


def write(tmp_path: Path, text: str) -> str:
    file = tmp_path / "recipe.toml"
    file.write_text(text)
    return str(file)


def test_a_file_stands_for_flags_and_flags_override_it(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        'preset = "small"\nepochs = 7\nbatch = 32\ncompile = "off"\nten-crops = false\n'
        'layer-rates = ["conv1=0.1", "fc8=10"]\nbias-rate = "None"\nfrom = "scratch"\n',
    )
    options = parse_options(expand_config(["--config", file, "--batch", "16"]))
    expected = replace(
        PRESETS["small"], epochs=7, batch=16, layer_rates=("conv1=0.1", "fc8=10"), bias_rate=None
    )
    assert options.recipe == expected
    assert (options.compile, options.ten_crops) == ("off", False)
    assert options.initial_weights == "scratch"
    assert parse_options(expand_config([f"--config={file}"])).recipe.batch == 32


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epochs = 3\nepcohs = 4\n", "epcohs is not a setting"),
        ("epochs = \n", "cannot be read"),
        ("[epochs]\n", "epochs cannot be"),
    ],
)
def test_a_file_with_a_mistake_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(RecipeError, match=said) as refused:
        expand_config(["--config", file])
    assert file in str(refused.value)
    with pytest.raises(RecipeError, match="cannot be read: No such file"):
        expand_config(["--config", str(tmp_path / "none.toml")])


@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_written_of_any_recipe_reads_back(tmp_path: Path, preset: str) -> None:
    recipe = replace(PRESETS[preset], epochs=11, seed=5, drop_after=(), bias_rate=None)
    text = format_config(Options(data='/a "b"/ö', recipe=recipe, log=()), preset)
    options = parse_options(expand_config(["--config", write(tmp_path, text)]))
    assert options.recipe == recipe
    assert (options.data, options.preset) == ('/a "b"/ö', preset)
    assert {f.name.replace("_", "-") for f in fields(recipe)} <= tomllib.loads(text).keys()


def test_the_file_of_a_run_repeats_it_and_seeds_make_a_run_each(
    run_training: RunTraining, tmp_path: Path
) -> None:
    run_training(tmp_path / "two", *WORDS, "--seeds", "3", "4")
    runs = sorted((tmp_path / "two/runs").iterdir())
    seeds = [RunFolder(run).read_description()["recipe"]["seed"] for run in runs]
    assert seeds == [3, 4]
    identities = [load_weights(RunFolder(run).weights).identity for run in runs]
    assert identities[0] != identities[1]
    run_training(tmp_path / "again", "--config", runs[0] / "config.toml")
    (again,) = (tmp_path / "again/runs").iterdir()
    assert load_weights(RunFolder(again).weights).identity == identities[0]
