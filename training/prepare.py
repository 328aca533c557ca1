"""A folder of photographs decoded once: 256×256 pixels in one file, mean image and PCA."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.checkpoint import Pca
from model.home import make_durable
from model.images import SIDE, ImageError, read_file
from model.photographs import ClassName, Folder, Photograph, digest

IMAGE_BYTES = SIDE * SIDE * 3
Progress = Callable[[int], None]


class DataError(ValueError):
    """Photographs that cannot be prepared for training."""


@dataclass(frozen=True)
class Split:
    """Images ready for training: uint8 [N, 256, 256, 3], mapped from disk; int64 [N] classes."""

    images: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Prepared:
    """A training set. `key` names its content; `unreadable` lists files left out, with why."""

    key: str
    root: Path
    names: tuple[ClassName, ...]
    train: Split
    val: Split
    mean: Tensor
    pca: Pca
    unreadable: tuple[str, ...]


@dataclass
class Moments:
    """Sums over the training set's pixels from which mean image and covariance follow."""

    count: int
    image: npt.NDArray[np.float64]
    outer: npt.NDArray[np.float64]

    @classmethod
    def zero(cls) -> "Moments":
        return cls(0, np.zeros((SIDE, SIDE, 3)), np.zeros((3, 3)))

    def add(self, pixels: npt.NDArray[np.uint8]) -> None:
        """Count one image: uint8 [256, 256, 3]."""
        values = pixels.astype(np.float64)
        flat = values.reshape(-1, 3)
        self.count += 1
        self.image += values
        self.outer += flat.T @ flat

    def mean_image(self) -> Tensor:
        """Float32 [3, 256, 256], 0–255: the mean activity of each pixel (§2)."""
        return torch.from_numpy(self.image / self.count).permute(2, 0, 1).float().contiguous()

    def pca(self) -> Pca:
        """Principal components of the RGB values, taken as 0–1, of all pixels (§4.1)."""
        pixels = self.count * SIDE * SIDE
        mean = self.image.sum(axis=(0, 1)) / pixels
        covariance = (self.outer / pixels - np.outer(mean, mean)) / 255.0**2
        values, vectors = np.linalg.eigh(covariance)
        falling = np.ascontiguousarray(vectors[:, ::-1])
        return Pca(torch.tensor(values[::-1].copy()).float(), torch.tensor(falling).float())


def prepare(folder: Folder, store: Path, progress: Progress) -> Prepared:
    """Decode every photograph of a folder into `store`, or open what was decoded before.

    Files that cannot be read are left out and named. `progress` is called with 1 for each.
    Raises DataError when the disk has too little room or a class has no readable photograph.
    """
    key = digest(folder.root, (*folder.train, *folder.val))[:16]
    place = store / key
    if (place / "meta.json").exists():
        progress(len(folder.train) + len(folder.val))
        return open_prepared(place, folder)
    remove_leftovers(store)
    check_room(store, len(folder.train) + len(folder.val))
    part = store / f".{key}.{os.getpid()}.part"
    part.mkdir(parents=True)
    try:
        decode_into(part, folder, progress)
        make_durable(part)
        part.rename(place)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return open_prepared(place, folder)


def check_room(store: Path, images: int) -> None:
    """Raise DataError unless the disk can hold so many decoded images."""
    store.mkdir(parents=True, exist_ok=True)
    need, free = images * IMAGE_BYTES, shutil.disk_usage(store).free
    if need > free:
        raise DataError(
            f"{images:,} images at 256×256 need {need / 1e9:.1f} GB under {store}, which has "
            f"{free / 1e9:.1f} GB free; make room or set ALEXNET_HOME to another disk"
        )


def remove_leftovers(store: Path) -> None:
    """Delete what a killed preparation left; one whose process lives is not touched."""
    for part in store.glob(".*.part"):
        if not is_running(int(part.name.split(".")[-2])):
            shutil.rmtree(part, ignore_errors=True)


def is_running(pid: int) -> bool:
    """Whether there is a process of this number, anybody's."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def decode_into(place: Path, folder: Folder, progress: Progress) -> None:
    """Write both splits, the mean image, the PCA and, last, what describes them."""
    moments = Moments.zero()
    train, bad = decode_split(place / "train.u8", folder, folder.train, progress, moments)
    val, bad_val = decode_split(place / "val.u8", folder, folder.val, progress, None)
    for name, classes in (("train", train), ("val", val)):
        for index in sorted(set(range(len(folder.classes))) - set(classes)):
            raise DataError(
                f"no photograph in {folder.root / name / folder.classes[index].folder} can be "
                f"read; the first: {(bad + bad_val)[0]}"
            )
    pca = moments.pca()
    np.save(place / "mean.npy", moments.mean_image().numpy())
    np.save(place / "pca.npy", np.vstack([pca.eigenvalues.numpy(), pca.eigenvectors.numpy()]))
    meta = {"train": train, "val": val, "unreadable": bad + bad_val}
    (place / "meta.json").write_text(json.dumps(meta))


def decode_split(
    file: Path,
    folder: Folder,
    photographs: Sequence[Photograph],
    progress: Progress,
    moments: Moments | None,
) -> tuple[list[int], list[str]]:
    """Append each readable photograph's pixels to `file`; give its classes, and the others."""
    classes: list[int] = []
    unreadable: list[str] = []

    def decode(photograph: Photograph) -> npt.NDArray[np.uint8] | str:
        try:
            return read_file(folder.root / photograph.path)
        except ImageError as error:
            return str(error)

    with file.open("wb") as out, ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(photographs), CHUNK):
            chunk = photographs[start : start + CHUNK]
            for photograph, pixels in zip(chunk, pool.map(decode, chunk), strict=True):
                progress(1)
                if isinstance(pixels, str):
                    unreadable.append(pixels)
                    continue
                out.write(pixels.tobytes())
                classes.append(photograph.class_index)
                if moments is not None:
                    moments.add(pixels)
    return classes, unreadable


CHUNK = 256


def open_prepared(place: Path, folder: Folder) -> Prepared:
    """Map what was decoded before."""
    meta = json.loads((place / "meta.json").read_text())
    pca = torch.from_numpy(np.load(place / "pca.npy", allow_pickle=False))
    return Prepared(
        key=place.name,
        root=folder.root,
        names=folder.classes,
        train=open_split(place / "train.u8", meta["train"]),
        val=open_split(place / "val.u8", meta["val"]),
        mean=torch.from_numpy(np.load(place / "mean.npy", allow_pickle=False)),
        pca=Pca(pca[0].clone(), pca[1:].clone()),
        unreadable=tuple(meta["unreadable"]),
    )


def open_split(file: Path, classes: list[int]) -> Split:
    """Map one split's pixels, read-only."""
    shape = (len(classes), SIDE, SIDE, 3)
    return Split(np.memmap(file, np.uint8, "r", shape=shape), np.array(classes, np.int64))
