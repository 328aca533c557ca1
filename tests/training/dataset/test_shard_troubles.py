"""Names with dots in shards, stores that do not answer, and URLs with secrets."""

import io
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from storage.home import Home
from training.dataset import shards
from training.dataset.find_source import find_source
from training.dataset.prepare import PreparedDataset, UnfinishedError, prepare
from training.dataset.shards import Shards, read_shard
from training.recipe.config import PAPER
from training.recipe.config_file import format_config
from training.recipe.options import Options
from training.records.reporting import write_environment
from training.records.run_folder import RunSpec, create_run, hide_query, shorten_name


def picture(grey: int) -> bytes:
    out = io.BytesIO()
    Image.new("L", (40, 40), grey).save(out, "PNG")
    return out.getvalue()


def write_shards(root: Path, keys: list[str], others: dict[str, bytes] | None = None) -> Path:
    """Two shards with a picture and a class, in turn 0 and 1, for each key."""
    root.mkdir()
    for split in ("train", "val"):
        with tarfile.open(root / f"{split}-0.tar", "w") as tar:
            members = dict(others or {})
            for number, key in enumerate(keys):
                members |= {f"{key}.png": picture(10 * number), f"{key}.cls": b"%d" % (number % 2)}
            for name, data in sorted(members.items()):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return root


def prepare_shards(root: Path) -> PreparedDataset:
    source = find_source(str(root))
    return prepare(source, root / "store", lambda _count: None, side=32)


@pytest.mark.parametrize(
    "keys",
    [
        ["a", "b", "IMG_2024.05.01_x", "IMG_2024.05.02_x"],
        ["IMG.1", "IMG.2", "IMG.10", "PIC.1"],
        ["a", "a.1", "a.2", "b"],
    ],
)
def test_every_photograph_is_taken_whatever_dots_its_name_has(
    tmp_path: Path, keys: list[str]
) -> None:
    found = prepare_shards(write_shards(tmp_path / "shards", keys))
    images = found.train.read(np.arange(len(found.train)))
    pixels = dict(zip(images[:, 0, 0, 0].tolist(), found.train.classes.tolist(), strict=True))
    assert pixels == {10 * number: number % 2 for number in range(len(keys))}


def test_a_mask_beside_a_photograph_is_none(tmp_path: Path) -> None:
    masks = {"a.seg.png": picture(200), "b.seg.png": picture(201)}
    found = prepare_shards(write_shards(tmp_path / "shards", ["a", "b"], masks))
    assert len(found.train) == 2


def test_a_store_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "STALL_SECONDS", 0.2)
    # A shell that waits for its command, as that of gsutil does.
    with pytest.raises(UnfinishedError, match="does not answer: nothing came for") as said:
        list(read_shard("pipe:sleep 1000; true"))
    assert "\n" not in str(said.value)


URL = "https://user:pass@host/{split}-{000..146}.tar?X-Amz-Signature=SECRET#x"


def test_what_a_url_may_hide_is_written_nowhere(
    tiny: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hide_query(URL) == "https://host/{split}-{000..146}.tar"
    assert hide_query("/a folder?/x") == "/a folder?/x"
    data = PreparedDataset(**{**vars(tiny), "root": URL})
    run = create_run(Home(root=tmp_path), RunSpec(data, PAPER), "paper")
    assert run.path.name.endswith("-paper-{split}-{000..146}.tar")
    for secret in ("SECRET", "pass"):
        assert secret not in run.description.read_text()
        assert secret not in format_config(Options(data=URL), "paper")
        monkeypatch.setattr(sys, "argv", ["training/run.py", "--data", URL, f"--data={URL}"])
        write_environment(run, torch.device("cpu"), "f32", 1)
        assert secret not in run.environment.read_text()
    # Signed anew, it is the same set.
    again = URL.replace("SECRET", "another")
    sources = [Shards(url, (url,), (url,)) for url in (URL, again)]
    assert sources[0].fingerprint() == sources[1].fingerprint()


def test_a_long_name_makes_a_folder_all_the_same(tiny: PreparedDataset, tmp_path: Path) -> None:
    assert len(shorten_name("猫" * 80).encode()) <= 120
    data = PreparedDataset(**{**vars(tiny), "root": Path("/x") / ("猫" * 80)})
    run = create_run(Home(root=tmp_path), RunSpec(data, PAPER), "paper")
    assert run.path.name.endswith("猫" * 40)
