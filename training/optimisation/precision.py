"""The precision of the layers' arithmetic, and the scale of the loss that float16 needs."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Precision = Literal["f32", "bf16", "f16"]
"""float32, or a type of two bytes for the layers; weights, update and softmax stay float32."""
INITIAL_SCALE = 2.0**16
GROWTH_STEPS = 2000
"""Updates in a row after which the scale is doubled, as in torch.amp.GradScaler."""


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return a context in which layers compute in this precision."""
    dtype = torch.float16 if precision == "f16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision != "f32")


@dataclass
class LossScale:
    """What the loss is multiplied by before the gradients are computed in float16.

    float16 has no number between 0 and 6e-8, where many gradients lie. They are computed of the
    scaled loss and divided by the scale, a power of two, in float32. A step with a gradient that is
    not finite is skipped and the scale halved; after many updates it is doubled (Micikevicius et
    al. 2018, *Mixed precision training*, §3.2). torch's GradScaler does the same, but decides for
    each process apart; here all skip the same steps, and none in float32 or bf16.
    """

    value: float = INITIAL_SCALE
    updates: int = 0
    """Updates since the scale was last changed."""
    skipped: int = 0
    """Steps skipped in a row, up to now."""

    @torch.no_grad()
    def unscale(self, parameters: Iterable[Tensor]) -> bool:
        """Divide the gradients by the scale, in place; return whether one is not finite."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        for gradient in gradients:
            gradient.mul_(1 / self.value)
        # One transfer, since each waits for the device.
        return not bool(torch.stack([gradient.isfinite().all() for gradient in gradients]).all())

    def skip(self) -> None:
        """Halve the scale after a step whose gradients overflowed."""
        self.value, self.updates, self.skipped = self.value / 2, 0, self.skipped + 1

    def keep(self) -> None:
        """Count an update; double the scale after many."""
        self.updates, self.skipped = self.updates + 1, 0
        if self.updates == GROWTH_STEPS:
            self.value, self.updates = self.value * 2, 0
