"""Where an index is searched, as it is set."""

from dataclasses import dataclass

SEARCH_DEVICES = ("auto", "cpu", "gpu", "gpus")


@dataclass(frozen=True, kw_only=True)
class SearchDevice:
    """device: auto, cpu, gpu, or gpus, which parts the vectors among several.

    float16: whether a GPU holds them in half precision. url: where Milvus is, with what it takes
    to get in; empty where FAISS searches.
    """

    device: str = "auto"
    float16: bool = False
    url: str = ""

    def __repr__(self) -> str:
        return f"Placing(device={self.device!r}, float16={self.float16})"
