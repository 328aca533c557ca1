"""The installation asks for no CUDA where there is no GPU and builds without it are offered."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "deploy/install.py"
NVIDIA_SMI = '#!/bin/sh\necho "GPU 0: NVIDIA H100"\n'
NO_DEVICE = "#!/bin/sh\necho 'NVIDIA-SMI has failed' && exit 9\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A PATH with nothing on it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    return folder


@pytest.fixture
def index(tmp_path: Path) -> str:
    """A package index that has builds of torch and torchvision without CUDA, and nothing else."""
    for name in ("torch", "torchvision"):
        version = f"{pinned()[name]}+cpu"
        folder = tmp_path / "index" / name
        folder.mkdir(parents=True)
        wheel = folder / f"{name}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as file:
            info = f"{name}-{version}.dist-info"
            file.writestr(
                f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            )
            file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            file.writestr(f"{info}/RECORD", "")
        (folder / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    return (tmp_path / "index").as_uri()


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split(" ;")[0].split("==") for line in lines if "==" in line)
    return {name: version.strip() for name, version in pairs}


def run(path: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the script with an empty default index, and on this PATH."""
    (path.parent / "empty").mkdir(exist_ok=True)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "TORCH"))}
    alone = {
        "PATH": str(path),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": (path.parent / "empty").as_uri(),
        "PIP_RETRIES": "0",
    }
    return subprocess.run(
        [sys.executable, SCRIPT, "--print", *words],
        env=kept | alone | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def needed() -> list[str]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]


@pytest.fixture(autouse=True)
def _linux() -> None:
    if sys.platform != "linux":
        pytest.skip("only on Linux do the ordinary packages have CUDA")


def test_without_a_gpu_nothing_asks_for_cuda(path: Path, index: str) -> None:
    for script in (None, NO_DEVICE):
        if script:
            (path / "nvidia-smi").write_text(script)
            (path / "nvidia-smi").chmod(0o755)
        done = run(path, TORCH_INDEX=index)
        assert done.returncode == 0, done.stderr
        wanted = done.stdout.splitlines()
        assert f"torch=={pinned()['torch']}+cpu" in wanted
        assert f"torchvision=={pinned()['torchvision']}+cpu" in wanted
        assert not any("gpu" in one or "cu1" in one for one in wanted)
        assert len(wanted) == len(needed())
        assert done.stderr == ""


def test_without_such_a_build_the_switch_is_named(path: Path) -> None:
    done = run(path)
    assert done.returncode == 0
    assert "TORCH_INDEX" in done.stderr
    wanted = done.stdout.splitlines()
    assert f"torch=={pinned()['torch']}" in wanted
    assert not any(one.startswith("faiss-gpu") for one in wanted)
    strict = run(path, "--build", "cpu")
    assert strict.returncode not in (0, None)
    assert (strict.stdout, len(strict.stderr.splitlines())) == ("", 1)
    assert "TORCH_INDEX" in strict.stderr


def test_with_a_gpu_everything_is_as_pyproject_says(path: Path, index: str) -> None:
    (path / "nvidia-smi").write_text(NVIDIA_SMI)
    (path / "nvidia-smi").chmod(0o755)
    for done in (run(path, TORCH_INDEX=index), run(path, "--extra", "postgres")):
        assert done.stdout.splitlines()[: len(needed())] == needed()
    assert "psycopg[binary]" in done.stdout.splitlines()


def test_a_choice_overrules_what_nvidia_smi_says(path: Path, index: str) -> None:
    shutil.copy(shutil.which("true") or "/bin/true", path / "nvidia-smi")
    assert run(path, TORCH="cuda").stdout.splitlines() == needed()
    (path / "nvidia-smi").write_text(NVIDIA_SMI)
    assert "+cpu" in run(path, TORCH="cpu", TORCH_INDEX=index).stdout
