"""What is known about cards beforehand: the peak of each, and how two processes can exchange."""

from dataclasses import dataclass

PEAKS = (
    ("B200", 2250.0),
    ("GH200", 989.0),
    ("H200", 989.0),
    ("H100 NVL", 835.0),
    ("H100 PCIe", 756.0),
    ("H100", 989.0),
    ("A100", 312.0),
    ("A40", 150.0),
    ("A30", 165.0),
    ("A10", 125.0),
    ("L40S", 362.0),
    ("L40", 181.0),
    ("L4", 121.0),
    ("RTX 5090", 209.0),
    ("RTX 4090", 165.0),
    ("RTX 4080", 97.0),
    ("RTX 3090", 71.0),
    ("RTX 3080", 60.0),
)
"""Dense bf16 products with sums in float32, in TFLOP/s, by a part of the card's name; from the
makers' data sheets. The first that fits counts."""


def find_peak(name: str) -> float | None:
    """Return a card's peak in bf16, in FLOP/s; None if it is not known."""
    peaks = (peak for known, peak in PEAKS if known.lower() in name.lower())
    peak = next(peaks, None)
    return peak * 1e12 if peak else None


@dataclass(frozen=True)
class Exchange:
    """A way for two processes to exchange activations.

    staged: whether tensors pass through the CPU's memory, because the backend takes no others.
    """

    backend: str
    gpus: int
    staged: bool = False

    @property
    def name(self) -> str:
        """Its name in the report."""
        where = {0: "on the CPU", 1: "on one card"}.get(self.gpus, "on two cards")
        return f"{self.backend} {where}" + ", through the CPU's memory" * self.staged


def list_exchanges(gpus: int, nccl: bool) -> list[Exchange]:
    """List the ways to try, best first, on a machine with so many GPUs, until one works.

    NCCL usually refuses two processes on one card, and gloo takes some operations only on the CPU.
    """
    if gpus == 0:
        return [Exchange("gloo", 0)]
    used = min(gpus, 2)
    ways = [Exchange("nccl", used)] if nccl else []
    return [*ways, Exchange("gloo", used), Exchange("gloo", used, staged=True)]
