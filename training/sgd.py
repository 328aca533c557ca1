"""The update rule of §5: v ← 0.9 v − 0.0005 ε w − ε g, then w ← w + v."""

from collections.abc import Iterable

import torch
from torch import Tensor


class PaperSGD(torch.optim.SGD):
    """torch's SGD, its velocity kept in the paper's units when the learning rate changes.

    torch keeps u ← 0.9 u + g + 0.0005 w and steps w ← w − ε u. With v = −ε u that is the paper's
    rule as long as ε stays; when ε changes, the paper's v carries the old ε with it, so u is
    multiplied by old ε / new ε. One fused pass over the weights on CPU and CUDA.
    """

    def __init__(
        self, params: Iterable[Tensor], rate: float, momentum: float, decay: float
    ) -> None:
        values = list(params)
        fused = all(p.device.type in ("cpu", "cuda") for p in values)
        super().__init__(values, lr=rate, momentum=momentum, weight_decay=decay, fused=fused)

    @property
    def rate(self) -> float:
        """The learning rate ε."""
        return float(self.param_groups[0]["lr"])

    def set_rate(self, rate: float) -> None:
        """Use another learning rate from the next step on."""
        old = self.rate
        if rate == old:
            return
        for velocity in self.velocities():
            velocity.mul_(old / rate)
        for group in self.param_groups:
            group["lr"] = rate

    def velocities(self) -> list[Tensor]:
        """Torch's u of every parameter that has been updated, in the parameters' order."""
        buffers = (self.state[p].get("momentum_buffer") for p in self.parameters())
        return [buffer for buffer in buffers if buffer is not None]

    @torch.no_grad()
    def restore(self, velocities: Iterable[Tensor]) -> None:
        """Take up the velocities of a checkpoint, in the parameters' order."""
        for parameter, velocity in zip(self.parameters(), velocities, strict=True):
            # Laid out in memory as the parameter is: the fused update walks both in step.
            self.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(velocity)

    def parameters(self) -> list[Tensor]:
        """The parameters, in order."""
        return [p for group in self.param_groups for p in group["params"]]
