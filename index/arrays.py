"""A version's NumPy files: archives of named arrays, and single arrays."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from index.manifest import REBUILD_HINT, StoreError

Array = npt.NDArray[Any]
DAMAGED_FILE_ERRORS = (
    *(ArithmeticError, EOFError, LookupError, MemoryError, RuntimeError, TypeError, ValueError),
    *(zipfile.BadZipFile, zlib.error),
)
"""Exceptions that NumPy and zipfile raise for damaged files."""


def save_arrays(path: Path, columns: dict[str, Array]) -> None:
    """Write arrays to an uncompressed `.npz` file, by name. Raises OSError."""
    with path.open("wb") as out:
        np.savez(out, allow_pickle=False, **columns)


def load_arrays(path: Path, *names: str) -> dict[str, Array]:
    """Read the named arrays of an `.npz` file, or all. Raises StoreError."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in names or archive.files}
    except OSError as error:
        raise StoreError(
            f"{path} cannot be read ({error.strerror or error}); {REBUILD_HINT}"
        ) from error
    except DAMAGED_FILE_ERRORS as error:
        raise StoreError(f"{path} is damaged ({error}); {REBUILD_HINT}") from error


def load_array(file: Path, dtype: np.dtype[Any]) -> Array:
    """Read a one-dimensional array. Raises StoreError."""
    try:
        found = np.load(file, allow_pickle=False)
    except OSError as error:
        raise StoreError(
            f"{file} cannot be read ({error.strerror or error}); {REBUILD_HINT}"
        ) from error
    except ValueError as error:
        raise StoreError(f"{file} is damaged ({error}); {REBUILD_HINT}") from error
    if found.dtype != dtype or found.ndim != 1:
        raise StoreError(
            f"{file} is damaged: it is not a one-dimensional array of {dtype}; {REBUILD_HINT}"
        )
    values: Array = found
    return values
