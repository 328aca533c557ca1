"""How often the nearest training image has the class of the query (§6.1, as a number)."""

from collections.abc import Mapping, Sequence

from index.search import Index
from index.vectors import Floats

BATCH = 256


def nearest_class_share(
    index: Index, features: Floats, classes: Sequence[int], class_of: Mapping[int, int]
) -> float:
    """Share, 0–1, of the queries whose nearest image in the index has the query's class.

    features: float32 [N, 4096]. classes: the class of each of the N queries. class_of: the class
    of every image in the index, by its id. Raises ValueError without queries, or on bad ones.
    """
    if not len(features) or len(features) != len(classes):
        raise ValueError(f"{len(features)} queries with {len(classes)} classes have no share")
    hits = 0
    for start in range(0, len(features), BATCH):
        ids = index.search(features[start : start + BATCH], 1).ids
        own = classes[start : start + BATCH]
        hits += sum(class_of[int(i)] == c for i, c in zip(ids[:, 0], own, strict=True))
    return hits / len(features)
