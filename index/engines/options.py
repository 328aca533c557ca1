"""What can be chosen of a kind; what is left at 0 is chosen by the number of vectors."""

from dataclasses import dataclass

from index.manifest import StoreError


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """The numbers of a kind, by our own names. Raises StoreError for those that cannot be."""

    lists: int = 0
    """ivf, pq: into how many lists the vectors are sorted; 0: about 4·√vectors."""
    dimensions: int = 128
    """ivf, pq, hnsw: how many principal components are searched, 1–2048."""
    bytes: int = 32
    """pq: bytes of a vector's code, 1–256; they divide the dimensions."""
    links: int = 32
    """hnsw: links of a vector to others at each level of the graph, 2–512."""
    bits: int = 0
    """binary: bits of a vector's code; 0: as many as are proposed there."""
    seed: int = 2012
    """Of every random choice."""

    def __post_init__(self) -> None:
        limits = {
            "lists": (0, 1 << 20),
            "dimensions": (1, 2048),
            "bytes": (1, 256),
            "links": (2, 512),
            "bits": (0, 4096),
            "seed": (0, 1 << 30),
        }
        for name, (least, most) in limits.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise StoreError(f"{name} must be between {least} and {most}, not {value}")
        if self.dimensions % self.bytes:
            raise StoreError(
                f"bytes must divide the dimensions, and {self.bytes} does not divide "
                f"{self.dimensions}"
            )
