"""What the field did before: SIFT features, Fisher vectors, a linear classifier (Table 1)."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from experiments.arms import Arm
from experiments.claims.experiment import Experiment, Setting
from experiments.claims.result import Count, RunResult, name_result, pack, read_result
from experiments.claims.runner import Workplace
from experiments.claims.train import Parts, describe_run, divide
from training.dataset.store import Split
from training.evaluation.predictions import ResultKey, rank_predictions
from training.recipe.config import PAPER
from training.records.callbacks import StoppedError

ARM = "SIFT + Fisher vectors"
DESCRIPTORS, DIMENSIONS, GAUSSIANS = 300, 64, 64
"""SIFT descriptors of an image at most, their dimensions after PCA, Gaussians of the mixture."""
MIXTURE_DESCRIPTORS = 100_000
"""Descriptors that PCA and mixture are fitted to."""
COSTS = (0.1, 1.0, 10.0)
"""Of errors, in the linear SVM: what is chosen on the training images held out."""
IMAGES_PER_BLOCK = 256
Floats = npt.NDArray[np.float32]


def measure_baseline(experiment: Experiment, setting: Setting, seeds: int, work: Workplace) -> None:
    """Measure the classifier with several seeds, on the networks' images. Raises StoppedError."""
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
    folder = work.home.root / "experiments" / "sift" / parts.data.fingerprint.replace(" ", "-")
    splits = {"train": parts.train.train, "held out": parts.train.val, "test": parts.test.val}
    described_images = {
        name: describe_split(split, folder / name, work) for name, split in splits.items()
    }
    encoder = FisherEncoder(described_images["train"], described.seed)
    vectors = {name: encoder.encode(images) for name, images in described_images.items()}
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


def describe_split(split: Split, folder: Path, work: Workplace) -> list[Floats]:
    """Compute the SIFT descriptors of every image, float32 [n, 128] each, block by block on disk.

    Raises StoppedError; the blocks that are finished stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: list[Floats] = []
    for start in range(0, len(split), IMAGES_PER_BLOCK):
        file = folder / f"{start:08d}.npz"
        if not file.exists():
            if stop := work.is_time_over():
                raise StoppedError(stop)
            rows = np.arange(start, min(start + IMAGES_PER_BLOCK, len(split)))
            images = list(describe_images(split, rows))
            part = file.with_suffix(".part.npz")
            np.savez_compressed(part, counts=[len(i) for i in images], all=np.concatenate(images))
            part.rename(file)
        with np.load(file) as block:
            ends = np.cumsum(block["counts"])[:-1]
            found += np.split(block["all"].astype(np.float32) / 512, ends)
    return found


def describe_images(split: Split, rows: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield each image's SIFT descriptors, uint8 [n, 128], drawn from all of them by its row."""
    from skimage.color import rgb2gray
    from skimage.feature import SIFT

    for row, image in zip(rows, split.iter_images(rows), strict=True):
        sift = SIFT(upsampling=1)  # type: ignore[no-untyped-call]
        try:
            sift.detect_and_extract(rgb2gray(image))  # type: ignore[no-untyped-call]
            descriptors = np.asarray(sift.descriptors, np.uint8)
        except RuntimeError:
            # No keypoint was found: an image without contrast.
            descriptors = np.zeros((1, 128), np.uint8)
        order = np.random.default_rng(row).permutation(len(descriptors))[:DESCRIPTORS]
        yield descriptors[np.sort(order)]


class FisherEncoder:
    """Fisher vectors, improved (Perronnin 2010), of RootSIFT descriptors after PCA."""

    def __init__(self, images: list[Floats], seed: int) -> None:
        from skimage.feature import learn_gmm

        every = np.concatenate(images)
        chosen = np.random.default_rng(seed).permutation(len(every))[:MIXTURE_DESCRIPTORS]
        sample = take_roots(every[chosen])
        self.mean = sample.mean(0)
        _, _, axes = np.linalg.svd(sample - self.mean, full_matrices=False)
        self.axes = axes[:DIMENSIONS]
        modes = min(GAUSSIANS, len(sample) // 2)
        self.mixture = learn_gmm(  # type: ignore[no-untyped-call]
            [self.project(sample)],
            n_modes=modes,
            gm_args={"covariance_type": "diag", "random_state": seed, "max_iter": 50},
        )

    def project(self, descriptors: Floats) -> Floats:
        """Project RootSIFT descriptors: float32 [n, 128] → [n, 64]."""
        projected: Floats = (descriptors - self.mean) @ self.axes.T
        return projected

    def encode(self, images: list[Floats]) -> npt.NDArray[np.float64]:
        """Compute each image's Fisher vector: [N, 2 · 64 · 64 + 64]."""
        return np.stack([self.encode_image(image) for image in images])

    def encode_image(self, descriptors: Floats) -> npt.NDArray[np.float64]:
        """Compute the Fisher vector of one image's descriptors, float32 [n, 128]."""
        from skimage.feature import fisher_vector

        vector: npt.NDArray[np.float64] = fisher_vector(  # type: ignore[no-untyped-call]
            self.project(take_roots(descriptors)), self.mixture, improved=True
        )
        return vector


def take_roots(descriptors: Floats) -> Floats:
    """Return RootSIFT descriptors (Arandjelović 2012): the roots of shares of the sum."""
    roots: Floats = np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-12))
    return roots
