"""One process, two towers, two replicas and both at once are the same run.

Run as a script, this file is one of the processes; torchrun's variables tell it its place.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model.checkpoint import load_weights
from model.config import AlexNetConfig
from model.dataset import scan_folder
from storage.runs import RunFolder
from training.callbacks import Callbacks
from training.checkpoints import load_checkpoint, save_checkpoint
from training.config import SMALL, RecipeError
from training.data import validation_crops
from training.dataset.prepare import Prepared, prepare
from training.distributed.launch import find_free_port
from training.distributed.mesh import Mesh, choose_towers, join_mesh, leave_mesh
from training.loop import train_network
from training.run_folder import RunSpec
from training.state import init_state
from training.train import check_batch_size

ROOT = Path(__file__).resolve().parents[3]
CPU = torch.device("cpu")
# 7 images do not part evenly among two replicas; dropout is on.
RECIPE = replace(SMALL, batch=7, epochs=1, seed=3, rate=0.002)
CONFIG = AlexNetConfig(classes=3, init="he", crop=195, input_scale=60.0)
DTYPES = {"float64": torch.float64, "float32": torch.float32}
SHAPES = {"towers": (1, 2), "replicas": (2, 1), "both": (2, 2)}


def main(photographs: Path, store: Path, towers: int, folder: Path, one: Path) -> None:
    """Train in both precisions; then take up the checkpoint of `one` and write it again."""
    data = prepare(scan_folder(photographs), store, lambda _count: None)
    mesh, told = join_mesh(CONFIG, towers, CPU), RunSpec(data, RECIPE)
    found: dict[str, dict[str, object]] = {}
    for name, dtype in DTYPES.items():
        run = RunFolder(folder / name) if mesh.is_main else None
        found[name] = dict(learn(data, mesh, dtype))
        state = found[name].pop("state")
        save_checkpoint(run, state, told)  # type: ignore[arg-type]
    if one != folder:
        again = init_state(CONFIG, RECIPE, CPU, mesh)
        load_checkpoint(RunFolder(one / "float32"), again, told)
        save_checkpoint(RunFolder(folder / "again") if mesh.is_main else None, again, told)
    if mesh.is_main:
        (folder / "found.json").write_text(json.dumps(found))
    leave_mesh()


def learn(data: Prepared, mesh: Mesh, dtype: torch.dtype) -> Iterator[tuple[str, object]]:
    """Train for an epoch; give what came out."""
    losses: list[float] = []
    state = init_state(CONFIG, RECIPE, CPU, mesh, dtype)
    train_network(
        state, data, RECIPE, False, Callbacks(on_step=lambda *told: losses.append(told[2]))
    )
    batch = next(validation_crops(data, RECIPE.augmentation(CONFIG), 4))
    with torch.inference_mode():
        logits = state.network.eval()(batch.x.to(dtype)).logits
    last = state.history[-1]
    yield from {
        "state": state,
        "losses": losses,
        "errors": [last.top1_error, last.top5_error],
        "logits": logits.tolist(),
    }.items()


@pytest.fixture(scope="module")
def together(
    photographs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[int, int], Path]]:
    """Train in replicas × towers processes; give the folder of what they found."""
    folder = tmp_path_factory.mktemp("mesh")
    store = tmp_path_factory.mktemp("store")
    prepare(scan_folder(photographs), store, lambda _count: None)

    def run(replicas: int, towers: int) -> Path:
        own = folder / f"{replicas}x{towers}"
        if own.exists():
            return own
        own.mkdir()
        one = own if replicas == towers == 1 else run(1, 1)
        words = [__file__, photographs, store, towers, own, one]
        start_all([sys.executable, *map(str, words)], replicas * towers)
        return own

    yield run
    shutil.rmtree(folder)  # gigabytes


def start_all(command: list[str], count: int) -> None:
    """Run so many processes, each told its place, to their end."""
    port, started = str(find_free_port()), []
    for rank in range(count):
        place = {"RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_PORT": port}
        env = os.environ | place | {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
        env["PYTHONPATH"] = str(ROOT)
        started.append(subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True))
    try:
        for process in started:
            _, errors = process.communicate(timeout=200)
            assert process.returncode == 0, errors
    finally:
        for process in started:
            process.kill()
            process.communicate()


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 2e-5)])
def test_losses_outputs_weights_and_velocities_are_those_of_one_process(
    together: Callable[[int, int], Path], shape: str, dtype: str, tolerance: float
) -> None:
    folder, one = together(*SHAPES[shape]), together(1, 1)
    ours, theirs = (json.loads((f / "found.json").read_text())[dtype] for f in (folder, one))
    assert len(ours["losses"]) == 24 // 7
    assert ours["losses"] == pytest.approx(theirs["losses"], rel=tolerance)
    assert ours["errors"] == theirs["errors"]
    assert distance(torch.tensor(ours["logits"]), torch.tensor(theirs["logits"])) < tolerance
    held, whole = (load_file(f / dtype / "checkpoint.safetensors") for f in (folder, one))
    assert held.keys() == whole.keys()
    assert len(whole) == 2 * 16  # weights and velocities of eight layers, each with biases
    for name, value in whole.items():
        assert held[name].dtype == DTYPES[dtype]
        assert distance(held[name], value) < tolerance, name


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_a_checkpoint_of_one_process_is_taken_up_by_several_bit_for_bit(
    together: Callable[[int, int], Path], shape: str
) -> None:
    folder, one = together(*SHAPES[shape]), together(1, 1)
    again = load_file(folder / "again/checkpoint.safetensors")
    whole = load_file(one / "float32/checkpoint.safetensors")
    assert again.keys() == whole.keys()
    assert all(torch.equal(again[name], value) for name, value in whole.items())


@pytest.mark.slow
def test_a_checkpoint_of_four_processes_is_taken_up_by_one_bit_for_bit(
    together: Callable[[int, int], Path], prepared: Prepared, tmp_path: Path
) -> None:
    written = together(2, 2) / "float32"
    state, told = init_state(CONFIG, RECIPE, CPU), RunSpec(prepared, RECIPE)
    load_checkpoint(RunFolder(written), state, told)
    save_checkpoint(RunFolder(tmp_path), state, told)
    ours, theirs = (load_file(f / "checkpoint.safetensors") for f in (tmp_path, written))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    assert len(state.history) == 1


@pytest.mark.slow
def test_torchrun_starts_it_too(photographs: Path, tmp_path: Path) -> None:
    words = ["--data", photographs, "--batch", "7", "--epochs", "1"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--master-port", str(find_free_port()), "training/run.py", *map(str, words)),
        ],
        cwd=ROOT,
        env=os.environ | {"ALEXNET_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 × 2 processes" in done.stdout
    assert done.stdout.count("epoch   1/1") == 1
    (weights,) = (tmp_path / "runs").glob("*/weights.safetensors")
    assert json.loads((weights.parent / "environment.json").read_text())["processes"] == 2
    network = load_weights(weights).network()
    assert network.conv1.weight.shape == (96, 3, 11, 11)


def test_more_replicas_than_images_are_refused(prepared: Prepared) -> None:
    told = RunSpec(prepared, replace(RECIPE, batch=3))
    check_batch_size(told, Mesh(replicas=3))
    with pytest.raises(RecipeError, match="4 replicas cannot share batches of 3 images"):
        check_batch_size(told, Mesh(replicas=4))


def test_a_network_of_two_towers_is_split_where_it_can_be() -> None:
    paper, single = AlexNetConfig(), AlexNetConfig(net="one-gpu")
    assert [choose_towers(paper, None, n) for n in (2, 3, 16)] == [2, 1, 2]
    assert [choose_towers(single, None, n) for n in (2, 3)] == [1, 1]
    assert choose_towers(paper, 1, 2) == 1


def test_alone_a_process_is_a_mesh_of_one() -> None:
    mesh = join_mesh(CONFIG, None, CPU)
    assert (mesh.replicas, mesh.towers, mesh.is_main, mesh.replica_slice) == (1, 1, True, (0, 1))
    assert mesh.all_reduce_sum(1.5, 2) == [1.5, 2.0]


if __name__ == "__main__":
    places = [Path(word) for word in sys.argv[1:]]
    main(places[0], places[1], int(sys.argv[3]), places[3], places[4])
