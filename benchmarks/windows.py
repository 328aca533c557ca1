"""Features of as many crops of photographs as a measurement needs, in slices on disk.

The convolutional layers run once over an image larger than the network's input, in which a crop of
224×224 begins every 32 pixels, the stride of pool5; only fc6 and fc7 are computed for each crop. A
crop costs a tenth of a photograph that way. Its features differ slightly from those of the same
crop cut out, since the convolutions see the neighbouring pixels instead of zero padding.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from model.image.preprocess import read_square
from model.predict import Predictor

STRIDE = 32
"""Stride of pool5 in pixels of the image."""
EXTRA_POSITIONS = (5, 6, 7, 8)
"""Positions of a crop along a side, besides the first: images of 384 to 480 pixels."""
ROWS_PER_SLICE = 16384
"""Feature vectors in a file: 128 MiB in float16."""
PHOTOGRAPHS_PER_PASS = 8
"""Photographs that pass through the convolutional layers together."""
Float16s = npt.NDArray[np.float16]


def make_slices(
    predictor: Predictor,
    photographs: Sequence[Path],
    count: int,
    folder: Path,
    on_progress: Callable[[int], None] = lambda _count: None,
) -> list[Path]:
    """Write the features of at least `count` crops to `folder`, float16 [16384, 4096] per file.

    The photographs' own centre crops come first. Existing slices are kept: the crops of a slice
    are determined by its number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number:05}.npy" for number in range(-(-count // ROWS_PER_SLICE))]
    for number, file in enumerate(files):
        if not file.exists():
            part = file.with_suffix(".part")
            with part.open("wb") as out:
                np.save(out, make_slice(predictor, photographs, number))
            part.rename(file)
        on_progress((number + 1) * ROWS_PER_SLICE)
    return files


def make_slice(predictor: Predictor, photographs: Sequence[Path], number: int) -> Float16s:
    """Compute the features of one slice: float16 [16384, 4096]."""
    found = np.empty((ROWS_PER_SLICE, 4096), np.float16)
    filled = 0
    for rows in generate_features(predictor, photographs, number):
        rows = rows[: ROWS_PER_SLICE - filled]
        found[filled : filled + len(rows)] = rows
        filled += len(rows)
        if filled == ROWS_PER_SLICE:
            break
    return found


def generate_features(
    predictor: Predictor, photographs: Sequence[Path], number: int
) -> Iterator[Float16s]:
    """Yield features without end; the first slice begins with the photographs' centre crops."""
    if number == 0:
        for start in range(0, min(len(photographs), ROWS_PER_SLICE), 64):
            some = photographs[start : start + 64]
            yield predictor.extract_features(np.stack([read_square(file) for file in some])).astype(
                "f2"
            )
    random = np.random.default_rng([2012, number])
    while True:
        chosen = random.choice(len(photographs), PHOTOGRAPHS_PER_PASS, replace=False)
        steps = int(random.choice(EXTRA_POSITIONS))
        squares = np.stack([read_square(photographs[i]) for i in chosen])
        yield window_features(predictor, squares, steps, bool(random.integers(2)))


@torch.inference_mode()
def window_features(
    predictor: Predictor, squares: npt.NDArray[np.uint8], steps: int, mirror: bool
) -> Float16s:
    """Compute the features of (steps + 1)² crops per image: uint8 [N, 256, 256, 3] → [M, 4096]."""
    side = predictor.config.crop + STRIDE * steps
    pixels = predictor.prepare_input(squares)
    large = F.interpolate(pixels, (side, side), mode="bicubic", align_corners=False)
    x: Tensor = (large.flip(-1) if mirror else large).contiguous(memory_format=torch.channels_last)
    layers = list(predictor.network.named_children())
    at = [name for name, _ in layers].index("flatten")
    for _, layer in layers[:at]:
        x = layer(x)
    across = x.shape[-1] - steps
    found = x.unfold(2, across, 1).unfold(3, across, 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    fc7: Tensor = predictor.network.run_modules(found, layers[at:]).fc7
    return fc7.to(torch.float16).numpy()
