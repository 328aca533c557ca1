"""What the processes of benchmarks/index.py do: find the truth, build a kind, ask a kind."""

import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import torch

from benchmarks.windows import SLICE
from index import store
from index.engines.factory import MAX_EXACT_ROWS, IndexSpec, build_engine
from index.engines.protocol import VersionData
from index.id_map import IdMap, write_id_map
from index.manifest import Manifest, Shard
from index.search import Index
from index.store import Draft, draft_version, open_version
from index.vectors import Floats, file_sha256, max_squared_norm, write_shard

NEAREST = 100
AT_ONCE = 64
ALONE, SLOW = 40, 2
"""Queries asked one by one in a turn; of a kind that takes over half a second each, fewer."""
Told = dict[str, Any]


def act(part: str, told: Told) -> None:
    """Do one part, and say what was found as lines of JSON."""
    PARTS[part](told)


def say(found: Told) -> None:
    """Write a line."""
    print(json.dumps(found), flush=True)  # noqa: T201


def shards(told: Told) -> list[tuple[Path, Shard]]:
    """The slices that make up a size, the last one cut; described once, beside them."""
    folder, left, found = Path(told["work"], "windows"), told["size"], []
    for number in range(-(-left // SLICE)):
        file = folder / f"{number:05}.npy"
        if left < SLICE:
            part = folder / f"{number:05}-{left}.npy"
            if not part.exists():
                write_shard(part, [np.load(file, mmap_mode="r")[:left].astype("f4")], "float16")
            file = part
        found.append((file, described(file)))
        left -= SLICE
    return found


def described(file: Path) -> Shard:
    """A slice as a shard of an index."""
    note = file.with_suffix(".json")
    if not note.exists():
        rows = np.load(file, mmap_mode="r")
        largest = max(max_squared_norm(rows[i : i + 1024]) for i in range(0, len(rows), 1024))
        size = file.stat().st_size
        shard = {"file": file.name, "rows": len(rows), "largest": largest, "bytes": size}
        note.write_text(json.dumps(shard | {"sha256": file_sha256(file)}))
    return Shard(**json.loads(note.read_text()))


def draft_of(draft: Draft, told: Told, dtype: str = "float16") -> IdMap:
    """Put the vectors of a size into a draft, an image each."""
    for path, shard in shards(told):
        if dtype == "float16":
            draft.link_shard(path, shard)
        else:
            values = np.load(path, mmap_mode="r")
            parts = (values[i : i + 1024] for i in range(0, len(values), 1024))
            draft.shards.append(write_shard(draft.folder / shard.file, parts, dtype))
    numbers = np.arange(told["size"], dtype=np.int64)
    lists = numbers + 1, numbers, np.zeros(len(numbers), np.int32)
    write_id_map(draft.folder, *lists)
    return IdMap(*lists)


def sealed(draft: Draft, told: Told, **facts: Any) -> Manifest:
    """Make a version of a draft that knows nothing of weights and files."""
    counts = {"images": told["size"], "vectors": told["size"], "unreadable": 0}
    return draft.commit(weights="", data="", listing="", **counts, **facts)


def root_of(told: Told, kind: str) -> Path:
    """Where the index of a size and kind is."""
    return Path(told["work"], "indexes", f"{told['size']}-{kind}")


def build(told: Told) -> None:
    """Build a kind; what is there is not built again."""
    root = root_of(told, "exact" if told["kind"] == "flat" else told["kind"])
    note = root / "built.json"
    if not note.exists():
        root.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(built(root, told)))
    say(json.loads(note.read_text()))


def built(root: Path, told: Told) -> Told:
    """Build a kind as `flask index build` does, once the features are there."""
    began = time.perf_counter()
    kind = "exact" if told["kind"] == "flat" else told["kind"]
    with draft_version(root) as draft:
        # As a build without further wishes stores them.
        dtype = "float32" if kind == "exact" and told["size"] <= MAX_EXACT_ROWS else "float16"
        members = draft_of(draft, told, dtype)
        made = build_engine(
            IndexSpec(kind=kind, target=told["recall"]),
            VersionData(
                name=draft.name,
                folder=draft.folder,
                vectors=draft.vectors(dtype),
                id_map=members,
            ),
            lambda _name, _total: lambda _done: None,
            held_out=np.load(Path(told["work"], "held_out.npy")),
        )
        manifest = sealed(
            draft,
            told,
            dtype=dtype,
            kind=made.kind,
            target=told["recall"],
            parameters=made.parameters,
            recall=made.recall,
        )
    store.publish(root, manifest.name)
    return {
        "build_seconds": time.perf_counter() - began,
        "build_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "megabytes": sum(f.bytes for n, f in manifest.files.items() if n[:4] == "cand") / 1e6,
        "made": made.kind,
        "parameters": made.parameters,
        "tuned": made.recall,
    }


def truth(told: Told) -> None:
    """The nearest of every query, by comparing with every vector."""
    root = root_of(told, "truth")
    with draft_version(root) as draft:
        members = draft_of(draft, told)
        manifest = sealed(draft, told, dtype="float16", kind="exact", target=1.0)
    index = open_version(root, manifest.name)
    assert len(members) == len(index)
    ids = index.search(queries(told), NEAREST).ids
    np.savez(Path(told["work"], f"truth-{told['size']}.npz"), ids=ids)
    say({})


def queries(told: Told) -> Floats:
    """The features asked about."""
    found: Floats = np.load(Path(told["work"], "queries.npy"))[: told["queries"]]
    return found


Search = Callable[[Floats, int], npt.NDArray[np.int64]]


def ask(told: Told) -> None:
    """Open a kind, find its recall, and answer in turns."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    search = opened(told)
    seconds = time.perf_counter() - began
    asked = queries(told)
    right = np.load(Path(told["work"], f"truth-{told['size']}.npz"))["ids"]
    shares = {f"recall@{k}": recall(search, asked, right, k) for k in (6, NEAREST)}
    began = time.perf_counter()
    search(asked[:1], 6)
    alone = ALONE if time.perf_counter() - began < 0.5 else SLOW
    say({"open_seconds": seconds, **shares})
    for number, _ in enumerate(sys.stdin):
        some = np.roll(asked, -number * alone, axis=0)
        times = [timed(search, some[i : i + 1]) for i in range(alone)]
        many = timed(search, some[:AT_ONCE])
        say(
            {
                "one_ms": 1000 * float(np.median(times)),
                "late_ms": 1000 * float(np.quantile(times, 0.95)),
                "many_ms": 1000 * many / min(AT_ONCE, len(some)),
                **memory(),
            }
        )


def opened(told: Told) -> Search:
    """What answers for a kind."""
    if told["kind"] == "flat":
        flat = faiss.IndexFlatL2(4096)
        for path, _ in shards(told):
            flat.add(np.load(path).astype(np.float32))
        return lambda some, k: flat.search(some, k)[1] + 1
    root = root_of(told, told["kind"])
    index: Index = open_version(root, store.current_version(root) or "")
    return lambda some, k: index.search(some, k).ids


def recall(search: Search, asked: Floats, right: npt.NDArray[np.int64], k: int) -> float:
    """The share of the true k nearest that are found."""
    found = search(asked, k)
    hits = sum(
        len(np.intersect1d(a, b[:k])) for a, b in zip(found, right[: len(asked)], strict=True)
    )
    return hits / (k * len(asked))


def timed(search: Search, some: Floats) -> float:
    """Seconds that an answer takes."""
    began = time.perf_counter()
    search(some, 6)
    return time.perf_counter() - began


def memory() -> dict[str, float]:
    """GiB resident in this process: all, and what it does not share with a file."""
    status = Path(f"/proc/{os.getpid()}/status").read_text()
    found = {
        name: int(re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)[1]) / 2**20  # type: ignore[index]
        for name in ("VmRSS", "RssAnon")
    }
    return {"resident_gib": found["VmRSS"], "own_gib": found["RssAnon"]}


PARTS = {"truth": truth, "build": build, "ask": ask}
