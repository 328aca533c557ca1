"""Finds the images that excite each unit most, in one pass: a running list of nine for each."""

from dataclasses import dataclass, field

import numpy as np

from index.sample import Pixels
from index.units import IMAGES_PER_UNIT, NO_IMAGE, TopImages
from index.vectors import Floats, Ids
from model.predict import Predictor

IMAGES_PER_BATCH = 16


@dataclass
class UnitScan:
    """The scan of all units of a network. Not for several threads at once.

    top: the nine best so far; None before the first batch. floor: float32 [U], below which an
    earlier list no longer says which images come next; None: nowhere. seen: the images searched.
    waiting: those of the next batch.
    """

    predictor: Predictor
    top: TopImages | None = None
    floor: Floats | None = None
    seen: set[int] = field(default_factory=set)
    waiting: dict[int, Pixels] = field(default_factory=dict)

    @classmethod
    def resume(cls, predictor: Predictor, earlier: TopImages | None, images: Ids) -> "UnitScan":
        """Start with what an earlier version with the same weights knows of these images."""
        if earlier is None:
            return cls(predictor)
        seen = np.intersect1d(earlier.seen, images)
        left = drop_missing(earlier, seen)
        return cls(predictor, left, find_floor(left), set(seen.tolist()))

    def add(self, image: int, square: Pixels) -> None:
        """Search an image by its id, uint8 [256, 256, 3], together with others."""
        if image in self.seen:
            return
        self.seen.add(image)
        self.waiting[image] = square
        if len(self.waiting) == IMAGES_PER_BATCH:
            self.search_waiting()

    def search_waiting(self) -> None:
        """Compute the waiting images and merge them into the nine best."""
        if not self.waiting:
            return
        peaks = self.predictor.runtime.find_peaks(np.stack(list(self.waiting.values())))
        ids = np.array(list(self.waiting), np.int64)
        batch = TopImages(
            ids=np.broadcast_to(ids, peaks.values.T.shape),
            values=peaks.values.T,
            places=peaks.places.T.astype(np.int32),
            seen=ids,
        )
        self.top = merge_top_images(self.top, batch)
        self.waiting = {}

    def finish(self, images: Ids) -> TopImages | None:
        """Return the nine best among these images; None if there is none."""
        self.search_waiting()
        if self.top is None:
            return None
        seen = np.array(sorted(self.seen), np.int64)
        found = drop_missing(self.top, np.intersect1d(seen, images))
        if self.floor is None:
            return found
        known = found.values >= self.floor[:, None]
        return TopImages(
            ids=np.where(known, found.ids, NO_IMAGE),
            values=np.where(known, found.values, -np.inf).astype(np.float32),
            places=found.places,
            seen=found.seen,
        )


def merge_top_images(one: TopImages | None, other: TopImages) -> TopImages:
    """Merge two lists of each unit, ties by id; the result has nine places."""
    columns = {
        name: np.concatenate(
            [*([getattr(one, name)] if one else []), getattr(other, name)],
            axis=1,
        )
        for name in ("ids", "values", "places")
    }
    lacking = IMAGES_PER_UNIT - columns["ids"].shape[1]
    if lacking > 0:
        fillings = {"ids": NO_IMAGE, "values": -np.inf, "places": 0}
        columns = {
            name: np.pad(array, ((0, 0), (0, lacking)), constant_values=fillings[name])
            for name, array in columns.items()
        }
    order = np.lexsort((columns["ids"], -columns["values"]), axis=1)[:, :IMAGES_PER_UNIT]
    best = {name: np.take_along_axis(array, order, axis=1) for name, array in columns.items()}
    seen = other.seen if one is None else np.union1d(one.seen, other.seen)
    return TopImages(**best, seen=seen)


def drop_missing(top: TopImages, images: Ids) -> TopImages:
    """Leave out images that are no longer among `images`, int64 [S], ascending."""
    stays = np.isin(top.ids, images) & (top.ids != NO_IMAGE)
    values: Floats = np.where(stays, top.values, -np.inf).astype(np.float32)
    left = TopImages(
        ids=np.where(stays, top.ids, NO_IMAGE), values=values, places=top.places, seen=images
    )
    empty = TopImages(
        ids=np.empty((len(values), 0), np.int64),
        values=np.empty((len(values), 0), np.float32),
        places=np.empty((len(values), 0), np.int32),
        seen=images[:0],
    )
    return merge_top_images(left, empty)


def find_floor(left: TopImages) -> Floats:
    """Return, for each unit, the value below which `left` may lack images: float32 [U].

    Only nine are stored, so that a list which lost one to a deletion does not say which image comes
    after its last. −∞ where nothing is lacking, ∞ where nothing is left.
    """
    present = left.ids != NO_IMAGE
    complete = present.sum(axis=1) >= min(IMAGES_PER_UNIT, len(left.seen))
    last = np.where(present, left.values, np.inf).min(axis=1)
    floor: Floats = np.where(complete, -np.inf, last).astype(np.float32)
    return floor
