"""The features of a training set: files → pixels → fc7, decoding ahead of the network."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from index.search import Floats, Ids
from model.alexnet import FEATURES
from model.images import ImageError, read_file
from model.predict import Pixels, Predictor

THREADS = 4
"""Decoding threads. Pillow leaves the interpreter's lock while it decodes and resizes."""

Item = tuple[int, Path]
Decoded = tuple[Item, Pixels | ImageError]


@dataclass(frozen=True, kw_only=True)
class Features:
    """What was computed.

    ids: int64 [M], rising as the items' did. features: float32 [M, 4096] of the centre crops.
    unreadable: id, file and reason of those that were left out.
    """

    ids: Ids
    features: Floats
    unreadable: list[tuple[int, Path, str]]


def compute_features(
    predictor: Predictor,
    items: Sequence[Item],
    *,
    batch: int = 64,
    on_progress: Callable[[int], None] | None = None,
) -> Features:
    """Compute fc7 for the centre crop of every file, an id and a path each.

    A file that cannot be read is listed and left out. `on_progress` is told how many items are
    done, after each batch.
    """
    ids: list[int] = []
    features = np.empty((len(items), FEATURES), np.float32)
    unreadable: list[tuple[int, Path, str]] = []
    done = 0
    for group in groups(decoded(items, 2 * batch), batch):
        good = [(item, pixels) for item, pixels in group if not isinstance(pixels, ImageError)]
        unreadable += [
            (*item, reason(item, bad)) for item, bad in group if isinstance(bad, ImageError)
        ]
        if good:
            rows = predictor.features(np.stack([pixels for _, pixels in good]))
            features[len(ids) : len(ids) + len(rows)] = rows
            ids += [item[0] for item, _ in good]
        done += len(group)
        if on_progress:
            on_progress(done)
    return Features(
        ids=np.array(ids, np.int64), features=features[: len(ids)], unreadable=unreadable
    )


def decoded(items: Sequence[Item], ahead: int) -> Iterator[Decoded]:
    """The pixels of each file in order, or the error; at most `ahead` wait in memory."""
    waiting: deque[Future[Decoded]] = deque()
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="decode")
    try:
        for item in items:
            waiting.append(pool.submit(decode, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def decode(item: Item) -> Decoded:
    """Read one file; what is wrong with it is a value, since one bad file stops nothing."""
    try:
        return item, read_file(item[1])
    except ImageError as error:
        return item, error


def reason(item: Item, error: ImageError) -> str:
    """What is wrong with a file, without its path, which stands beside."""
    return str(error).removeprefix(f"{item[1]}: ")


def groups(values: Iterator[Decoded], size: int) -> Iterator[list[Decoded]]:
    """Lists of `size` values, the last one shorter."""
    while group := list(islice(values, size)):
        yield group
