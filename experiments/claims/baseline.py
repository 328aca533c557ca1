"""What the field did before: SIFT features, Fisher vectors, a linear classifier (Table 1).

OpenCV computes the descriptors, on a grid and at several scales as in Sánchez and Perronnin,
"High-dimensional signature compression for large-scale image classification" (CVPR 2011);
scikit-image the Fisher vectors, scikit-learn the classifier.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch

from experiments.arms import Arm
from experiments.claims.experiment import Experiment, Setting
from experiments.claims.result import Count, ResultError, RunResult, name_result, pack, read_result
from experiments.claims.runner import Workplace
from experiments.claims.train import Parts, describe_run, divide
from training.dataset.store import Split
from training.evaluation.predictions import ResultKey, rank_predictions
from training.recipe.config import PAPER
from training.records.callbacks import StoppedError

ARM = "SIFT + Fisher vectors"
STEP, PATCHES = 8, (16, 24, 36, 54)
"""Pixels between the grid's points, and along the side of what a descriptor describes."""
PATCH_PER_SIZE = 6
"""OpenCV's SIFT describes 4 × 4 cells, each 1.5 times as wide as what it calls a point's size."""
DIMENSIONS, GAUSSIANS = 64, 64
"""Of descriptors after PCA; and of the mixture."""
MIXTURE_IMAGES, MIXTURE_DESCRIPTORS = 1000, 100
"""Training images that PCA and mixture are fitted to, and descriptors of each."""
COSTS = (0.1, 1.0, 10.0)
"""Of errors, in the linear SVM: what is chosen on the training images held out."""
IMAGES_PER_BLOCK = 256
Floats = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]


def measure_baseline(experiment: Experiment, setting: Setting, seeds: int, work: Workplace) -> None:
    """Measure the classifier with several seeds, on the networks' images.

    Raises StoppedError, and ResultError without OpenCV.
    """
    parts = divide(work.data, setting)
    for seed in range(seeds):
        arm = Arm(name=ARM, recipe=replace(PAPER, seed=seed))
        described = replace(
            describe_run(experiment.name, arm, parts, "f32", search=False), recipe={}
        )
        name = name_result(experiment.name, parts.data, 0, ARM, seed)
        file = work.results / name
        if file.exists() and read_result(file).identity == described.identity:
            continue
        result = measure_seed(described, parts, work)
        result.write(file)
        work.console.print(f"{name}: top-1 {result.errors['crops top-1'].error:.2%}")


def measure_seed(described: RunResult, parts: Parts, work: Workplace) -> RunResult:
    """Fit everything to the training images, choose the cost, and test once."""
    from sklearn.svm import LinearSVC  # slow to import

    cpu, start = time.process_time(), time.perf_counter()
    name = f"{parts.data.fingerprint.replace(' ', '-')}-seed{described.seed}"
    folder = work.home.root / "experiments" / "fisher" / name
    splits = {"train": parts.train.train, "held out": parts.train.val, "test": parts.test.val}
    encoder = FisherEncoder(draw_descriptors(splits["train"], described.seed), described.seed)
    vectors = {
        name: encode_split(encoder, split, folder / name, work) for name, split in splits.items()
    }
    errors: dict[float, float] = {}
    machines = {}
    for cost in COSTS:
        machines[cost] = LinearSVC(C=cost, random_state=described.seed)
        machines[cost].fit(vectors["train"], splits["train"].classes)
        guesses = machines[cost].predict(vectors["held out"])
        errors[cost] = float((guesses != splits["held out"].classes).mean())
    best = min(errors, key=lambda cost: (errors[cost], cost))
    scores = machines[best].decision_function(vectors["test"])
    true = torch.from_numpy(splits["test"].classes)
    ranks = rank_predictions(torch.from_numpy(scores), true, ResultKey(ARM, "centre")).rank
    return replace(
        described,
        errors={
            f"{crops} top-{guesses}": Count(wrong=int((ranks >= guesses).sum()), images=len(ranks))
            # It sees the whole image, whatever the crops are for the networks.
            for crops in ("centre", "crops")
            for guesses in (1, 5)
        },
        per_image={"crops": pack(ranks >= 1)},
        measured={"cost": best, "error held out": round(errors[best], 6)},
        cpu_seconds=round(time.process_time() - cpu, 1),
        seconds=round(time.perf_counter() - start, 1),
    )


def draw_descriptors(split: Split, seed: int) -> Floats:
    """Draw descriptors of some images, for what is fitted to them: float32 [n, 128]."""
    random = np.random.default_rng(seed)
    rows = np.sort(random.permutation(len(split))[:MIXTURE_IMAGES])
    found = [describe_image(image) for image in split.iter_images(rows)]
    return np.concatenate(
        [one[random.permutation(len(one))[:MIXTURE_DESCRIPTORS]] for one in found]
    )


def encode_split(encoder: "FisherEncoder", split: Split, folder: Path, work: Workplace) -> Floats:
    """Compute the Fisher vector of every image, float32 [N, D], block by block on disk.

    Raises StoppedError; the blocks that are finished stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: list[Floats] = []
    for start in range(0, len(split), IMAGES_PER_BLOCK):
        file = folder / f"{start:08d}.npy"
        if not file.exists():
            if stop := work.is_time_over():
                raise StoppedError(stop)
            rows = np.arange(start, min(start + IMAGES_PER_BLOCK, len(split)))
            block = [encoder.encode(describe_image(image)) for image in split.iter_images(rows)]
            part = file.with_suffix(".part.npy")
            np.save(part, np.stack(block))
            part.rename(file)
        found.append(np.load(file))
    return np.concatenate(found)


def describe_image(image: Image) -> Floats:
    """Compute the SIFT descriptors of uint8 [s, s, 3] on a grid: float32 [n, 128], 0–255."""
    sift, grid = make_sift(), make_grid(len(image))
    descriptors: Floats = sift.compute(rgb_to_grey(image), grid)[1]
    return descriptors


@cache
def make_sift() -> Any:
    """Make OpenCV's SIFT, on one thread. Raises ResultError without OpenCV."""
    try:
        import cv2
    except ImportError as error:
        raise ResultError(
            "SIFT needs OpenCV: `pip install -c constraints.txt -e '.[sift]'`"
        ) from error
    cv2.setNumThreads(1)
    return cv2.SIFT.create()


@cache
def make_grid(side: int) -> Sequence[Any]:
    """Make the points that are described in a square of so many pixels."""
    import cv2

    places = np.arange(STEP, side - STEP + 1, STEP, dtype=float).tolist()
    return [
        cv2.KeyPoint(x, y, patch / PATCH_PER_SIZE, 0.0)
        for patch, y, x in product(PATCHES, places, places)
    ]


def rgb_to_grey(image: Image) -> Image:
    """Convert uint8 [s, s, 3] to grey levels: uint8 [s, s]."""
    return np.asarray(PIL.Image.fromarray(image).convert("L"))


class FisherEncoder:
    """Fisher vectors, improved (Perronnin 2010), of RootSIFT descriptors after PCA."""

    def __init__(self, descriptors: Floats, seed: int) -> None:
        """Fit PCA and mixture to float32 [n, 128]."""
        from skimage.feature import learn_gmm

        sample = take_roots(descriptors)
        self.mean = sample.mean(0)
        _, _, axes = np.linalg.svd(sample - self.mean, full_matrices=False)
        self.axes = axes[:DIMENSIONS]
        self.mixture = learn_gmm(  # type: ignore[no-untyped-call]
            [self.project(sample)],
            n_modes=min(GAUSSIANS, len(sample) // 2),
            gm_args={"covariance_type": "diag", "random_state": seed, "max_iter": 50},
        )

    def project(self, descriptors: Floats) -> Floats:
        """Project RootSIFT descriptors: float32 [n, 128] → [n, 64]."""
        projected: Floats = (descriptors - self.mean) @ self.axes.T
        return projected

    def encode(self, descriptors: Floats) -> Floats:
        """Compute the Fisher vector of one image's descriptors: float32 [n, 128] → [D]."""
        from skimage.feature import fisher_vector

        vector: npt.NDArray[np.float64] = fisher_vector(  # type: ignore[no-untyped-call]
            self.project(take_roots(descriptors)), self.mixture, improved=True
        )
        return vector.astype(np.float32)


def take_roots(descriptors: Floats) -> Floats:
    """Return RootSIFT descriptors (Arandjelović 2012): the roots of shares of the sum."""
    roots: Floats = np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-12))
    return roots
