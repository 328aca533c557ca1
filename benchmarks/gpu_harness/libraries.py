"""FAISS's library, fitted to a machine: only its card's code, and the CUDA version that is there.

Nine tenths of it are the same GPU code for seven generations of cards, each compressed for itself.
`keep_cards` empties those that are not needed, which makes 200 MB 40 once packed. The library was
linked with CUDA 12's cuBLAS, of which it calls eight functions; CUDA 13 has the same eight, under
another version's name. `fit_faiss_to_cuda` writes that name into the library where torch brings
CUDA 13.
"""

import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

FATBIN_MAGIC = 0xBA55ED50
"""Begins each collection of one kernel's codes for several generations."""
PTX, MACHINE_CODE = 1, 2
"""Kinds of code in it."""
CUBLAS = ("libcublas.so", "libcublasLt.so")


class LibraryError(ValueError):
    """A library that is not laid out as expected."""


class Section(NamedTuple):
    """Where a section of an ELF file lies, in bytes."""

    start: int
    size: int


def keep_cards(library: bytearray, cards: Collection[int]) -> int:
    """Empty the GPU code of other generations in a library; return how many bytes.

    cards: compute capabilities such as 90. Code that a driver could translate for newer cards goes,
    too. The places of all codes stay, so that nothing else moves. Raises LibraryError.
    """
    section, emptied = find_section(library, ".nv_fatbin"), 0
    for kind, card, start, size in list_codes(library, section):
        if kind == PTX or card not in cards:
            library[start : start + size] = bytes(size)
            emptied += size
    return emptied


def list_codes(library: bytearray, section: Section) -> Iterator[tuple[int, int, int, int]]:
    """Yield every code's kind, compute capability, place and size in bytes."""
    place, end = section.start, section.start + section.size
    while place + 16 <= end:
        magic, _, header, size = struct.unpack_from("<IHHQ", library, place)
        if magic != FATBIN_MAGIC:
            place += 8
            continue
        code, place = place + header, place + header + size
        while code < place:
            kind, _, header, size = struct.unpack_from("<HHIQ", library, code)
            (card,) = struct.unpack_from("<I", library, code + 28)
            yield kind, card, code + header, size
            code += header + size


def find_section(library: bytearray, name: str) -> Section:
    """Find a section of a 64-bit ELF file by its name. Raises LibraryError."""
    if library[:5] != b"\x7fELF\x02":
        raise LibraryError("not a 64-bit ELF library")
    (headers,) = struct.unpack_from("<Q", library, 40)
    size, count, names = struct.unpack_from("<HHH", library, 58)
    (texts,) = struct.unpack_from("<Q", library, headers + names * size + 24)
    for number in range(count):
        at = headers + number * size
        (offset,) = struct.unpack_from("<I", library, at)
        start, length = struct.unpack_from("<QQ", library, at + 24)
        begin = texts + offset
        if library[begin : library.index(0, begin)] == name.encode():
            return Section(start, length)
    raise LibraryError(f"the library has no section {name}")


def rename_versions(library: bytearray, names: dict[str, str]) -> None:
    """Rename needed libraries and the versions of their symbols, to names of the same length.

    Both are texts of one table; a version is looked up by its hash, too. Raises LibraryError.
    """
    table = find_section(library, ".dynstr")
    hashes = {}
    for old, new in names.items():
        if len(old) != len(new):
            raise LibraryError(f"{old} and {new} differ in length")
        end = table.start + table.size
        place = library.find(b"\0" + old.encode() + b"\0", table.start, end)
        if place >= 0:
            library[place + 1 : place + 1 + len(new)] = new.encode()
            hashes[place + 1 - table.start] = hash_name(new)
    needed = find_section(library, ".gnu.version_r").start
    step = -1
    while step:
        (count,) = struct.unpack_from("<H", library, needed + 2)
        auxiliary, step = struct.unpack_from("<II", library, needed + 8)
        version = needed + auxiliary
        for _ in range(count):
            text, following = struct.unpack_from("<II", library, version + 8)
            if text in hashes:
                struct.pack_into("<I", library, version, hashes[text])
            version += following
        needed += step


def hash_name(name: str) -> int:
    """Compute the hash of a name that ELF files keep."""
    value = 0
    for byte in name.encode():
        value = (value << 4) + byte
        high = value & 0xF0000000
        value = (value ^ (high >> 24)) & ~high
    return value & 0xFFFFFFFF


def fit_faiss_to_cuda(site: Path, cuda: str) -> str:
    """Fit a carried FAISS to the CUDA version that torch brings, once; say what was done."""
    file, mark = site / "faiss/libfaiss.so", site / "faiss/cuda.txt"
    if mark.exists():
        return mark.read_text()
    done = "as it is"
    if cuda.partition(".")[0] == "13":
        library = bytearray(file.read_bytes())
        rename_versions(library, {f"{name}.12": f"{name}.13" for name in CUBLAS})
        file.write_bytes(library)
        done = "cuBLAS 13 in place of 12"
    mark.write_text(done)
    return done
