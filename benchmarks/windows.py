"""Features of as many crops of photographs as a measurement needs, in slices on disk.

The convolutional layers run once over a square larger than the network's own, in which every 32
pixels, the stride of pool5, another crop of 224×224 begins; only fc6 and fc7 are computed for each
crop. So a crop costs a tenth of a photograph. It differs from one cut out in what lies around it:
the border layers see the neighbouring pixels where a crop's edge has zeros.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from model.predict import Predictor
from model.preprocess import read_square

STRIDE = 32
"""Pixels from one place of pool5 to the next."""
STEPS = (5, 6, 7, 8)
"""How many places beyond the first fit along a side: squares of 384 to 480 pixels."""
SLICE = 16384
"""Features in a file: 128 MiB in float16."""
GROUP = 8
"""Photographs that pass the convolutional layers together."""
Halves = npt.NDArray[np.float16]


def make_slices(
    predictor: Predictor,
    photographs: Sequence[Path],
    count: int,
    folder: Path,
    on_progress: Callable[[int], None] = lambda _count: None,
) -> list[Path]:
    """Have the features of at least `count` crops lie in `folder`, float16 [16384, 4096] a file.

    Begins with the photographs' own centre crops. Slices that are there are not made again. The
    crops of a slice follow from its number alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number:05}.npy" for number in range(-(-count // SLICE))]
    for number, file in enumerate(files):
        if not file.exists():
            part = file.with_suffix(".part")
            with part.open("wb") as out:
                np.save(out, make_slice(predictor, photographs, number))
            part.rename(file)
        on_progress((number + 1) * SLICE)
    return files


def make_slice(predictor: Predictor, photographs: Sequence[Path], number: int) -> Halves:
    """Features of one slice: float16 [16384, 4096]."""
    found = np.empty((SLICE, 4096), np.float16)
    filled = 0
    for rows in parts(predictor, photographs, number):
        rows = rows[: SLICE - filled]
        found[filled : filled + len(rows)] = rows
        filled += len(rows)
        if filled == SLICE:
            break
    return found


def parts(predictor: Predictor, photographs: Sequence[Path], number: int) -> Iterator[Halves]:
    """Features without end; the first slice begins with the photographs themselves."""
    if number == 0:
        for start in range(0, min(len(photographs), SLICE), 64):
            some = photographs[start : start + 64]
            yield predictor.extract_features(np.stack([read_square(file) for file in some])).astype(
                "f2"
            )
    random = np.random.default_rng([2012, number])
    while True:
        chosen = random.choice(len(photographs), GROUP, replace=False)
        steps = int(random.choice(STEPS))
        squares = np.stack([read_square(photographs[i]) for i in chosen])
        yield windows(predictor, squares, steps, bool(random.integers(2)))


@torch.inference_mode()
def windows(
    predictor: Predictor, squares: npt.NDArray[np.uint8], steps: int, mirror: bool
) -> Halves:
    """Features of (steps + 1)² crops of each square: uint8 [N, 256, 256, 3] → [M, 4096]."""
    side = predictor.network.config.crop + STRIDE * steps
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
