"""The kind `binary`: an autoencoder's codes, compared by Hamming distance (§6.1).

Every row's code is compared with the query's. One core compares some 400 million codes of 256 bits
a second, so even a million rows need no data structure.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from index.damage import OpenedFile
from index.engines.autoencoder import (
    COMPONENTS,
    Encoder,
    load_encoder,
    save_encoder,
    train_encoder,
)
from index.engines.faiss_file import MAP_FLAT_FLAGS, make_faiss_writer
from index.engines.options import EngineOptions
from index.engines.protocol import EarlierEngine, RowFilter, VersionData
from index.engines.reduction import PCA_SAMPLE_ROWS, draw_rows, fit_pca, project_sample
from index.manifest import REBUILD_HINT, StoreError
from index.vectors import ROWS_PER_CHUNK, Floats, Ids, Vectors, map_kept_rows
from storage.progress import Report

ENCODER_FILE = "candidates.safetensors"
CODES_FILE = "candidates.faissbin"
CODE_BITS = (64, 128, 256)
DEFAULT_BITS = 256
Codes = npt.NDArray[np.uint8]
MAX_TRAINING_ROWS = 50_000
"""Rows that the autoencoder is trained on."""


def train_binary(version: VersionData, options: EngineOptions, report: Report) -> dict[str, Any]:
    """Train an autoencoder on the live rows and encode them; return the manifest's parameters.

    Raises StoreError for an unsupported number of bits, and OSError.
    """
    bits = options.bits or DEFAULT_BITS
    if bits not in CODE_BITS:
        raise StoreError(f"bits must be one of {', '.join(map(str, CODE_BITS))}, not {bits}")
    vectors, rows = version.vectors, version.id_map.live_rows
    sample = vectors.take(draw_rows(rows, PCA_SAMPLE_ROWS, options.seed))
    transform = fit_pca(sample, COMPONENTS, options.seed)
    inputs = project_sample(transform, vectors, rows, MAX_TRAINING_ROWS, options.seed)
    encoder = train_encoder(transform, inputs, bits, options.seed, report)
    save_encoder(encoder, version.folder / ENCODER_FILE)
    write_codes(encode_rows(encoder, vectors, rows, report), rows, version.folder / CODES_FILE)
    return {"bits": bits, "seed": options.seed, "coded": len(rows)}


def update_binary(version: VersionData, earlier: EarlierEngine, report: Report) -> dict[str, Any]:
    """Copy an earlier version's encoder and codes, and encode new rows; return the new parameters.

    Raises StoreError and OSError.
    """
    encoder, rows = load_encoder(earlier.folder / ENCODER_FILE), version.id_map.live_rows
    shutil.copyfile(earlier.folder / ENCODER_FILE, version.folder / ENCODER_FILE)
    before = read_codes(earlier.folder / CODES_FILE)
    numbers = faiss.vector_to_array(before.id_map)
    earlier_rows = map_kept_rows(earlier.shards, version.vectors.shards)[rows]
    known = np.isin(earlier_rows, numbers)
    # Codes are written in the order of their rows.
    places = np.searchsorted(numbers, earlier_rows[known])
    codes = np.empty((len(rows), encoder.bits // 8), np.uint8)
    codes[known] = before.index.reconstruct_n(0, before.ntotal)[places]
    codes[~known] = encode_rows(encoder, version.vectors, rows[~known], report)
    write_codes(codes, rows, version.folder / CODES_FILE)
    return {**earlier.parameters, "bits": encoder.bits, "coded": len(rows)}


def open_binary(version: VersionData, parameters: Mapping[str, Any]) -> "BinaryCodeSearch":
    """Open the codes of a version. Raises StoreError for missing or damaged files."""
    encoder = load_encoder(version.folder / ENCODER_FILE)
    file = OpenedFile(version.folder / CODES_FILE)
    codes = read_codes(version.folder / CODES_FILE)
    found = {"bits": encoder.bits, "coded": codes.ntotal}
    if codes.d != encoder.bits or any(parameters.get(name) != found[name] for name in found):
        raise StoreError(
            f"{version.folder} is damaged: its codes, encoder and manifest disagree; {REBUILD_HINT}"
        )
    return BinaryCodeSearch(encoder, codes, file)


class BinaryCodeSearch:
    """Proposes the rows whose codes differ from the query's in the fewest bits."""

    levels, exhaustive, filters = 1, False, False

    def __init__(self, encoder: Encoder, codes: faiss.IndexBinaryIDMap, file: OpenedFile) -> None:
        """file: the codes', which are mapped; its size is checked before each search."""
        self.encoder, self.codes, self.file = encoder, codes, file

    def propose(self, queries: Floats, count: int, row_filter: RowFilter, effort: int = 0) -> Ids:
        """As `SearchEngine.propose`; nearest codes first. Raises DamageError."""
        self.file.check_size()
        limit = min(count, self.codes.ntotal)
        return pad_columns(self.codes.search(self.encoder.encode(queries), limit)[1], count)


def pad_columns(rows: Ids, count: int) -> Ids:
    """Pad int64 [N, n] with −1 to `count` columns."""
    missing = count - rows.shape[1]
    return np.pad(rows, ((0, 0), (0, missing)), constant_values=-1) if missing else rows


def encode_rows(encoder: Encoder, vectors: Vectors, rows: Ids, report: Report) -> Codes:
    """Encode rows, int64 [n]: uint8 [n, bytes]. Raises StoreError."""
    codes = np.empty((len(rows), encoder.bits // 8), np.uint8)
    done = report("Encoding the vectors", len(rows))
    for start in range(0, len(rows), ROWS_PER_CHUNK):
        numbers = rows[start : start + ROWS_PER_CHUNK]
        codes[start : start + len(numbers)] = encoder.encode(vectors.take(numbers))
        done(start + len(numbers))
    return codes


def write_codes(codes: Codes, rows: Ids, file: Path) -> None:
    """Write codes, uint8 [n, bytes], as a FAISS file with row numbers as ids. Raises OSError."""
    index = faiss.IndexBinaryIDMap(faiss.IndexBinaryFlat(8 * codes.shape[1]))
    index.add_with_ids(codes, rows)
    with file.open("wb") as out:
        faiss.write_index_binary(index, make_faiss_writer(out.write))


def read_codes(file: Path) -> faiss.IndexBinaryIDMap:
    """Memory-map a file of codes, shared by all processes. Raises StoreError."""
    try:
        codes = faiss.read_index_binary(str(file), MAP_FLAT_FLAGS)
    except (RuntimeError, MemoryError) as error:
        raise StoreError(f"FAISS cannot read {file} ({error}); {REBUILD_HINT}") from error
    if isinstance(codes, faiss.IndexBinaryIDMap):
        flat = faiss.downcast_IndexBinary(codes.index)
        is_flat = isinstance(flat, faiss.IndexBinaryFlat) and flat.d == codes.d
        if is_flat and {flat.ntotal, codes.id_map.size()} == {codes.ntotal}:
            return codes
    raise StoreError(f"{file} does not hold the codes of an index; {REBUILD_HINT}")
