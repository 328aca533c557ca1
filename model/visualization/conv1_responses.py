"""The responses of a network's conv1, and the patches that its kernels see.

Responses are conv1's output for the centre crop before the ReLU; a patch is what a kernel sees at
one position of its map. Positions are flat: row · width + column.
"""

from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from model.image.preprocess import CENTRE_CROP, crop_offsets
from model.image.ten_crop import centre_crop
from model.predict import Predictor
from model.runtime.protocol import Floats, Pixels
from model.runtime.torch_runtime import to_numpy

Positions = npt.NDArray[np.int64]


class Conv1Responses:
    """The responses of a network's conv1 to images, and the patches its kernels see."""

    def __init__(self, predictor: Predictor) -> None:
        module, config = predictor.network.first_conv, predictor.config
        self.predictor, self.crop, self.side = predictor, config.crop, config.side
        self.kernel_count, self.kernel_size = module.out_channels, module.kernel_size[0]
        self.stride = module.stride[0]
        self.margin = crop_offsets(config.side, config.crop)[CENTRE_CROP][0]
        self.padding = module.padding[0] if isinstance(module.padding, tuple) else 0

    @torch.inference_mode()
    def compute_maps(self, squares: Pixels) -> Tensor:
        """Compute conv1's maps of the centre crops: uint8 [N, 256, 256, 3] → [N, 96, 55, 55]."""
        maps = centre_crop(self.predictor.prepare_input(squares), self.crop)
        for layer in self.predictor.network.children():
            maps = layer(maps)
            if isinstance(layer, nn.Conv2d):
                break
        return maps

    def find_strongest(self, square: Pixels) -> tuple[Floats, Positions]:
        """Find each kernel's strongest response: float32 [96] values, int64 [96] positions.

        square: uint8 [256, 256, 3]. Of equal responses the first counts. One image at a time is as
        fast on a CPU as many, and the last bits of the result do not depend on other images.
        """
        values, positions = self.compute_maps(square[None])[0].flatten(1).max(dim=1)
        return to_numpy(values), positions.cpu().numpy()

    @cached_property
    def map_side(self) -> int:
        """The side of conv1's maps: 55."""
        return int(self.compute_maps(np.zeros((1, self.side, self.side, 3), np.uint8)).shape[-1])

    def unravel(self, positions: Positions) -> Positions:
        """Convert flat positions to rows and columns: int64 [...] → int64 [..., 2]."""
        return np.stack(np.divmod(positions, self.map_side), axis=-1)

    def cut_patch(self, square: Pixels, position: int) -> Pixels:
        """Cut the pixels that a kernel sees at a position: uint8 [11, 11, 3].

        Beyond the crop, where the network has zeros, it holds the mean image, which becomes zero
        once the mean is subtracted.
        """
        first = self.margin - self.padding
        rows, columns = (
            first + place * self.stride + np.arange(self.kernel_size)
            for place in divmod(int(position), self.map_side)
        )
        last = self.margin + self.crop
        seen = [(self.margin <= along) & (along < last) for along in (rows, columns)]
        near = (np.minimum(np.maximum(along, 0), self.side - 1) for along in (rows, columns))
        at = np.ix_(*near)
        patch: Pixels = np.where(np.logical_and.outer(*seen)[..., None], square[at], self.mean[at])
        return patch

    @cached_property
    def mean(self) -> Pixels:
        """The mean image rounded to pixels: uint8 [256, 256, 3]."""
        rounded = np.rint(to_numpy(self.predictor.loaded.mean)).clip(0, 255).astype(np.uint8)
        return np.ascontiguousarray(rounded.transpose(1, 2, 0))
