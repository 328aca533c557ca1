"""What a part of benchmarks/gpu.py is given, and the list of the parts."""

import json
import os
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.files import write_atomically

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parents[2]
Result = dict[str, Any]
"""A part's name, status, seconds, figures and, unless it finished, what went wrong."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of the measurement.

    function: where it is, as "module:function". seconds: its deadline. expected: what it should
    take on an H100, or be given at least. photographs: whether it needs some.
    """

    name: str
    title: str
    purpose: str
    function: str
    seconds: float
    expected: float
    photographs: bool = False


PARTS: Mapping[str, Part] = {
    part.name: part
    for part in (
        Part(
            name="machine",
            title="The machine",
            purpose="the card, the versions, a large product and a large copy",
            function="machine:measure",
            seconds=25,
            expected=12,
        ),
        Part(
            name="answers",
            title="Answers",
            purpose="outputs, gradients, three updates and ten crops in float32, TF32, bf16 "
            "and float16 against the CPU in float64; the tests marked `gpu`",
            function="answers:measure",
            seconds=70,
            expected=40,
        ),
        Part(
            name="speed",
            title="Training speed",
            purpose="whole steps against torchvision's AlexNet in the same settings; images from "
            "the GPU's memory, sent as bytes from the store, and augmented by the CPU",
            function="speed:measure",
            seconds=120,
            expected=90,
        ),
        Part(
            name="whole",
            title="A whole run",
            purpose="the recipe `small`, all its epochs",
            function="whole_run:measure_small",
            seconds=120,
            expected=85,
            photographs=True,
        ),
        Part(
            name="weights",
            title="Its weights, compressed",
            purpose="the weights of that run in a few megabytes",
            function="whole_run:compress_weights",
            seconds=90,
            expected=55,
            photographs=True,
        ),
        Part(
            name="arms",
            title="Experiments",
            purpose="`experiments/run.py colour-towers`; `experiments/recipe.py`, for long "
            "with other divisors of the pixels, and briefly with each change",
            function="arms:measure",
            seconds=170,
            expected=50,
            photographs=True,
        ),
        Part(
            name="towers",
            title="Two towers",
            purpose="two processes of one tower each, over NCCL if it can, else over gloo",
            function="towers:measure",
            seconds=60,
            expected=25,
        ),
        Part(
            name="serving",
            title="Serving",
            purpose="ten crops and features of one image and of batches",
            function="serving:measure",
            seconds=30,
            expected=12,
        ),
        Part(
            name="search",
            title="FAISS",
            purpose="flat, inverted lists and product quantization against the CPU; 1.2 million "
            "vectors",
            function="search:measure",
            seconds=100,
            expected=60,
        ),
        Part(
            name="paper",
            title="The paper's recipe",
            purpose="as many of its epochs as fit",
            function="whole_run:measure_paper",
            seconds=60,
            expected=25,
            photographs=True,
        ),
        Part(
            name="layers",
            title="Layer by layer",
            purpose="each layer alone, other ways to compute some, and the kernels of a step",
            function="layers:measure",
            seconds=45,
            expected=20,
        ),
    )
}
"""In the order in which they run: what matters most first."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a part is to measure, on what, and where its results go.

    quick: tiny sizes, to rehearse. data: the folder of photographs. work: files that the parts of
    one machine share. report: the folder that is taken home. seconds: until the deadline.
    """

    part: str
    device: str
    quick: bool
    data: Path | None
    work: Path
    report: Path
    seconds: float
    started: float = field(default_factory=time.monotonic)
    figures: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, text: str) -> "Job":
        """Read what `to_json` wrote; its time starts now."""
        values = json.loads(text)
        paths = {name: Path(values[name]) for name in ("work", "report")}
        data = Path(values["data"]) if values["data"] else None
        return cls(**values | paths | {"data": data})

    def to_json(self) -> str:
        """Write what another process needs."""
        values = asdict(replace(self, figures={}))
        del values["started"], values["figures"]
        return json.dumps(values, default=str)

    @property
    def torch_device(self) -> "torch.device":
        """The device to measure."""
        import torch  # takes seconds, and the process that starts the parts does without

        return torch.device(self.device)

    def environment(self) -> dict[str, str]:
        """Return the environment for a script of this project, whose home is the working folder."""
        return os.environ | {"ALEXNET_HOME": str(self.work)}

    @property
    def seconds_left(self) -> float:
        """The seconds until the deadline."""
        return self.seconds - (time.monotonic() - self.started)

    def record(self, **figures: Any) -> None:
        """Add figures to the result at once, so that a part that is stopped leaves what it has."""
        self.figures.update(figures)
        self.write("stopped")

    def attempt(self, name: str, call: Callable[[], Any]) -> None:
        """Add what a call returns, or how it failed, which stops nothing else of the part."""
        try:
            self.record(**{name: call()})
        except Exception as error:  # noqa: BLE001 - it is in the report
            traceback.print_exc()
            self.record(**{name: {"error": f"{type(error).__name__}: {error}"[:1500]}})

    def write(self, status: str, error: str = "") -> None:
        """Write the result so far."""
        seconds = time.monotonic() - self.started
        result = {"part": self.part, "status": status, "seconds": round(seconds, 1)}
        content = result | {"error": error, "figures": self.figures}
        write_atomically(result_file(self.work, self.part), json.dumps(content, default=str))


def result_file(work: Path, part: str) -> Path:
    """Return the file with a part's result, under the folder that the parts share."""
    folder = work / "results"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{part}.json"
