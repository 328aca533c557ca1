"""ILSVRC-2012 as its authors distribute it: three archives, read where they lie.

`ILSVRC2012_img_train.tar` holds a tar file for each class, `ILSVRC2012_img_val.tar` the validation
images in their order, and the development kit says which class each of these has.
"""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

from model.dataset.folder import ClassName, Photograph, digest_listing, read_wordnet_labels
from training.dataset.source import DataError, Sample, SplitName

TRAIN_TAR, VAL_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
DEVKIT_TAR = "ILSVRC2012_devkit_t12.tar.gz"
META_FILE = "data/meta.mat"
TRUTH_FILE = "data/ILSVRC2012_validation_ground_truth.txt"
IMAGES_PER_CHUNK = 1024
"""Of the validation images; a chunk of the training set is a class."""
TAR_ERRORS = (tarfile.TarError, OSError, EOFError)


@dataclass(frozen=True)
class DevelopmentKit:
    """What the development kit says.

    wnids: each class's WordNet id, by ILSVRC's number, which begins at 1. validation: the number of
    each validation image's class, in the order of the images.
    """

    wnids: dict[int, str]
    validation: tuple[int, ...]


@dataclass(frozen=True)
class IlsvrcTars:
    """The three archives in a folder, as a source: a chunk is a class, or 1,024 of validation."""

    root: Path

    @cached_property
    def kit(self) -> DevelopmentKit:
        """What the development kit says. Raises DataError."""
        return read_development_kit(self.root / DEVKIT_TAR)

    @cached_property
    def classes(self) -> tuple[ClassName, ...]:
        """The classes of the training archive, by WordNet id. Raises DataError."""
        labels = read_wordnet_labels()
        known = set(self.kit.wnids.values())
        for wnid in self.train_members:
            if wnid not in known:
                raise DataError(f"{self.root / TRAIN_TAR}: {META_FILE} knows no class {wnid}")
        return tuple(ClassName(wnid, labels.get(wnid, wnid)) for wnid in self.train_members)

    @cached_property
    def train_members(self) -> dict[str, tarfile.TarInfo]:
        """Each class's tar file in the training archive, by WordNet id in order."""
        members = list_members(self.root / TRAIN_TAR)
        return {m.name.removesuffix(".tar"): m for m in members if m.name.endswith(".tar")}

    @cached_property
    def val_members(self) -> tuple[tarfile.TarInfo, ...]:
        """The validation images, in their order. Raises DataError if some are missing."""
        members, expected = list_members(self.root / VAL_TAR), len(self.kit.validation)
        if len(members) != expected:
            raise DataError(
                f"{self.root / VAL_TAR} holds {len(members):,} images, but the development kit "
                f"knows {expected:,}: it is incomplete"
            )
        return members

    def fingerprint(self) -> str:
        """Return a digest of the archives' names, sizes and times."""
        files = [Photograph(name, 0) for name in (TRAIN_TAR, VAL_TAR, DEVKIT_TAR)]
        return f"{digest_listing(self.root, files)} {IMAGES_PER_CHUNK}"

    def describe(self) -> str:
        """Describe what the archives hold."""
        return (
            f"ILSVRC-2012's archives, {len(self.classes):,} classes, "
            f"{len(self.val_members):,} photographs for validation"
        )

    def count_photographs(self) -> int:
        """Estimate the number of photographs from the first class."""
        first = sum(1 for _ in self.read_samples("train", 0))
        return first * len(self.train_members) + len(self.val_members)

    def count_chunks(self, split: SplitName) -> int:
        """Return the number of classes, or of parts of the validation images."""
        if split == "train":
            return len(self.train_members)
        return -(-len(self.val_members) // IMAGES_PER_CHUNK)

    def read_samples(self, split: SplitName, chunk: int) -> Iterator[Sample]:
        """Yield a class's photographs, or a part of the validation images. Raises DataError."""
        return self.read_class(chunk) if split == "train" else self.read_validation(chunk)

    def read_class(self, chunk: int) -> Iterator[Sample]:
        """Yield the training images of a class."""
        wnid, member = [*self.train_members.items()][chunk]
        with open_tar(self.root / TRAIN_TAR) as outer:
            packed = outer.extractfile(member)
            assert packed is not None
            with tarfile.open(fileobj=packed, mode="r:") as inner:
                for image in inner:
                    where = f"{self.root / TRAIN_TAR}: {member.name}: {image.name}"
                    yield Sample(where, wnid, read_member(inner, image), image.name)

    def read_validation(self, chunk: int) -> Iterator[Sample]:
        """Yield a part of the validation images."""
        first = chunk * IMAGES_PER_CHUNK
        with open_tar(self.root / VAL_TAR) as images:
            for place, image in enumerate(
                self.val_members[first : first + IMAGES_PER_CHUNK], first
            ):
                wnid = self.kit.wnids[self.kit.validation[place]]
                where = f"{self.root / VAL_TAR}: {image.name}"
                yield Sample(where, wnid, read_member(images, image), image.name)


def find_ilsvrc_tars(root: Path) -> IlsvrcTars | None:
    """Return a folder's archives; None if it has none. Raises DataError if some are missing."""
    names = (TRAIN_TAR, VAL_TAR, DEVKIT_TAR)
    missing = [name for name in names if not (root / name).is_file()]
    if len(missing) == len(names) or TRAIN_TAR in missing:
        return None
    if missing:
        raise DataError(f"{root} holds {TRAIN_TAR}, but not {' and '.join(missing)}")
    return IlsvrcTars(root)


def list_members(file: Path) -> tuple[tarfile.TarInfo, ...]:
    """List a tar file's files by name. Raises DataError."""
    with open_tar(file) as tar:
        return tuple(sorted((m for m in tar if m.isfile()), key=lambda member: member.name))


@contextmanager
def open_tar(file: Path) -> Iterator[tarfile.TarFile]:
    """Open a tar file; whatever is wrong with it while it is read raises DataError."""
    try:
        with tarfile.open(file) as tar:
            yield tar
    except TAR_ERRORS as error:
        reason = str(error).partition("\n")[0].rstrip(":") or "it ends too early"
        raise DataError(f"{file} cannot be read: {reason}") from error


def read_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Read a file of a tar file. Raises OSError if it is cut short."""
    packed = tar.extractfile(member)
    data = packed.read() if packed else b""
    if len(data) != member.size:
        raise OSError(f"{member.name} is cut short")
    return data


def read_development_kit(file: Path) -> DevelopmentKit:
    """Read the classes, and those of the validation images. Raises DataError."""
    # Not above: only this kind of data needs it.
    from scipy.io import loadmat

    found = {}
    with open_tar(file) as kit:
        for member in kit:
            for name in (META_FILE, TRUTH_FILE):
                if member.name.endswith(name):
                    found[name] = read_member(kit, member)
    if missing := [name for name in (META_FILE, TRUTH_FILE) if name not in found]:
        raise DataError(f"{file} holds no {' and no '.join(missing)}")
    try:
        synsets: Any = loadmat(BytesIO(found[META_FILE]), squeeze_me=True)["synsets"]
        wnids = {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets}
        validation = tuple(int(line) for line in found[TRUTH_FILE].split())
        if not set(validation) <= wnids.keys():
            raise ValueError(f"{TRUTH_FILE} names classes that {META_FILE} does not have")
    except (ValueError, KeyError, TypeError, NotImplementedError) as error:
        raise DataError(f"{file} is not the development kit of ILSVRC-2012: {error}") from error
    return DevelopmentKit(wnids, validation)
