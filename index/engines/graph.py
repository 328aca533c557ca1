"""The kind `hnsw`: a graph of the projections, in which a search walks from neighbour to neighbour.

Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical
Navigable Small World graphs" (2016). The file holds the links alone: the graph's vectors are the
version's projections (index/projection.py), which the exact search reads too.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from index.damage import OpenedFile
from index.engines.faiss_file import (
    FAISS_FILE,
    MAP_FLAT_FLAGS,
    make_faiss_writer,
    read_faiss_file,
)
from index.engines.faiss_search import (
    MAX_EF_SEARCH,
    MIN_EF_SEARCH,
    open_faiss,
    untyped_faiss,
)
from index.engines.options import EngineOptions
from index.engines.protocol import EarlierEngine, RowFilter, SearchEngine, VersionData
from index.manifest import REBUILD_HINT, StoreError
from index.projection import PROJECTIONS_FILE, Projections
from index.vectors import Floats, Ids
from storage.progress import Report

EF_CONSTRUCTION = 80
"""Neighbours considered for each vector while the graph is built."""


def train_graph(version: VersionData, options: EngineOptions, report: Report) -> dict[str, Any]:
    """Link a version's projections, and write the graph; return the manifest's parameters.

    Raises StoreError and OSError.
    """
    assert version.projections is not None
    dimensions = version.projections.basis.dimensions
    graph = make_graph(dimensions, options.links)
    link_projections(graph, version.projections, report)
    write_graph(graph, version.folder)
    return {"dimensions": dimensions, "links": options.links, "seed": options.seed}


def update_graph(version: VersionData, earlier: EarlierEngine, report: Report) -> dict[str, Any]:
    """As `train_graph`, but only link what is new if nothing of an earlier version's has gone."""
    assert version.projections is not None
    graph = read_grown(earlier.folder, version.projections)
    if graph is None:
        graph = make_graph(version.projections.basis.dimensions, int(earlier.parameters["links"]))
    link_projections(graph, version.projections, report)
    write_graph(graph, version.folder)
    return {**earlier.parameters, "dimensions": version.projections.basis.dimensions}


def open_graph(version: VersionData, parameters: Mapping[str, Any]) -> SearchEngine:
    """Open the graph of a version. Raises StoreError for missing or damaged files."""
    if version.projections is None:
        # Built before graphs shared the projections: its file holds its own.
        return open_faiss("hnsw", version, parameters)
    return GraphSearch(version.folder, version.projections)


class GraphSearch:
    """Proposes the rows of the projections that a walk through the graph finds nearest."""

    exhaustive, filters = False, False
    levels = (MAX_EF_SEARCH // MIN_EF_SEARCH - 1).bit_length() + 1

    def __init__(self, folder: Path, projections: Projections) -> None:
        """Memory-map graph and projections; they outlive the folder. Raises StoreError."""
        self.file, self.projections = OpenedFile(folder / FAISS_FILE), projections
        self.stored = read_faiss_file(folder / PROJECTIONS_FILE, MAP_FLAT_FLAGS)
        self.graph = read_faiss_file(folder / FAISS_FILE, MAP_FLAT_FLAGS)
        expected = isinstance(self.graph, untyped_faiss.IndexHNSWSQ)
        if not expected or self.graph.ntotal != len(projections):
            raise StoreError(f"{folder / FAISS_FILE} is not of the kind hnsw; {REBUILD_HINT}")
        self.graph.storage, self.graph.own_fields = self.stored, False

    def propose(self, queries: Floats, count: int, row_filter: RowFilter, effort: int) -> Ids:
        """As `SearchEngine.propose`; nearest first by the projections. Raises DamageError."""
        self.file.check_size()
        self.projections.file.check_size()
        # With efSearch below the number requested the search would return fewer.
        width = max(MIN_EF_SEARCH << effort, count)
        parameters = untyped_faiss.SearchParametersHNSW(efSearch=width)
        projected = self.projections.basis.project_roughly(queries)
        places: Ids = self.graph.search(projected, count, params=parameters)[1]
        return np.where(places >= 0, self.projections.rows[places], -1)


def make_graph(dimensions: int, links: int) -> Any:
    """Make an empty graph of half-precision vectors."""
    half: Any = faiss.ScalarQuantizer.QT_fp16
    graph = faiss.IndexHNSWSQ(dimensions, half, links)
    graph.hnsw.efConstruction = EF_CONSTRUCTION
    # Half precision needs no training, but FAISS insists on the call.
    graph.train(np.zeros((1, dimensions), np.float32))
    return graph


def link_projections(graph: Any, projections: Projections, report: Report) -> None:
    """Add the projections that a graph does not have yet."""
    start = graph.ntotal
    report_done = report("Linking", len(projections))
    for first, block in projections.read_blocks(np.arange(start, len(projections))):
        graph.add(block[max(0, start - first) :].astype(np.float32))
        report_done(first + len(block))


def read_grown(earlier: Path, projections: Projections) -> Any:
    """Read an earlier version's graph, to add to it; None unless all of it begins the new one."""
    try:
        graph = read_faiss_file(earlier / FAISS_FILE, 0)
        stored = read_faiss_file(earlier / PROJECTIONS_FILE, 0)
    except StoreError:
        return None
    if not isinstance(graph, untyped_faiss.IndexHNSWSQ) or stored.d != projections.basis.dimensions:
        return None
    before = view_codes(stored)
    count = len(before)
    for first, block in projections.read_blocks(np.arange(min(count, len(projections)))):
        part = before[first : first + len(block)]
        if (block[: len(part)] != part).any():
            return None
    if count > len(projections):
        return None
    # The graph owns its vectors now.
    graph.storage, graph.own_fields = stored, True
    stored.this.disown()
    return graph


def write_graph(graph: Any, folder: Path) -> None:
    """Write a graph's links into a version's folder. Raises OSError."""
    with (folder / FAISS_FILE).open("wb") as out:
        untyped_faiss.write_index(
            graph, make_faiss_writer(out.write), untyped_faiss.IO_FLAG_SKIP_STORAGE
        )


def view_codes(stored: Any) -> npt.NDArray[np.float16]:
    """View the vectors of FAISS's half-precision index: float16 [n, d]."""
    codes: npt.NDArray[np.uint8] = untyped_faiss.rev_swig_ptr(
        stored.codes.data(), stored.codes.size()
    )
    return codes.view("<f2").reshape(-1, stored.d)
