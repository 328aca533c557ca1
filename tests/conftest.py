"""What all tests need."""

import ctypes
import gc
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import absl.logging
import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from torch import Tensor

from model.dataset.folder import ClassName
from model.network.alexnet import AlexNet
from model.network.config import FEATURES, AlexNetConfig
from model.weights.checkpoint import Pca, Weights, save_weights
from model.weights.header import Provenance
from tests.narrow_networks import narrow_network
from training.optimisation.device import M_MMAP_THRESHOLD, M_TOP_PAD, M_TRIM_THRESHOLD

# absl, which TensorBoard brings, logs to what sys.stderr is when it is imported, and closes that
# when logging is set up anew, as pymilvus does on import: during a test, pytest's own file.
absl.logging.get_absl_handler().python_handler.setStream(sys.__stderr__)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of slow tests, so that at the end no process is alone with one."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def imports_set_aside() -> None:
    """Collecting garbage does not go through what the imports made, which takes half a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """Processes that tests start take SIGINT, also where a shell in the background ignores it."""
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session", autouse=True)
def torch_computes() -> Iterator[None]:
    """Processes that tests start do not measure which runtime is faster, which takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALEXNET_RUNTIME", "torch")
        yield


@pytest.fixture(scope="module", autouse=True)
def freed_memory_is_returned() -> Iterator[None]:
    """After each file free its networks, and undo what a run asks of glibc's allocator.

    It keeps all that is freed (training/optimisation/device.py), and Python's collector comes
    rarely in a large process: a process of tests would grow to 5 GB.
    """
    yield
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        # The largest that glibc comes to by itself.
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(M_TRIM_THRESHOLD, 64 << 20)
        libc.mallopt(M_TOP_PAD, 0)
        libc.malloc_trim(0)


@pytest.fixture
def start_process() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a process in a group of its own; if the test leaves it running, its group is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        started.append(subprocess.Popen(command, text=True, process_group=0, **options))
        return started[-1]

    yield start
    for process in started:
        # One that has been waited for may have left its number to another.
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        with process:  # closes its pipes
            pass


@pytest.fixture(scope="session")
def weights_of() -> Callable[..., Weights]:
    """Make weights of a configuration, as a training run would leave them.

    names: the classes' folders; without them "0", "1", … for as many classes as the network has.
    labels: what a person reads, by folder; without them the names in capitals.
    mean: float32 [3, side, side], or one grey level for all of it.
    state: the network's tensors; without them they are drawn from `seed`.
    Any further keyword is a field of Provenance.
    """

    def make(
        config: AlexNetConfig,
        names: Sequence[str] | None = None,
        mean: Tensor | float = 120.0,
        *,
        labels: Mapping[str, str] | None = None,
        pca: Pca | None = None,
        state: Mapping[str, Tensor] | None = None,
        seed: int = 0,
        **provenance: Any,
    ) -> Weights:
        if state is None:
            with torch.random.fork_rng(devices=()):
                torch.manual_seed(seed)
                state = AlexNet(config).state_dict()
        names = [str(n) for n in range(config.classes)] if names is None else names
        labels = labels or {name: name.upper() for name in names}
        grey = isinstance(mean, float | int)
        return Weights(
            config=config,
            classes=tuple(ClassName(name, labels[name]) for name in names),
            mean=torch.full((3, config.side, config.side), float(mean)) if grey else mean,
            pca=pca or Pca(torch.ones(3), torch.eye(3)),
            provenance=Provenance(**PROVENANCE | provenance),
            state=state,
        )

    return make


@pytest.fixture(scope="session")
def few_photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of ten training and two validation photographs of 120 × 120 pixels."""
    root = tmp_path_factory.mktemp("few")
    for name, load in FEW_PHOTOGRAPHS.items():
        picture, random = Image.fromarray(load()), np.random.default_rng(list(name.encode()))
        for split, count in (("train", 10), ("val", 2)):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                left, top = (int(random.integers(0, side - 120)) for side in picture.size)
                crop = picture.crop((left, top, left + 120, top + 120))
                crop.save(root / split / name / f"{number}.jpg")
    return root


FEW_PHOTOGRAPHS = {
    "astronaut": skimage.data.astronaut,
    "chelsea": skimage.data.chelsea,
    "coffee": skimage.data.coffee,
}


@pytest.fixture(scope="session")
def narrow_weights(
    tmp_path_factory: pytest.TempPathFactory, weights_of: Callable[..., Weights]
) -> Path:
    """A file of weights of the paper's layers for those classes, not trained.

    They are narrow, but have the 4096 features that an index needs.
    """
    config = AlexNetConfig(classes=len(FEW_PHOTOGRAPHS), crop=67, init="he", input_scale=60)
    file = tmp_path_factory.mktemp("narrow") / "weights.safetensors"
    save_weights(weights_of(narrow_network(config, features=FEATURES), [*FEW_PHOTOGRAPHS]), file)
    return file


PROVENANCE: dict[str, Any] = {
    "data": "/photographs",
    "images": 1,
    "epochs": 1,
    "preset": "demo",
    "top1_error": None,
    "top5_error": None,
    "commit": "unknown",
    "created": "2026-01-01T00:00:00+00:00",
}


@pytest.fixture
def small_disk(tmp_path: Path) -> Callable[[str], AbstractContextManager[Path]]:
    """Mount a disk of a size; skips where nobody may."""

    @contextmanager
    def mounted(size: str) -> Iterator[Path]:
        place = tmp_path / "small"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("mounting a small disk takes root's rights")
        try:
            yield place
        finally:
            subprocess.run(["umount", "--lazy", str(place)], check=True)

    return mounted
