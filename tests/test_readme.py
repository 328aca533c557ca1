"""The README against the code: its commands, its settings, its table of deviations."""

import re
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path

from app import create_app
from app.config import Settings
from index.engines.factory import KINDS
from index.engines.kinds import EXACT_ROWS
from model.variants import VARIANTS
from training.config import PRESETS, Recipe

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
SCRIPTS = (
    "training/evaluate.py",
    "benchmarks/training.py",
    "benchmarks/index.py",
    "benchmarks/codes.py",
)
ROOMS = ("model", "training", "index", "app")


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its two header lines."""
    section = README.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def commands() -> list[str]:
    """Every line of the README's shell blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def deviations() -> list[list[str]]:
    """File, departure and reason of every `# DEVIATION: … because …` in the code."""
    found = []
    for file in sorted(f for room in ROOMS for f in (ROOT / room).rglob("*.py")):
        text = file.read_text()
        for block in re.findall(r"# DEVIATION: ((?:.*\n)(?:\s*# .*\n)*)", text):
            said = " ".join(line.strip().lstrip("# ") for line in block.splitlines())
            departure, reason = re.split(r",? because ", said.rstrip("."), maxsplit=1)
            found.append([f"`{file.relative_to(ROOT).as_posix()}`", departure, reason])
    return found


def test_the_first_two_commands() -> None:
    assert commands()[:2] == ["make demo", "make test"]
    assert "make test" in (ROOT / ".ci/run").read_text().splitlines()


def test_make_knows_every_target() -> None:
    named = {line.split()[1] for line in commands() if line.startswith("make ")}
    named |= set(re.findall(r"`make (\w+)`", README))
    assert named == {"demo", "test", "check", "screenshots"}
    for target in named:
        words = ["make", "--dry-run", target]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_flask_knows_every_command() -> None:
    groups = create_app_commands()
    named = set(re.findall(r"`flask ([a-z]+ [a-z]+)", README))
    lines = [line.split()[1:] for line in commands() if line.startswith("flask ")]
    named |= {" ".join(words[: 1 if words[0] == "classify" else 2]) for words in lines}
    assert named == groups | {"classify"}


def create_app_commands() -> set[str]:
    cli = create_app().cli
    own = (cli.commands[name] for name in ("index", "db"))
    return {f"{group.name} {name}" for group in own for name in group.commands}  # type: ignore[attr-defined]


def test_training_knows_every_flag() -> None:
    said = help_of("training/run.py")
    elsewhere = "".join(help_of(f) for f in SCRIPTS) + help_of_flask("index", "build")
    named = set(re.findall(r"`(--[a-z-]+)[` ]", README))
    assert {"--preset", "--resume", "--if-needed", "--replicas", "--from"} <= named
    for flag in named - {"--help"}:
        assert flag in said + elsewhere
    for line in commands():
        if "training/run.py" in line:
            for flag in re.findall(r"--[a-z-]+", line.split("training/run.py", 1)[1]):
                assert flag in said
    for known in fields(Recipe):
        assert f"--{known.name.replace('_', '-')}" in said


def test_the_presets() -> None:
    section = README.split("| preset |", 1)[1].split("\n\n", 1)[0]
    assert re.findall(r"^\| `(\w+)`", section, re.MULTILINE) == list(PRESETS)


def test_the_variants() -> None:
    section = README.split("| variant |", 1)[1].split("\n\n", 1)[0]
    found = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("| `")
    ]
    assert found == [
        [f"`{name}`", known.what, f"{known.parameters:,}"] for name, known in VARIANTS.items()
    ]


def test_scripts_know_every_flag() -> None:
    for script in SCRIPTS:
        done = help_of(script)
        for line in commands():
            if f" {script}" in line:
                for flag in re.findall(r"--[a-z-]+", line):
                    assert flag in done, (script, flag)


def help_of(script: str) -> str:
    """What a script says of its flags."""
    words = [sys.executable, script, "--help"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def help_of_flask(*command: str) -> str:
    """What a command of the application says of its flags."""
    done = create_app().test_cli_runner().invoke(args=[*command, "--help"])
    assert done.exit_code == 0
    return done.stdout


def test_flask_knows_every_flag() -> None:
    for line in commands():
        for words in (("index", "build"), ("classify",)):
            command = " ".join(words)
            if f"flask {command}" in line:
                said = help_of_flask(*words)
                for flag in re.findall(r"--[a-z-]+", line.split(command, 1)[1]):
                    assert flag in said


def test_the_kinds_of_index() -> None:
    section = README.split("| kind | what", 1)[1].split("\n\n", 1)[0]
    assert re.findall(r"^\| `(\w+)`", section, re.MULTILINE) == list(KINDS)
    assert f"up to {EXACT_ROWS:,}" in section


def test_every_setting_stands_with_its_default_and_its_help() -> None:
    said = {row[0].strip("`"): row[1:] for row in rows("Settings")}
    data = said.pop("ALEXNET_DATA")
    assert "--data" in data[1]
    known = {
        setting.metadata["env"]: [
            "" if setting.default in (MISSING, "") else plain(setting.default),
            setting.metadata["help"],
        ]
        for setting in fields(Settings)
    }
    assert said == known


def plain(value: object) -> str:
    """A default as people set it."""
    if isinstance(value, tuple):
        return " ".join(value)
    return str(int(value) if isinstance(value, bool) else value)


def test_every_deviation_is_declared_in_both_places() -> None:
    assert deviations()
    assert rows("Where it departs from the paper") == deviations()


def test_nothing_names_a_package_registry() -> None:
    for file in (ROOT / "README.md", ROOT / "constraints.txt", ROOT / "pyproject.toml"):
        assert not re.search(r"pypi|pythonhosted|index-url", file.read_text())
