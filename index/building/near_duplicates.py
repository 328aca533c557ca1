"""The distance below which two images count as near-duplicates.

Re-encoding a photograph, or cropping and scaling it slightly, changes its pixels and so its
features. How far the features move depends on the weights, so it is measured on a sample whenever
an index is built.
"""

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from index.building.extractor import IMAGES_PER_BATCH
from index.sample import make_thumbnail
from index.vectors import Doubles
from model.image.decode import ImageError, decode_image
from model.image.preprocess import make_square
from model.network.config import Resize
from model.predict import Pixels, Predictor
from storage.parallel import map_ahead

JPEG_QUALITY = 75
"""The default of most programs."""
SHRINK_FACTOR = 0.97
CROPPED_SHARE = 0.01
"""The scale of the cropped variant, and the share of each side that is cropped."""
PERCENTILE = 95
MAX_SHARE_OF_NEAREST = 0.5
"""The limit, as a share of the distance to an ordinary nearest image."""


def measure_near_duplicate_distance(
    predictor: Predictor, paths: Sequence[Path], seed: int = 0, sample: int = 64
) -> float:
    """Measure the distance up to which two images count as near-duplicates.

    Each of up to `sample` photographs, drawn by the seed, is saved again as a JPEG of quality 75,
    and cropped by 1 % at the left and top and scaled to 97 %. The result is the 95th percentile of
    the distances between the fc7 features of these and of the photographs, but at most half the
    median distance from a photograph to the nearest other one in the sample, so that an ordinary
    neighbour does not pass for a copy. 0 if no photograph can be read.
    """
    chosen = np.random.default_rng(seed).permutation(len(paths))[:sample].tolist()
    decode = partial(decode_with_variants, predictor=predictor)
    changed = [
        trio for trio in map_ahead(decode, [paths[i] for i in chosen], IMAGES_PER_BATCH) if trio
    ]
    if not changed:
        return 0.0
    squares = np.stack([square for trio in changed for square in trio])
    parts = [
        predictor.extract_features(squares[i : i + IMAGES_PER_BATCH])
        for i in range(0, len(squares), IMAGES_PER_BATCH)
    ]
    features = np.concatenate(parts).reshape(len(changed), 3, -1).astype(np.float64)
    own = features[:, :1]
    moved = np.linalg.norm(features[:, 1:] - own, axis=2)
    return min(
        float(np.percentile(moved, PERCENTILE)),
        MAX_SHARE_OF_NEAREST * compute_median_nearest_distance(features[:, 0]),
    )


def measure_near_duplicate_pixels(
    paths: Sequence[Path], resize: Resize, seed: int = 0, sample: int = 64
) -> float:
    """Measure the distance up to which two thumbnails count as near-duplicates.

    As `measure_near_duplicate_distance`, of 32×32 thumbnails instead of features.
    """
    chosen = np.random.default_rng(seed).permutation(len(paths))[:sample].tolist()

    def shrink(path: Path) -> Doubles | None:
        try:
            image = decode_image(path.read_bytes(), trusted=True)
        except (ImageError, OSError):
            return None
        variants = (image, decode_image(encode_jpeg(image)), crop_and_shrink(image))
        squares = [make_square(variant, resize=resize) for variant in variants]
        return np.stack([make_thumbnail(square).reshape(-1) for square in squares]).astype(float)

    found = [
        three
        for three in map_ahead(shrink, [paths[i] for i in chosen], IMAGES_PER_BATCH)
        if three is not None
    ]
    if not found:
        return 0.0
    thumbnails = np.stack(found)
    moved = np.linalg.norm(thumbnails[:, 1:] - thumbnails[:, :1], axis=2)
    return min(
        float(np.percentile(moved, PERCENTILE)),
        MAX_SHARE_OF_NEAREST * compute_median_nearest_distance(thumbnails[:, 0]),
    )


def decode_with_variants(path: Path, predictor: Predictor) -> tuple[Pixels, Pixels, Pixels] | None:
    """Decode a photograph and its two variants, uint8 [256, 256, 3] each; None if unreadable."""
    try:
        image = decode_image(path.read_bytes(), trusted=True)
        return (
            predictor.make_square(image),
            predictor.decode_square(encode_jpeg(image)),
            predictor.make_square(crop_and_shrink(image)),
        )
    except (ImageError, OSError):
        return None


def encode_jpeg(image: Image.Image) -> bytes:
    """Encode an image as JPEG."""
    out = io.BytesIO()
    image.save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue()


def crop_and_shrink(image: Image.Image) -> Image.Image:
    """Crop 1 % at the left and top, and scale to 97 %."""
    width, height = image.size
    left, top = int(width * CROPPED_SHARE), int(height * CROPPED_SHARE)
    size = max(1, round(width * SHRINK_FACTOR)), max(1, round(height * SHRINK_FACTOR))
    return image.resize(size, Image.Resampling.BICUBIC, box=(left, top, width, height))


def compute_median_nearest_distance(features: Doubles) -> float:
    """Compute the median distance to the nearest image that is not a copy; infinity without any.

    features: float64 [N, 4096].
    """
    squares = np.square(features).sum(axis=1)
    apart = np.sqrt(np.maximum(squares[:, None] + squares - 2 * features @ features.T, 0))
    apart[apart <= 1e-6 * (1 + apart.max())] = np.inf
    nearest = apart.min(axis=1)
    finite = nearest[np.isfinite(nearest)]
    return float(np.median(finite)) if len(finite) else np.inf
