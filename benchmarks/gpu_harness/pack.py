"""`python benchmarks/gpu.py pack --data DIR --to DIR`: everything that a bare GPU machine lacks.

The result is a few zip files below a limit, to be unpacked into one folder: this project's code,
packages of Python, FAISS with the code of the card's generation, and the photographs as squares of
256 pixels in a quality that makes them small. A machine needs Python 3.11, torch, NumPy and Pillow.

Of 200 of Imagenette's photographs, 224 pixels across, the quality costs (SSIM of the 256-pixel
squares that the network is trained on, mean and 5th percentile, against the originals):

    quality   bytes per photograph   13,394 photographs   SSIM            PSNR
    30        4,254                  57 MB                0.916   0.873   32.2 dB
    40        5,007                  67 MB                0.932   0.893   33.4 dB
    50        5,688                  76 MB                0.942   0.910   34.3 dB
    60        6,364                  85 MB                0.951   0.925   35.2 dB

Scaling them down first costs more at the same size: 192 pixels at quality 70 give 69 MB and 0.930.
"""

import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import distribution
from itertools import islice
from pathlib import Path

from PIL import Image
from rich.console import Console

from benchmarks.gpu_harness.job import ROOT
from benchmarks.gpu_harness.libraries import keep_cards
from model.dataset.folder import CLASSES_FILE, Photograph, scan_folder
from model.image.decode import ImageError, decode_image
from model.image.preprocess import cut_central_square
from model.network.config import SQUARE_SIDE
from storage.parallel import map_ahead
from training.records.run_folder import read_commit

CODE = ("benchmarks", "experiments", "index", "model", "storage", "tests", "training")
PACKAGES = (
    *("tyro", "docstring-parser", "typeguard", "typing-extensions"),
    *("rich", "markdown-it-py", "mdurl", "pygments"),
    *("webdataset", "braceexpand", "pyyaml", "safetensors"),
)
"""Packages that the parts import, besides torch, NumPy, Pillow and SciPy. All are independent of
Python's version; PyYAML is without its compiled half, which it can do without."""
FAISS, CUDA_RUNTIME = "faiss-gpu", "nvidia-cuda-runtime-cu12"
COMMIT_FILE = "COMMIT"
MAX_AHEAD = 32


@dataclass(frozen=True, kw_only=True)
class PackOptions:
    """Pack what a bare GPU machine lacks into files below a limit."""

    data: Path
    """Folder of photographs: train/<class>/* and val/<class>/*."""
    to: Path
    """Folder for the files; those of an earlier pack are replaced."""
    part_mib: float = 57.0
    """Most MiB of one file."""
    quality: int = 50
    """WebP quality of the photographs, 0-100."""
    cards: tuple[int, ...] = (90,)
    """Compute capabilities of the cards, times ten, whose code FAISS keeps: 90 is an H100."""
    faiss: bool = True
    """Whether to pack FAISS."""
    images: int | None = None
    """At most so many photographs of each class and split, to rehearse."""


@dataclass(frozen=True)
class Entry:
    """A file to pack. stored: whether it is stored as it is, since it cannot be compressed."""

    name: str
    content: bytes
    stored: bool = False


def pack(options: PackOptions, console: Console) -> list[Path]:
    """Write the files; return them."""
    options.to.mkdir(parents=True, exist_ok=True)
    for old in options.to.glob("part-*.zip"):
        old.unlink()
    entries = list_entries(options, console)
    files = write_parts(entries, options.to, round(options.part_mib * 2**20))
    for file in files:
        console.print(f"{file}: {file.stat().st_size / 2**20:.1f} MiB")
    return files


def list_entries(options: PackOptions, console: Console) -> Iterator[Entry]:
    """Yield every file to pack: code, packages, FAISS, photographs."""
    yield from list_code()
    for name in PACKAGES:
        yield from list_package(name)
    if options.faiss:
        yield from list_faiss(options.cards, console)
    yield from list_photographs(options)


LEFT_OUT = ("tests/app", "benchmarks/results", "model/pretrained")
"""Beginnings of the names of files that the measurements do not need."""


def list_code() -> Iterator[Entry]:
    """Yield this project's code, and which commit it is."""
    yield Entry(COMMIT_FILE, read_commit().encode())
    yield Entry("pyproject.toml", (ROOT / "pyproject.toml").read_bytes())
    for folder in CODE:
        for file in sorted((ROOT / folder).rglob("*")):
            name = file.relative_to(ROOT).as_posix()
            skipped = "__pycache__" in name or name.startswith(LEFT_OUT)
            if file.is_file() and not skipped:
                yield Entry(name, file.read_bytes())


def list_package(name: str) -> Iterator[Entry]:
    """Yield an installed package's files that suit every version of Python."""
    for file in distribution(name).files or ():
        specific = file.suffix in (".pyc", ".so") and "abi3" not in file.name
        if not specific and ".." not in file.parts:
            yield Entry(f"site/{file}", Path(str(file.locate())).read_bytes())


def list_faiss(cards: Sequence[int], console: Console) -> Iterator[Entry]:
    """Yield FAISS with the code of some cards only, and the CUDA runtime that it was linked with.

    Without the file that makes it look for CUDA's packages, which the runtime stands in for.
    """
    for file in distribution(FAISS).files or ():
        if file.suffix == ".pyc" or file.name == "_gpu_build.py" or ".." in file.parts:
            continue
        content = Path(str(file.locate())).read_bytes()
        if file.name == "libfaiss.so":
            library = bytearray(content)
            emptied = keep_cards(library, cards)
            console.print(f"FAISS without {emptied / 1e6:.0f} MB of code for other cards")
            content = bytes(library)
        yield Entry(f"site/{file}", content)
    for file in distribution(CUDA_RUNTIME).files or ():
        if file.name == "libcudart.so.12":
            yield Entry(f"site/faiss_gpu.libs/{file.name}", Path(str(file.locate())).read_bytes())


def list_photographs(options: PackOptions) -> Iterator[Entry]:
    """Yield the photographs as small WebP squares; those that cannot be read are left out."""
    folder = scan_folder(options.data)
    chosen = [*folder.train, *folder.val]
    if options.images is not None:
        chosen = list(take_of_each(chosen, options.images))
    # Also where the labels are those of ImageNet, which torchvision would have to know there.
    labels = "".join(f"{known.folder} {known.label}\n" for known in folder.classes)
    yield Entry(f"data/{CLASSES_FILE}", labels.encode())
    squares = map_ahead(
        lambda p: encode_square(folder.root / p.path, options.quality), chosen, MAX_AHEAD
    )
    for photograph, content in zip(chosen, squares, strict=True):
        if content is not None:
            name = Path(photograph.path).with_suffix(".webp").as_posix()
            yield Entry(f"data/{name}", content, stored=True)


def take_of_each(photographs: Sequence[Photograph], count: int) -> Iterator[Photograph]:
    """Yield the first photographs of each class and split."""
    groups: dict[str, list[Photograph]] = {}
    for photograph in photographs:
        groups.setdefault(str(Path(photograph.path).parent), []).append(photograph)
    for group in groups.values():
        yield from islice(group, count)


def encode_square(file: Path, quality: int) -> bytes | None:
    """Encode a photograph's central square, at most 256 pixels across; None if it is damaged."""
    try:
        image = decode_image(file.read_bytes(), trusted=True)
    except ImageError:
        return None
    square = cut_central_square(image, min(SQUARE_SIDE, *image.size))
    out = io.BytesIO()
    Image.fromarray(square).save(out, "WEBP", quality=quality, method=5)
    return out.getvalue()


def write_parts(entries: Iterator[Entry], folder: Path, limit: int) -> list[Path]:
    """Write entries, in order, to as many files as the limit makes necessary; return the files.

    Raises ValueError for an entry that does not fit into a file.
    """
    files: list[Path] = []
    archive: zipfile.ZipFile | None = None
    size = limit
    for entry in entries:
        needed = count_bytes(entry)
        if needed > limit:
            raise ValueError(f"{entry.name} takes {needed:,} bytes, the limit is {limit:,}")
        if archive is None or size + needed > limit:
            if archive is not None:
                archive.close()
            files.append(folder / f"part-{len(files) + 1}.zip")
            archive, size = zipfile.ZipFile(files[-1], "w"), END_BYTES
        how = zipfile.ZIP_STORED if entry.stored else zipfile.ZIP_DEFLATED
        archive.writestr(entry.name, entry.content, how)
        size += needed
    if archive is not None:
        archive.close()
    return files


END_BYTES, ENTRY_BYTES = 22, 30 + 46
"""Of a zip file's end, and of an entry besides its content and its name, which is written twice."""


def count_bytes(entry: Entry) -> int:
    """Count the bytes that an entry takes in a zip file."""
    content = len(entry.content) if entry.stored else len(zlib.compress(entry.content, 6))
    return content + ENTRY_BYTES + 2 * len(entry.name.encode())
