"""One process, two towers, two replicas and both at once are the same run.

Run as a script, this file forks four processes, which form each mesh in turn.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.multiprocessing import start_processes  # type: ignore[attr-defined]

from model.dataset.folder import ImageFolder, scan_folder
from model.network.config import AlexNetConfig
from model.weights.checkpoint import load_weights
from storage.runs import RunFolder
from tests.narrow_networks import narrow_network
from training.batches.batches import load_validation_crops
from training.dataset.prepare import PreparedDataset, prepare
from training.distributed.launch import find_free_port
from training.distributed.mesh import Mesh, choose_towers, join_mesh, leave_mesh
from training.optimisation.loop import train_network
from training.optimisation.state import TrainingState, init_state
from training.recipe.config import SMALL, RecipeError
from training.records.callbacks import Callbacks
from training.records.checkpoints import load_checkpoint, save_checkpoint
from training.records.run_folder import RunSpec
from training.train import check_batch_size

ROOT = Path(__file__).resolve().parents[3]
CPU = torch.device("cpu")
# Two replicas cannot share 7 images evenly; dropout is on.
RECIPE = replace(SMALL, batch=7, epochs=1, seed=3, rate=0.002)
# The smallest crop with all of the paper's layers.
CONFIG = narrow_network(AlexNetConfig(classes=3, init="he", side=72, crop=67, input_scale=60.0))
DTYPES = {"float64": (torch.float64, 1e-10), "float32": (torch.float32, 2e-5)}
MESHES = {"one": (1, 1), "towers": (1, 2), "replicas": (2, 1), "both": (2, 2)}


def main(photographs: Path, store: Path, folder: Path, ports: list[str]) -> None:
    """Start four processes: importing torch and what it needs takes seconds, and is done once."""
    data = prepare_small(scan_folder(photographs), store)
    init_state(CONFIG, RECIPE, CPU)  # its optimiser imports the rest of torch
    # They end when one fails, or when this process does.
    start_processes(run_rank, (data, folder, ports), nprocs=4, start_method="fork")  # type: ignore[no-untyped-call]


def run_rank(rank: int, data: PreparedDataset, folder: Path, ports: list[str]) -> None:
    """Train in each mesh that has this rank, then load and save the checkpoint of `one`."""
    for (name, (replicas, towers)), port in zip(MESHES.items(), ports, strict=True):
        if rank < replicas * towers:
            where = {"RANK": str(rank), "WORLD_SIZE": str(replicas * towers), "MASTER_PORT": port}
            os.environ |= where
            train_in_mesh(data, join_mesh(CONFIG, towers, CPU), folder, name)
            leave_mesh()


def prepare_small(folder: ImageFolder, store: Path) -> PreparedDataset:
    return prepare(folder, store, lambda _count: None, side=CONFIG.side)


def train_in_mesh(data: PreparedDataset, mesh: Mesh, folder: Path, name: str) -> None:
    spec, results = RunSpec(data, RECIPE), {}

    def save(state: TrainingState, subfolder: str) -> None:
        path = folder / name / subfolder
        path.mkdir(parents=True, exist_ok=True)
        save_checkpoint(RunFolder(path) if mesh.is_main else None, state, spec)

    for dtype_name, (dtype, _) in DTYPES.items():
        state, results[dtype_name] = train(data, mesh, dtype)
    save(state, "float32")  # the last
    resumed = init_state(CONFIG, RECIPE, CPU, mesh)
    load_checkpoint(RunFolder(folder / "one/float32"), resumed, spec)
    save(resumed, "resumed")
    results["skipped"] = train_with_overflow(data, mesh)
    if mesh.is_main:
        (folder / name / "results.json").write_text(json.dumps(results))


def train(
    data: PreparedDataset, mesh: Mesh, dtype: torch.dtype
) -> tuple[TrainingState, dict[str, object]]:
    """Train for an epoch; return what should not depend on the mesh."""
    losses: list[float] = []
    state = init_state(CONFIG, RECIPE, CPU, mesh, dtype)
    callbacks = Callbacks(on_step=lambda _step, _steps, loss: losses.append(loss))
    train_network(state, data, RECIPE, "f32", callbacks)
    batch = next(load_validation_crops(data, RECIPE.augmentation(CONFIG), 4))
    with torch.inference_mode():
        logits = state.network.eval()(batch.x.to(dtype)).logits
    errors = [state.history[-1].top1_error, state.history[-1].top5_error]
    return state, {"losses": losses, "errors": errors, "logits": logits.tolist()}


def train_with_overflow(data: PreparedDataset, mesh: Mesh) -> list[object]:
    """Train in float16; in its second step one gradient of the last process is infinite."""
    state, backward = init_state(CONFIG, RECIPE, CPU, mesh), iter(range(1, 100))
    is_last = (mesh.replica, mesh.tower) == (mesh.replicas - 1, mesh.towers - 1)
    weights: list[list[float]] = []

    def overflow(gradient: torch.Tensor) -> torch.Tensor:
        return gradient * float("inf") if next(backward) == 2 and is_last else gradient

    def note(*_: object) -> None:
        weights.append([float(p.norm()) for p in state.network.parameters()])

    next(iter(state.network.parameters())).register_hook(overflow)
    train_network(state, data, RECIPE, "f16", Callbacks(on_step=note))
    changed = [before != after for before, after in pairwise(weights)]
    return [changed, state.history[0].skipped_steps, state.loss_scale.value]


@pytest.fixture(scope="module")
def meshes(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train in all meshes; return the folder of what they found, a subfolder each."""
    folder, store = tmp_path_factory.mktemp("meshes"), tmp_path_factory.mktemp("store")
    ports = [str(find_free_port()) for _ in MESHES]
    command = [sys.executable, __file__, *map(str, (photographs, store, folder)), *ports]
    env = os.environ | {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    env["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(command, env=env, stderr=subprocess.PIPE, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return folder


def relative_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference, as a fraction of the largest value."""
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("name", [*MESHES])
def test_all_processes_skip_a_step_whose_gradients_overflow_in_one(meshes: Path, name: str) -> None:
    results = json.loads((meshes / name / "results.json").read_text())
    # Rank 0, which wrote this, saw no overflow itself except in a mesh of one.
    assert results["skipped"] == [[False, True], 1, 2.0**15]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["towers", "replicas", "both"])
def test_losses_outputs_weights_and_velocities_are_those_of_one_process(
    meshes: Path, name: str
) -> None:
    results, expected = (
        json.loads((meshes / mesh / "results.json").read_text()) for mesh in (name, "one")
    )
    for dtype_name, (_, tolerance) in DTYPES.items():
        ours, theirs = results[dtype_name], expected[dtype_name]
        assert len(ours["losses"]) == 24 // 7
        assert ours["losses"] == pytest.approx(theirs["losses"], rel=tolerance)
        assert ours["errors"] == theirs["errors"]
        logits = torch.tensor(ours["logits"]), torch.tensor(theirs["logits"])
        assert relative_distance(*logits) < tolerance
    tensors, whole = (
        load_file(meshes / mesh / "float32/checkpoint.safetensors") for mesh in (name, "one")
    )
    assert tensors.keys() == whole.keys()
    assert len(whole) == 2 * 16  # weights and velocities of eight layers, each with biases
    for key, value in whole.items():
        assert tensors[key].dtype == torch.float32
        assert relative_distance(tensors[key], value) < tolerance, key


@pytest.mark.slow
@pytest.mark.parametrize("name", ["towers", "replicas", "both"])
def test_several_processes_resume_a_checkpoint_of_one_bit_for_bit(meshes: Path, name: str) -> None:
    resumed = load_file(meshes / name / "resumed/checkpoint.safetensors")
    whole = load_file(meshes / "one/float32/checkpoint.safetensors")
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[key], value) for key, value in whole.items())


@pytest.mark.slow
def test_one_process_resumes_a_checkpoint_of_four_bit_for_bit(
    meshes: Path, photographs: Path, tmp_path: Path
) -> None:
    written = meshes / "both/float32"
    spec = RunSpec(prepare_small(scan_folder(photographs), tmp_path / "store"), RECIPE)
    state = init_state(CONFIG, RECIPE, CPU)
    load_checkpoint(RunFolder(written), state, spec)
    save_checkpoint(RunFolder(tmp_path), state, spec)
    ours, theirs = (load_file(f / "checkpoint.safetensors") for f in (tmp_path, written))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())
    assert len(state.history) == 1


@pytest.mark.slow
def test_torchrun_starts_it_too(photographs: Path, tmp_path: Path) -> None:
    words = ["--data", photographs, "--variant", "cifar", "--batch", "7", "--epochs", "1"]
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
    assert "2 × 1 processes" in done.stdout
    assert done.stdout.count("epoch   1/1") == 1
    (weights,) = (tmp_path / "runs").glob("*/weights.safetensors")
    assert json.loads((weights.parent / "environment.json").read_text())["processes"] == 2
    assert load_weights(weights).provenance.epochs == 1


def test_more_replicas_than_images_are_refused(prepared: PreparedDataset) -> None:
    spec = RunSpec(prepared, replace(RECIPE, batch=3))
    check_batch_size(spec, Mesh(replicas=3))
    with pytest.raises(RecipeError):
        check_batch_size(spec, Mesh(replicas=4))


def test_a_network_of_two_towers_is_split_where_it_can_be() -> None:
    paper, single = AlexNetConfig(), AlexNetConfig(net="one-gpu")
    assert [choose_towers(paper, None, n) for n in (2, 3, 16)] == [2, 1, 2]
    assert [choose_towers(single, None, n) for n in (2, 3)] == [1, 1]
    assert choose_towers(paper, 1, 2) == 1


def test_a_single_process_is_a_mesh_of_one() -> None:
    mesh = join_mesh(CONFIG, None, CPU)
    assert (mesh.replicas, mesh.towers, mesh.is_main) == (1, 1, True)
    assert mesh.replica_slice == (0, 1)
    assert mesh.all_reduce_sum(1.5, 2) == [1.5, 2.0]


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), sys.argv[4:])
