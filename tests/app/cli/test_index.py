"""The commands of `flask index` but build's simplest form: what they say, and what then answers."""

import json
import os
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from app.database.images import find_images, find_version
from app.database.session import session_factory
from app.inference.loader import ModelLoader
from app.inference.state import NotReady, Ready
from index import store
from index.manifest import MANIFEST_FILE, Manifest
from index.sample import ImageSample, make_thumbnail
from model.image.preprocess import read_square
from model.weights import checkpoint
from storage.files import switch_link

SIX = 6


def picture(file: Path, colour: str) -> None:
    """Write a small picture of one colour."""
    Pillow.new("RGB", (60, 40), colour).save(file)


def numbers(said: str) -> list[int]:
    """The numbers of a report, in order."""
    return [int(number) for number in re.findall(r"(?<![\w-])\d+(?![\w-])", said)]


def ids_by_path(shop) -> dict[str, int]:
    """The images of the version served, by their paths."""
    ids = shop.state().index.id_map.ids.tolist()
    found = find_images(session_factory(shop.settings), ids)
    return {image.path: number for number, image in found.items()}


def check_whole(shop, images: int) -> Manifest:
    """What is served has so many images, and `verify` finds nothing wrong with it."""
    shop.right("verify")
    manifest = shop.state().manifest
    assert manifest.images == images
    return manifest


def test_update_computes_what_is_new_and_nothing_else(shop) -> None:
    before, ids, train = shop.state(), ids_by_path(shop), shop.photographs / "train"
    picture(train / "coffee/new.png", "red")
    picture(train / "coffee/00.jpg", "blue")
    (train / "chelsea/03.jpg").unlink()
    os.utime(train / "chelsea/04.jpg", (1, 1))
    (train / "astronaut/05.jpg").rename(train / "astronaut/moved.jpg")
    said = shop.right("update")
    # What moved is added and vanished, its vector is there; the other two are computed.
    assert numbers(said)[:5] == [2, 1, 2, 24, 1]
    manifest, after = check_whole(shop, 27), ids_by_path(shop)
    old = before.manifest.shards
    assert manifest.shards[: len(old)] == old
    assert [shard.rows for shard in manifest.shards[len(old) :]] == [2]
    for shard in old:
        files = [shop.index / m.name / shard.file for m in (before.manifest, manifest)]
        assert files[0].samefile(files[1])
    gone = {f"train/{name}.jpg" for name in ("coffee/00", "chelsea/03", "astronaut/05")}
    new = {f"train/{name}" for name in ("coffee/new.png", "coffee/00.jpg", "astronaut/moved.jpg")}
    assert set(after) == set(ids) - gone | new
    assert {path: after[path] for path in set(ids) - gone} == {
        path: ids[path] for path in set(ids) - gone
    }
    assert min(after[path] for path in new) > max(ids.values())
    check_sample(before.sample, shop.state(), after)


def check_sample(old: ImageSample | None, state: Ready, ids: dict[str, int]) -> None:
    """What the pages show is of the images as they are; those that stayed are as they were."""
    new = state.sample
    assert old is not None
    assert new is not None
    assert new.whole
    assert new.ids.tolist() == sorted(ids.values())
    _, before, after = np.intersect1d(old.ids, new.ids, return_indices=True)
    assert len(before) == 24
    np.testing.assert_array_equal(old.thumbnails[before], new.thumbnails[after])
    paths = {image: path for path, image in ids.items()}
    for image, small in zip(new.ids.tolist(), new.thumbnails, strict=True):
        square = read_square(Path(state.manifest.data) / paths[image])
        np.testing.assert_array_equal(small, make_thumbnail(square))


def test_update_with_nothing_to_do_says_so(shop) -> None:
    name = shop.name
    assert numbers(shop.right("update"))[0] == 27
    assert [shop.name] == store.list_versions(shop.index) == [name]
    # A file that was only touched is read again, no vector is computed.
    os.utime(shop.photographs / "train/coffee/00.jpg", (1, 1))
    said = shop.right("update")
    assert numbers(said)[:5] == [0, 0, 0, 27, 0]
    assert shop.name in shop.right("update")


def test_update_keeps_the_weights_of_the_version_in_service(shop) -> None:
    old = checkpoint.load_weights(shop.settings.home.weights)
    file = shop.settings.home.runs / "other" / "weights.safetensors"
    checkpoint.save_weights(replace(old, mean=old.mean + 1), file)
    switch_link(shop.settings.home.weights, file)
    picture(shop.photographs / "train/coffee/new.png", "red")
    first = shop.name
    shop.right("update")
    assert shop.name != first
    assert check_whole(shop, 28).weights == old.identity
    assert shop.settings.home.weights.resolve() == file


def test_a_build_computes_no_feature_that_an_index_of_the_same_weights_has(shop) -> None:
    before = shop.state().manifest
    said = shop.right("build", "--kind", "ivf", "--recall", "0.5", "--set", "dimensions=32")
    assert numbers(said)[:5] == [0, 0, 0, 27, 0]
    manifest = check_whole(shop, 27)
    assert (manifest.kind, manifest.shards) == ("ivf", before.shards)
    # Other weights, and another type of vectors, are computed.
    anew = shop.right("build", "--kind", "exact", "--storage", "float16")
    assert numbers(anew)[:5] == [27, 0, 0, 0, 0]
    shop.finish_run("second", 1)
    assert numbers(shop.right("build", "--kind", "exact"))[:5] == [27, 0, 0, 0, 0]


def test_after_the_database_is_lost_nothing_is_computed_and_no_version_deleted(shop) -> None:
    first, second = two_versions(shop)
    database = shop.settings.home.database
    for file in database.parent.glob(f"{database.name}*"):
        file.unlink()
    (shop.photographs / "train/chelsea/00.jpg").unlink()
    said = shop.right("build", "--kind", "exact", index_kept=1)
    assert numbers(said)[2:5] == [1, 27, 0]
    check_whole(shop, 27)
    assert store.list_versions(shop.index) == [first, second, shop.name]
    # Their images are not in this database: they cannot serve, and `prune` deletes them.
    assert first in shop.refused("rollback", first)
    assert shop.right("prune").splitlines()[:2] == [f"Deleted {first}.", f"Deleted {second}."]


def test_update_needs_a_whole_index(shop) -> None:
    (shop.version / "ids.npy").write_bytes(b"damaged")
    assert "flask index build" in shop.refused("update")
    shutil.rmtree(shop.index)
    assert "`flask index build`" in shop.refused("update")


SMALL = ("--set", "dimensions=16", "--set", "bytes=8")
KINDS = {
    "ivf": ("--set", "lists=4", *SMALL),
    "pq": ("--set", "lists=4", *SMALL),
    "hnsw": ("--set", "links=8", *SMALL),
    "binary": ("--set", "bits=64"),
}
PARAMETERS = {
    "ivf": {"lists": 4, "dimensions": 16},
    "pq": {"lists": 4, "dimensions": 16, "bytes": 8},
    "hnsw": {"links": 8, "dimensions": 16},
    "binary": {"bits": 64},
}


def flip(file: Path) -> None:
    """Change one byte in the middle of a file."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_answers_as_exact_does(shop, kind: str) -> None:
    truth = shop.state()
    said = shop.right(
        "build", "--kind", kind, "--recall", "0.9", "--storage", "float32", *KINDS[kind]
    )
    state = shop.state()
    assert state.manifest.name != truth.manifest.name
    found = json.loads(shop.right("stats", "--json"))
    assert (found["kind"], found["version"]) == (kind, state.manifest.name)
    assert found.items() >= {f"parameter {k}": v for k, v in PARAMETERS[kind].items()}.items()
    queries = truth.index.vectors.take(np.arange(27))
    right = truth.index.search(queries, SIX)
    given = state.index.search(queries, SIX)
    hits = [np.isin(a, b).sum() for a, b in zip(given.ids, right.ids, strict=True)]
    recall = float(np.sum(hits)) / right.ids.size
    assert recall >= 0.9
    assert found["recall asked for"] == 0.9
    assert found["recall@6"] >= 0.9
    assert f"recall@6 {found['recall@6']:.3f} and recall@100 " in said
    check_whole(shop, 27)
    files = list(shop.version.glob("candidates.*"))
    assert files
    for file in files:
        flip(file)
        done = shop.run("verify")
        assert done.exit_code == 1
        assert done.stderr.startswith(f"Wrong: {file} is damaged")
        flip(file)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--kind", "tree"), "'tree' is not one of"),
        (("--recall", "0"), "0 is not in the range"),
        (("--recall", "2"), "2.0 is not in the range"),
        (("--storage", "int8"), "'int8' is not one of"),
        (("--set", "leaves=4"), "one of lists, dimensions, bytes, links, bits, seed"),
        (("--set", "lists"), "NAME=NUMBER"),
        (("--set", "lists=-4"), "NAME=NUMBER"),
        (("--set", "links=1"), "links must be between 2 and 512, not 1"),
        (("--set", "bytes=7"), "7 does not divide 128"),
        (("--kind", "milvus"), "needs INDEX_URL"),
    ],
)
def test_what_cannot_be_asked_for_is_told(shop, words: tuple[str, ...], told: str) -> None:
    name = shop.name
    done = shop.run("build", *words)
    assert done.exit_code == 2
    assert told in done.stderr
    assert "Traceback" not in done.output
    assert store.list_versions(shop.index) == [name]


def follow(loader: ModelLoader, name: str | None) -> Ready:
    """The state of a server that runs, when it has taken that version."""
    for _ in range(400):
        state = loader.get_state()
        assert isinstance(state, Ready), state
        if state.version.name == name:
            return state
        time.sleep(0.02)
    raise AssertionError(f"{name} is not taken")


def two_versions(shop) -> tuple[str, str]:
    """Make a second version with one image more; the names of both."""
    first = shop.name
    picture(shop.photographs / "train/coffee/new.png", "red")
    shop.right("update")
    return first, shop.name


def test_rollback_serves_an_earlier_version_without_a_restart(shop) -> None:
    first, second = two_versions(shop)
    loader = shop.loader()
    assert len(follow(loader, second).index) == 28
    assert first in shop.right("rollback")
    assert len(follow(loader, first).index) == 27
    assert second in shop.right("rollback", second)
    assert len(follow(loader, second).index) == 28
    shop.right("verify", "--no-files", first)


def test_a_version_that_cannot_serve_is_not_rolled_back_to(shop) -> None:
    assert "no earlier version" in shop.refused("rollback")
    assert "There is no version 2020" in shop.refused("rollback", "2020")
    first, second = two_versions(shop)
    weights = shop.settings.home.weights.resolve()
    aside = weights.rename(weights.with_name("aside"))
    try:
        assert first in shop.refused("rollback")
    finally:
        aside.rename(weights)
    with session_factory(shop.settings).begin() as session:
        session.connection().exec_driver_sql(
            "DELETE FROM index_class WHERE version_id = "
            f"(SELECT id FROM index_version WHERE name = '{first}')"
        )
    assert first in shop.refused("rollback")
    (shop.index / first / "ids.npy").write_bytes(b"damaged")
    assert "ids.npy is damaged" in shop.refused("rollback", first)
    assert shop.name == second


def test_prune_keeps_what_is_served_and_the_newest(shop) -> None:
    first, second = two_versions(shop)
    picture(shop.photographs / "train/coffee/newer.png", "green")
    shop.right("update")
    third = shop.name
    shop.right("rollback", first)
    said = shop.right("prune", "--keep", "2")
    assert said.splitlines() == [f"Deleted {second}.", f"Kept {first}, {third}."]
    assert store.list_versions(shop.index) == [first, third]
    sessions = session_factory(shop.settings)
    assert [bool(find_version(sessions, v)) for v in (first, second, third)] == [
        True,
        False,
        True,
    ]
    assert shop.right("prune", "--keep", "1").splitlines()[-1] == f"Kept {first}."
    shop.right("verify", "--no-files")
    assert shop.run("prune", "--keep", "0").exit_code == 2


def test_statistics_for_people_and_for_programs(shop) -> None:
    manifest = shop.state().manifest
    found = json.loads(shop.right("stats", "--json"))
    assert found["version"] == shop.name
    assert (found["served"], found["kind"], found["images"]) == (True, "exact", 27)
    assert found["bytes"] == sum(
        (shop.version / name).stat().st_size for name in manifest.checksums
    )
    assert found["weights"] == manifest.weights
    assert found["versions kept"] == [shop.name]
    lines = [line.split("  ", 1) for line in shop.right("stats").splitlines()]
    labelled = {label.strip(): text.strip() for label, text in lines}
    assert len(labelled) == len(found)
    assert (labelled["version"], labelled["kind"]) == (shop.name, "exact")
    for command in ("stats", "verify"):
        assert re.search(rf"2020.*{shop.name}", shop.refused(command, "2020"))
    shutil.rmtree(shop.index)
    assert "`flask index build`" in shop.refused("stats")


def test_an_index_of_an_older_version_of_the_project_is_built_anew(shop) -> None:
    file = shop.version / MANIFEST_FILE
    values = json.loads(file.read_text()) | {"format": 1}
    file.write_text(json.dumps(values))
    state = shop.loader().get_state()
    assert isinstance(state, NotReady)
    assert (state.reason, state.command) == ("damaged", "flask index build")
    assert "of an older version of this project" in (line := shop.refused("verify"))
    assert "flask index build" in line
    old = shop.name
    assert "Indexed 27 images" in shop.right("build", "--if-needed")
    assert shop.name != old
    check_whole(shop, 27)


def test_exact_copies_are_one_neighbour(shop, page, open_app) -> None:
    folder = shop.photographs / "train/coffee"
    with Pillow.open(folder / "00.jpg") as image:
        image.load()
    image.save(folder / "a.png", compress_level=1)
    shutil.copy(folder / "a.png", folder / "b.png")
    image.save(folder / "c.png", compress_level=9)
    (folder / "00.jpg").unlink()
    assert (folder / "a.png").read_bytes() != (folder / "c.png").read_bytes()
    shop.right("update")
    assert check_whole(shop, 29).vectors == 27
    own = [ids_by_path(shop)[f"train/coffee/{name}.png"] for name in "abc"]
    answer = shop.classify((folder / "b.png").read_bytes())
    assert (answer.neighbours[0].id, answer.neighbours[0].copies) == (min(own), 3)
    assert answer.neighbours[0].near
    assert answer.neighbours[0].distance == pytest.approx(0, abs=1e-3)
    assert not {n.id for n in answer.neighbours[1:]} & set(own)
    assert [n.copies for n in answer.neighbours[1:]] == [1] * 5
    client = open_app(shop.settings).test_client()
    for image_id in own:
        tiles = page(client.get(f"/images/{image_id}")).one("ol", "neighbours").all("li")
        assert len(tiles) == SIX
        link = tiles[0].one("a").attributes["href"]
        assert link.partition("?")[0] == f"/images/{min(set(own) - {image_id})}"
        assert "2 copies" in tiles[0].one("span", "copies").text
        assert all("copies" not in tile.text for tile in tiles[1:])
