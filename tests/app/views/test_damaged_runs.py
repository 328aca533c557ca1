"""The pages of runs against damaged files of runs and evaluations."""

import json
import shutil
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.home import Home
from storage.runs import Epoch, RunFolder
from training.recipe.config import PAPER

values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8)
    | st.sampled_from(["/", "..", "\0", "\ud800", "paper", 1e308, 5e-324, 10**400, "a" * 2000]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)  # fmt: skip
epochs = st.fixed_dictionaries(
    {"epoch": st.integers(1, 50) | values},
    optional={field.name: values for field in fields(Epoch) if field.name != "epoch"},
)
runs = st.fixed_dictionaries(
    {"finished": st.booleans()},
    optional={
        **dict.fromkeys(("preset", "data", "from", "weights", "ten_crops", "options"), values),
        "recipe": values | st.fixed_dictionaries({}, optional=dict.fromkeys(asdict(PAPER), values)),
    },
)
machines = st.fixed_dictionaries({}, optional=dict.fromkeys(("processor", "versions"), values))


def rate(wrong: int) -> dict[str, float]:
    """An error of six images, as a file has it."""
    return {"wrong": wrong, "images": 6, "error": wrong / 6, "low": 0.0, "high": 1.0}


MISTAKE = {
    "path": "val/cat/1.jpg",
    "true": "cat",
    "true_label": "a cat",
    "true_probability": 0.2,
    "guess": "dog",
    "guess_label": "a dog",
    "probability": 0.75,
    "rank": 2,
}
RESULT = {
    "name": "it",
    "crops": "ten",
    "top1": rate(1),
    "top5": rate(0),
    "classes": [],
    "confusion": {"cat": {"cat": 3, "dog": 1}},
    "mistakes": [MISTAKE],
}
MODEL = {
    "name": "it",
    "identity": "known",
    "classes": 2,
    "side": 256,
    "crop": 224,
    "preset": "demo",
    "epochs": 5,
    "images": 9,
}
DATA = {
    "folder": "x",
    "layout": "split",
    "split": "val",
    "images": 6,
    "classes": 2,
    "unreadable": [],
    "unknown": {},
}


def damaged(content: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """The content of a file with up to one value replaced, or missing."""
    exchanged = st.tuples(st.sampled_from(sorted(content)), values).map(
        lambda pair: content | {pair[0]: pair[1]}
    )
    missing = st.sampled_from(sorted(content)).map(
        lambda name: {k: v for k, v in content.items() if k != name}
    )
    return st.just(content) | exchanged | missing


evaluations = st.fixed_dictionaries(
    {
        "format": st.just(1),
        "models": st.tuples(damaged(MODEL)) | values,
        "results": values
        | st.lists(
            damaged(RESULT)
            | damaged(MISTAKE).map(lambda mistake: RESULT | {"mistakes": [mistake]}),
            max_size=3,
        ),
        "data": st.just(DATA) | damaged(DATA),
        "precision": st.just("f32") | values,
        "labels": st.just({"cat": "a cat"}) | values,
        "differences": st.just([]) | values,
    },
    optional=dict.fromkeys(("created", "root"), values),
)


@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(runs, st.lists(epochs, max_size=4), machines, evaluations, st.binary(max_size=8))
def test_no_content_of_the_files_breaks_a_page(
    tmp_path: Path,
    empty: FlaskClient,
    description: Any,
    lines: list[Any],
    machine: Any,
    evaluation: Any,
    tail: bytes,
) -> None:
    home = Home(root=tmp_path / "home")
    shutil.rmtree(home.runs, ignore_errors=True)
    shutil.rmtree(home.evaluations, ignore_errors=True)
    other, folder = RunFolder(home.runs / "other"), home.runs / "run"
    for run in (other.path, folder):
        run.mkdir(parents=True)
    other.update_description(preset="demo", recipe=asdict(PAPER))
    home.evaluations.mkdir()
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "epochs.jsonl").write_bytes(text.encode() + tail)
    (folder / "run.json").write_text(json.dumps({"weights": "known", **description}))
    (folder / "environment.json").write_text(json.dumps(machine))
    (home.evaluations / "it.json").write_text(json.dumps(evaluation))
    for address in (
        "",
        "/run",
        "/compare?run=run&run=other",
        "/evaluations/it/0/0/picture.jpg",
    ):
        answer = empty.get(f"/training{address}")
        assert answer.status_code in (200, 404)
        assert answer.status_code == 200 or "evaluations" in address
