"""The documentation against the code: commands, flags, settings, tables, links, names."""

import importlib.util
import io
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import fields
from functools import cache
from pathlib import Path

import click
import pytest
from flask import Flask
from PIL import Image

from app import create_app
from app.config import Settings
from benchmarks.gpu_harness import page as gpu_page
from docs.configuration import PAGE, configuration_page
from index.engines.factory import KINDS, MAX_EXACT_ROWS
from model.formats.model_card import write_model_card
from model.network.architectures import VARIANTS
from model.network.config import AlexNetConfig
from model.weights.checkpoint import Weights, save_weights
from training.compression.options import CompressionOptions
from training.recipe.config import PRESETS, Recipe

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
README, APPLICATION = ROOT / "README.md", ROOT / "docs/application.md"
CODE = ("app", "index", "model", "storage", "training")
FOLDERS = (*CODE, "benchmarks", "docs", "experiments", "templates", "tests")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    home = tmp_path_factory.mktemp("home")
    return create_app(Settings.from_environment({"ALEXNET_HOME": str(home)}))


@cache
def script_help(script: str) -> str:
    """What a script prints for --help."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as out:
        patch.setattr(sys, "argv", [script, "--help"])
        patch.setattr(sys, "path", list(sys.path))  # a script puts the root on it
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / script), run_name="__main__")
    assert ended.value.code in (0, None)
    return out.getvalue()


def shell_lines(page: Path) -> list[str]:
    """Every line of a page's shell blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def code_spans(page: Path) -> list[str]:
    """Every `span of code` outside code blocks."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


def table(page: Path, heading: str) -> list[list[str]]:
    """The rows of the table whose header begins with `heading`."""
    section = page.read_text().split(f"\n| {heading} |", 1)[1].split("\n\n", 1)[0]
    lines = section.splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def commands() -> Iterator[list[str]]:
    """Every command the documentation shows, in a block or a span, split into words."""
    for line in [line for page in PAGES for line in (*shell_lines(page), *code_spans(page))]:
        try:
            words = shlex.split(line)
        except ValueError:
            continue  # a span that is not a command
        if words:
            yield words


def flags(words: list[str]) -> set[str]:
    return {word.split("=")[0] for word in words if word.startswith("--")} - {"--help"}


def test_readme_starts_with_the_two_commands() -> None:
    assert shell_lines(README)[:2] == ["make demo", "make test"]
    check = (ROOT / ".ci/run").read_text()
    assert {"make test", "make lint"} <= {line.strip() for line in check.splitlines()}


def test_make_targets_exist() -> None:
    targets = {words[1] for words in commands() if words[0] == "make" and len(words) > 1}
    targets = {target for target in targets if "=" not in target}
    assert {"demo", "test", "check", "screenshots"} <= targets
    words = ["make", "--dry-run", *targets]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_demo_passes_on_what_it_is_given() -> None:
    words = ["make", "--dry-run", "demo", "WEIGHTS=imagenet", "DATA=my photographs"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert 'deploy/demo.py --data "my photographs"' in done.stdout
    assert '--weights "imagenet"' in done.stdout


def test_flask_commands_and_their_flags_exist(app: Flask) -> None:
    documented = set()
    for words in commands():
        if "flask" not in words[:6] or words[-1] in ("flask", "…"):
            continue
        rest = words[words.index("flask") + 1 :]
        command: click.Command = app.cli
        path = []
        while isinstance(command, click.Group) and rest:
            path.append(rest.pop(0))
            found = command.get_command(click.Context(command), path[-1])
            assert found, words
            command = found
        assert flags(rest) <= options(command), words
        documented.add(" ".join(path))
    groups = [(name, find_command(app, name)) for name in ("index", "weights", "data", "db")]
    assert documented >= {"classify"} | {
        f"{name} {command}"
        for name, group in groups
        if isinstance(group, click.Group)
        for command in group.commands
    }


def options(command: click.Command) -> set[str]:
    return {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}


def test_scripts_and_their_flags_exist() -> None:
    for words in commands():
        if words[0] not in ("python", "torchrun"):
            continue
        scripts = [number for number, word in enumerate(words) if word.endswith(".py")]
        if scripts:
            assert (ROOT / words[scripts[0]]).is_file(), words
            given = flags(words[scripts[0] + 1 :])
            help_text = script_help(words[scripts[0]]) if given else ""
            assert all(re.search(rf"{flag}\b", help_text) for flag in given), words
        elif words[1] == "-m":
            assert importlib.util.find_spec(words[2]), words


def test_training_lists_every_hyperparameter() -> None:
    for hyperparameter in fields(Recipe):
        flag = f"--{hyperparameter.name.replace('_', '-')}"
        assert re.search(rf"{flag}\b", script_help("training/run.py")), flag


def find_command(app: Flask, name: str) -> click.Command:
    """A command of `flask …` by its name."""
    command = app.cli.get_command(click.Context(app.cli), name)
    assert command
    return command


def test_flags_in_the_text_exist(app: Flask) -> None:
    names = ("training/run", "training/evaluate", "training/compress", "training/sets")
    scripts = [f"{name}.py" for name in (*names, "experiments/run")]
    known = "".join(map(script_help, scripts))
    for group in (find_command(app, "index"), find_command(app, "weights")):
        assert isinstance(group, click.Group)
        known += " ".join(flag for command in group.commands.values() for flag in options(command))
    named = {words[0] for words in commands() if words[0].startswith("--")}
    assert {"--preset", "--resume", "--if-needed", "--replicas", "--from"} <= named
    for flag in named - {"--bind"}:  # gunicorn's
        assert re.search(rf"{flag}\b", known), flag


def test_the_example_in_python_runs(
    weights_of: Callable[..., Weights],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    labels = {"a": "ant", "b": "bee", "c": "cat"}
    weights = weights_of(AlexNetConfig(classes=3, crop=67), list(labels), labels=labels)
    save_weights(weights, tmp_path / "weights.safetensors")
    Image.effect_noise((300, 200), 50).convert("RGB").save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    examples = [
        block
        for page in PAGES
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    ]
    assert len(examples) == 2
    assert set(examples) == {examples[0]}
    assert examples[0] in write_model_card(weights)
    exec(examples[0], {})  # noqa: S102
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[1] for line in lines} == {"ant", "bee", "cat"}
    shares = [float(line.split("%")[0]) for line in lines]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.2)


def test_requests_exist(app: Flask) -> None:
    requests = [("GET", row[0].split()[0].strip("`")) for row in table(APPLICATION, "page")]
    for cell, _ in table(APPLICATION, "request"):
        method = "POST" if "POST" in cell else "GET"
        requests += [(method, path) for path in re.findall(r"/[^\s`]+", cell)]
    for line in shell_lines(APPLICATION):
        requests += [("POST", path) for path in re.findall(r"curl .*:8000(/\S+)", line)]
    assert len(requests) > 20
    urls = app.url_map.bind("127.0.0.1:8000")
    for method, path in requests:
        url = path.replace("ID", "1").replace("TOKEN", "A" * 22)
        assert urls.test(url, method), f"{method} {path}"


def test_presets_are_documented() -> None:
    rows = table(ROOT / "docs/training.md", "preset")
    assert [row[0].strip("`") for row in rows] == list(PRESETS)


def test_what_compression_keeps_is_documented() -> None:
    rows = table(ROOT / "docs/training.md", "layers")
    kinds = ("first", "conv", "dense", "last")
    settings = [(kind, getattr(CompressionOptions(weights=ROOT), kind)) for kind in kinds]
    assert [row[1:] for row in rows] == [
        [
            f"{kept.density:.0%}".replace("%", " %"),
            f"{2**kept.bits}",
            f"`--{k}.density`, `--{k}.bits`",
        ]
        for k, kept in settings
    ]


def test_variants_are_documented() -> None:
    assert table(ROOT / "docs/training.md", "variant") == [
        [f"`{name}`", known.description, f"{known.parameters:,}"]
        for name, known in VARIANTS.items()
    ]


def test_kinds_of_index_are_documented() -> None:
    rows = table(ROOT / "docs/index.md", "kind")
    assert [row[0].strip("`") for row in rows] == list(KINDS)
    assert f"{MAX_EXACT_ROWS:,}" in rows[0][2]


def test_configuration_is_current() -> None:
    assert PAGE.read_text() == configuration_page(), "run: python -m docs.configuration"


def test_the_gpu_page_is_current() -> None:
    page = gpu_page.make_page(gpu_page.read_report())
    assert gpu_page.PAGE.read_text() == page, "run: python benchmarks/gpu.py page"


def test_every_variable_is_documented() -> None:
    code = [file for folder in CODE for file in (ROOT / folder).rglob("*.py")]
    named = {name for file in (*code, *PAGES) for name in variables(file.read_text())}
    assert named == variables(configuration_page())


def variables(text: str) -> set[str]:
    return set(re.findall(r"\bALEXNET_\w+|\b(?:DATABASE|INDEX)_URL\b|\bSECRET_KEY\b", text))


def test_every_deviation_is_documented() -> None:
    assert deviations()
    assert table(ROOT / "docs/fidelity.md", "file") == deviations()


def deviations() -> list[list[str]]:
    """File, departure and reason of every `# DEVIATION: … because …` in the code."""
    found = []
    for file in sorted(file for folder in CODE for file in (ROOT / folder).rglob("*.py")):
        for block in re.findall(
            r"# DEVIATION: ((?:.*\n)(?:\s*# (?!DEVIATION).*\n)*)", file.read_text()
        ):
            comment = " ".join(line.strip().lstrip("# ") for line in block.splitlines())
            departure, reason = re.split(r",? because ", comment.rstrip("."), maxsplit=1)
            found.append([f"`{file.relative_to(ROOT).as_posix()}`", departure, reason])
    return found


def test_links_lead_somewhere() -> None:
    links = [(page, to) for page in PAGES for to in re.findall(r"\]\(([^)]+)\)", page.read_text())]
    for page, target in links:
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(file), f"{page.name}: {target}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as a Markdown renderer makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings}


def test_paths_and_names_of_the_code_exist() -> None:
    for page in PAGES:
        text = page.read_text()
        for path in re.findall(rf"(?<![\w/.-])((?:{'|'.join(FOLDERS)})/[\w./-]*\w)", text):
            assert (ROOT / path).exists(), f"{page.name}: {path}"
        for name in re.findall(rf"(?<![\w/.-])((?:{'|'.join(CODE)})(?:\.\w+)+)", text):
            if Path(name).suffix not in (".md", ".sqlite3"):
                assert resolve(name), f"{page.name}: {name}"


def resolve(name: str) -> object:
    """The module, class or function of a dotted name."""
    module, _, attribute = name.rpartition(".")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return getattr(resolve(module), attribute)


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = sum(project["optional-dependencies"].values(), project["dependencies"])
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    names = {re.split(r"[\[=;<> ]", need)[0].lower().replace("-", "_") for need in needed}
    assert names <= {name.lower().replace("-", "_") for name in pinned}


def test_nothing_names_a_registry_or_a_machine() -> None:
    workflows = (ROOT / ".github").rglob("*.yml")
    for file in (*PAGES, *workflows, *map(ROOT.joinpath, ("constraints.txt", "pyproject.toml"))):
        assert not re.search(r"pypi|pythonhosted|index-url|/root/|/home/\w", file.read_text()), file
