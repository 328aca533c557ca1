"""What all tests need."""

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.alexnet import AlexNet, AlexNetConfig
from model.checkpoint import Pca, Provenance, Weights
from model.dataset import ClassName


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """Processes that tests start take SIGINT, also where a shell in the background ignores it."""
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def weights_of() -> Callable[..., Weights]:
    """Makes weights of a configuration, as a training on the folder `data` would have.

    The classes are `names`, their labels in capitals. Without a state it is drawn, now.
    """

    def make(
        config: AlexNetConfig,
        names: tuple[str, ...],
        mean: Tensor,
        data: str = "",
        state: dict[str, Tensor] | None = None,
    ) -> Weights:
        return Weights(
            config=config,
            classes=tuple(ClassName(name, name.upper()) for name in names),
            mean=mean,
            pca=Pca(torch.ones(3), torch.eye(3)),
            provenance=Provenance(
                data=data,
                images=1,
                epochs=1,
                preset="demo",
                top1_error=None,
                top5_error=None,
                commit="unknown",
                created="2026-01-01T00:00:00+00:00",
            ),
            state=AlexNet(config).state_dict() if state is None else state,
        )

    return make


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
