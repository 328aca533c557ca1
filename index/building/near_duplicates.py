"""How near is nearly the same: the distance between an image and itself slightly changed.

A photograph that was saved again, shrunk a little or cut a little differently is still the same
one, but its pixels, and so its features, are not. How far features move then depends on the
weights, so it is measured: on a sample, whenever an index is built.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from model.decode import ImageError, decode_image
from model.predict import Pixels, Predictor
from model.preprocess import central_square, decode_square
from storage.parallel import map_ahead

Doubles = npt.NDArray[np.float64]
JPEG_QUALITY = 75
"""Of the JPEG that a sample is saved as again: what most programs take by default."""
SHRINK_FACTOR = 0.97
CROPPED_SHARE = 0.01
"""How much smaller, and by what share of its sides cut off, the other changed image is."""
PERCENTILE = 95
MAX_SHARE_OF_NEAREST = 0.5
"""The share of the distance to an ordinary nearest image that is never exceeded."""
BATCH = 64


def near_duplicate_distance(
    predictor: Predictor, paths: Sequence[Path], seed: int = 0, sample: int = 64
) -> float:
    """The distance at and below which two images are nearly the same one.

    Of up to `sample` photographs, drawn by the seed, each is saved again as a JPEG of quality 75,
    and each is cut by 1 % at its left and top and shrunk to 97 %. The answer is the 95th
    percentile of the distances between their fc7 features and the photographs' own, but at most
    half the median distance from a photograph of the sample to the nearest other of it, so that
    an ordinary neighbour is not taken for a copy. 0 when no photograph can be read.
    """
    chosen = np.random.default_rng(seed).permutation(len(paths))[:sample].tolist()
    changed = [
        trio for trio in map_ahead(original_and_variants, [paths[i] for i in chosen], BATCH) if trio
    ]
    if not changed:
        return 0.0
    squares = np.stack([square for trio in changed for square in trio])
    parts = [
        predictor.extract_features(squares[i : i + BATCH]) for i in range(0, len(squares), BATCH)
    ]
    features = np.concatenate(parts).reshape(len(changed), 3, -1).astype(np.float64)
    own = features[:, :1]
    moved = np.linalg.norm(features[:, 1:] - own, axis=2)
    return min(
        float(np.percentile(moved, PERCENTILE)),
        MAX_SHARE_OF_NEAREST * median_nearest_distance(features[:, 0]),
    )


def original_and_variants(path: Path) -> tuple[Pixels, Pixels, Pixels] | None:
    """A photograph as the network sees it, and both changed ones; None if it is unreadable."""
    try:
        image = decode_image(path.read_bytes())
        return (
            central_square(image),
            decode_square(encode_jpeg(image)),
            central_square(crop_and_shrink(image)),
        )
    except (ImageError, OSError):
        return None


def encode_jpeg(image: Image.Image) -> bytes:
    """The bytes of a JPEG."""
    out = io.BytesIO()
    image.save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue()


def crop_and_shrink(image: Image.Image) -> Image.Image:
    """The image without its left and top edge, and smaller."""
    width, height = image.size
    left, top = int(width * CROPPED_SHARE), int(height * CROPPED_SHARE)
    size = max(1, round(width * SHRINK_FACTOR)), max(1, round(height * SHRINK_FACTOR))
    return image.resize(size, Image.Resampling.BICUBIC, box=(left, top, width, height))


def median_nearest_distance(features: Doubles) -> float:
    """The median distance to the nearest image that is another; infinite when there is none."""
    squares = np.square(features).sum(axis=1)
    apart = np.sqrt(np.maximum(squares[:, None] + squares - 2 * features @ features.T, 0))
    apart[apart <= 1e-6 * (1 + apart.max())] = np.inf
    nearest = apart.min(axis=1)
    found = nearest[np.isfinite(nearest)]
    return float(np.median(found)) if len(found) else np.inf
