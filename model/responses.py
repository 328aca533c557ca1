"""What conv1's kernels answer to the centre crop, before the ReLU, and what they see there (§6.1).

A place is a row and a column of conv1's maps; its spot is both in one number, row · width + column.
"""

from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.predict import Floats, Pixels, Predictor, to_numpy
from model.preprocess import centre_crop, offsets

Spots = npt.NDArray[np.int64]


class Conv1:
    """conv1 of a network: its kernels' answers, and the patches they see."""

    def __init__(self, predictor: Predictor) -> None:
        module, config = predictor.network.conv1, predictor.network.config
        self.predictor, self.crop, self.square = predictor, config.crop, config.side
        self.kernels, self.size = module.out_channels, module.kernel_size[0]
        self.stride, self.margin = module.stride[0], offsets(config.side, config.crop)[4][0]
        self.padding = module.padding[0] if isinstance(module.padding, tuple) else 0

    @torch.inference_mode()
    def maps(self, squares: Pixels) -> Tensor:
        """conv1's maps of the centre crops: uint8 [N, 256, 256, 3] → float32 [N, 96, 55, 55]."""
        maps = centre_crop(self.predictor.prepare(squares), self.crop)
        for name, layer in self.predictor.network.named_children():
            maps = layer(maps)
            if name == "conv1":
                break
        return maps

    def strongest(self, square: Pixels) -> tuple[Floats, Spots]:
        """Each kernel's strongest answer to one image, float32 [96], and its spot, int64 [96].

        The first of equal ones. One image at a time is as fast on a CPU as many, and what it gives
        does not depend, in its last bits, on the images beside.
        """
        values, spots = self.maps(square[None])[0].flatten(1).max(dim=1)
        return to_numpy(values), spots.cpu().numpy()

    @cached_property
    def width(self) -> int:
        """The side of conv1's maps: 55."""
        return int(self.maps(np.zeros((1, self.square, self.square, 3), np.uint8)).shape[-1])

    def places(self, spots: Spots) -> Spots:
        """Spots as rows and columns: int64 [...] → int64 [..., 2]."""
        return np.stack(np.divmod(spots, self.width), axis=-1)

    def patch(self, square: Pixels, spot: int) -> Pixels:
        """What a kernel sees at a spot: uint8 [11, 11, 3].

        Beyond the crop, where the network has zeros, the mean image: zero once it is subtracted.
        """
        first = self.margin - self.padding
        rows, columns = (
            first + place * self.stride + np.arange(self.size)
            for place in divmod(int(spot), self.width)
        )
        last = self.margin + self.crop
        seen = [(self.margin <= along) & (along < last) for along in (rows, columns)]
        near = (np.minimum(np.maximum(along, 0), self.square - 1) for along in (rows, columns))
        at = np.ix_(*near)
        patch: Pixels = np.where(np.logical_and.outer(*seen)[..., None], square[at], self.mean[at])
        return patch

    @cached_property
    def mean(self) -> Pixels:
        """The mean image as pixels: uint8 [256, 256, 3]."""
        rounded = np.rint(to_numpy(self.predictor.mean)).clip(0, 255).astype(np.uint8)
        return np.ascontiguousarray(rounded.transpose(1, 2, 0))
