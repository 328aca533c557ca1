"""The kind `binary`: codes of an autoencoder, compared bit by bit (§6.1).

Every row's code is compared with the query's: 32 bytes a row at 256 bits are looked through at
some 400 million rows a second and core, so nothing cleverer is needed at a million.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from index.candidates import RowFilter
from index.engines.autoencoder import (
    COMPONENTS,
    Codes,
    Encoder,
    load_encoder,
    save_encoder,
    train_encoder,
)
from index.engines.options import EngineOptions
from index.engines.reduction import (
    PCA_SAMPLE_ROWS,
    Mask,
    draw_rows,
    fit_pca,
    live_chunks,
    live_rows,
    project_sample,
)
from index.manifest import REBUILD_HINT, StoreError
from index.progress import Report
from index.vectors import Floats, Ids, Vectors

ENCODER_FILE = "candidates.safetensors"
CODES_FILE = "candidates.faissbin"
CODE_BITS = (64, 128, 256)
DEFAULT_BITS = 256
"""Bits where none are set."""
MAX_TRAINING_ROWS = 50_000
"""Rows that a coder is trained on, at most."""
WRITE_CHUNK = 1 << 20


class BinaryCodeSearch:
    """Proposes the rows whose codes differ in the fewest bits from the query's."""

    levels, exhaustive = 1, False

    def __init__(self, coder: Encoder, codes: faiss.IndexBinaryIDMap) -> None:
        self.encoder, self.codes = coder, codes

    def propose(self, queries: Floats, count: int, view: RowFilter, effort: int = 0) -> Ids:
        """As `SearchEngine.propose`."""
        if view.rows is not None and len(view.rows) <= count:
            return pad_rows(np.tile(view.rows, (len(queries), 1)), count)
        codes, most = self.encoder.encode(queries), min(count, self.codes.ntotal)
        if view.rows is None:
            return pad_rows(self.codes.search(codes, most)[1], count)
        bits = pack_row_bits(view.rows)
        chosen = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
        parameters = faiss.SearchParameters(sel=chosen)  # type: ignore[call-arg]
        rows = self.codes.search(codes, most, params=parameters)[1]
        return pad_rows(rows, count)


def train_binary(
    vectors: Vectors, alive: Mask | None, folder: Path, options: EngineOptions, report: Report
) -> dict[str, int | float | str]:
    """Train a coder on the rows that an image points to, and code them all, into `folder`.

    alive: bool [rows], None where all are. Gives the parameters for the manifest. Raises
    StoreError for bits that are not offered or where no row is alive, and OSError.
    """
    bits = options.bits or DEFAULT_BITS
    if bits not in CODE_BITS:
        raise StoreError(f"A code has {', '.join(map(str, CODE_BITS))} bits, not {bits}")
    rows = require_live_rows(vectors, alive)
    first = vectors.take(draw_rows(rows, PCA_SAMPLE_ROWS, options.seed))
    transform = fit_pca(first, COMPONENTS, options.seed)
    inputs = project_sample(transform, vectors, rows, MAX_TRAINING_ROWS, options.seed)
    coder = train_encoder(transform, inputs, bits, options.seed, report)
    save_encoder(coder, folder / ENCODER_FILE)
    write_codes(coder, vectors, alive, folder / CODES_FILE, report)
    return {"bits": bits, "seed": options.seed, "coded": len(rows)}


def update_binary(
    old_folder: Path,
    vectors: Vectors,
    alive: Mask | None,
    folder: Path,
    parameters: Mapping[str, Any],
    report: Report,
) -> dict[str, int | float | str]:
    """Code today's rows with the coder of an earlier version, into `folder`.

    parameters: that version's. Gives the new one's. Raises StoreError and OSError.
    """
    coder = load_encoder(old_folder / ENCODER_FILE)
    shutil.copyfile(old_folder / ENCODER_FILE, folder / ENCODER_FILE)
    write_codes(coder, vectors, alive, folder / CODES_FILE, report)
    return {**parameters, "bits": coder.bits, "coded": len(require_live_rows(vectors, alive))}


def open_binary(folder: Path, parameters: Mapping[str, Any]) -> BinaryCodeSearch:
    """Open what `train_binary` or `update_binary` wrote. Raises StoreError when it is damaged."""
    coder = load_encoder(folder / ENCODER_FILE)
    codes = read_codes(folder / CODES_FILE)
    found = {"bits": coder.bits, "coded": codes.ntotal}
    if codes.d != coder.bits or any(parameters.get(name) != found[name] for name in found):
        raise StoreError(
            f"{folder} is damaged: codes, coder and manifest do not agree; {REBUILD_HINT}"
        )
    return BinaryCodeSearch(coder, codes)


def require_live_rows(vectors: Vectors, alive: Mask | None) -> Ids:
    """The rows that an image points to. Raises StoreError when there are none."""
    rows = live_rows(vectors, alive)
    if not len(rows):
        raise StoreError("No image could be read, so there is nothing to index")
    return rows


def write_codes(
    coder: Encoder, vectors: Vectors, alive: Mask | None, file: Path, report: Report
) -> None:
    """Code the rows and write a FAISS file whose ids are their numbers. Raises OSError."""
    codes = faiss.IndexBinaryIDMap(faiss.IndexBinaryFlat(coder.bits))
    done = report("Coding", len(vectors))
    for rows, values in live_chunks(vectors, alive):
        codes.add_with_ids(coder.encode(values), rows)
        done(int(rows[-1]) + 1)
    done(len(vectors))
    with file.open("wb") as out:
        # FAISS closes its own files without a word when the disk is full; Python tells.
        writer = faiss.PyCallbackIOWriter(out.write, WRITE_CHUNK)  # type: ignore[attr-defined]
        faiss.write_index_binary(codes, writer)


def read_codes(file: Path) -> faiss.IndexBinaryIDMap:
    """Map a file of codes into memory, shared by all processes. Raises StoreError."""
    try:
        codes = faiss.read_index_binary(str(file), faiss.IO_FLAG_MMAP_IFC)
    except (RuntimeError, MemoryError) as error:
        raise StoreError(f"FAISS cannot read {file} ({error}); {REBUILD_HINT}") from error
    if isinstance(codes, faiss.IndexBinaryIDMap):
        flat = faiss.downcast_IndexBinary(codes.index)
        whole = isinstance(flat, faiss.IndexBinaryFlat) and flat.d == codes.d
        if whole and {flat.ntotal, codes.id_map.size()} == {codes.ntotal}:
            return codes
    raise StoreError(f"{file} holds no codes of an index; {REBUILD_HINT}")


def pack_row_bits(rows: Ids) -> Codes:
    """A bit for every number up to the largest, set for these."""
    marks = np.zeros(int(rows[-1]) + 1, np.bool_)
    marks[rows] = True
    return np.packbits(marks, bitorder="little")


def pad_rows(rows: Ids, count: int) -> Ids:
    """`count` columns, −1 where there are fewer."""
    missing = count - rows.shape[1]
    return np.pad(rows, ((0, 0), (0, missing)), constant_values=-1) if missing else rows
