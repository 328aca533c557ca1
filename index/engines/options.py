"""Options of an index: its kind's parameters, and the device it is searched on."""

from dataclasses import dataclass

from index.manifest import StoreError

SEARCH_DEVICES = ("auto", "cpu", "gpu", "gpus")


@dataclass(frozen=True, kw_only=True)
class SearchDevice:
    """Where an index is searched.

    device: auto, cpu, gpu, or gpus, which shards the vectors over several. float16: whether GPUs
    store half precision. url: the address of Milvus, with its credentials; empty for FAISS.
    """

    device: str = "auto"
    float16: bool = False
    url: str = ""

    def __repr__(self) -> str:
        # Omits the address, which may contain a password.
        return f"SearchDevice(device={self.device!r}, float16={self.float16})"


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """A kind's parameters; each kind reads some of them. Raises StoreError if out of range."""

    lists: int = 0
    """ivf, pq: the number of inverted lists; 0: about 4·√vectors."""
    dimensions: int = 128
    """ivf, pq, hnsw: the number of principal components that are searched, 1–2048."""
    bytes: int = 32
    """pq: bytes of a vector's code, 1–256; must divide the dimensions."""
    links: int = 32
    """hnsw: links from a vector to others at each level of the graph, 2–512."""
    bits: int = 0
    """binary: bits of a vector's code; 0: the kind's default."""
    seed: int = 2012
    """Seed of every random choice."""

    def __post_init__(self) -> None:
        limits = {
            "lists": (0, 1 << 20),
            "dimensions": (1, 2048),
            "bytes": (1, 256),
            "links": (2, 512),
            "bits": (0, 4096),
            "seed": (0, 1 << 30),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise StoreError(f"{name} must be between {low} and {high}, not {value}")
        if self.dimensions % self.bytes:
            raise StoreError(
                f"bytes must divide the dimensions, but {self.bytes} does not divide "
                f"{self.dimensions}"
            )
