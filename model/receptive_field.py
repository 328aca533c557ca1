"""A network as Figure 2 draws it: its layers with weights, what each looks at, what follows it."""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch

from model.alexnet import list_layers
from model.config import AlexNetConfig
from model.layers import Conv, Dense, Layer, Local, Lrn, MapNorm, Pool, Shape

Sight = Literal["image", "own", "both"]
WEIGHTED = Conv | Local | Dense


class ReceptiveField(NamedTuple):
    """What a place of a map sees of the network's input, in pixels.

    reach: of a side of the square. step: from one place to the next. centre: of the first place,
    from the input's left or top edge.
    """

    size: int = 1
    stride: int = 1
    start: float = 0.5

    def after(self, layer: Layer) -> "ReceptiveField":
        """What a place sees after one more layer; the window of most is their own place."""
        size, stride, pad = window(layer)
        return ReceptiveField(
            size=self.size + (size - 1) * self.stride,
            stride=self.stride * stride,
            start=self.start + ((size - 1) / 2 - pad) * self.stride,
        )

    def extent(self, place: int) -> tuple[float, float]:
        """From where to where a place sees, along one side; beyond the input it sees zeros."""
        middle = self.start + self.stride * place
        return middle - self.size / 2, middle + self.size / 2


@dataclass(frozen=True, kw_only=True)
class WeightedLayer:
    """A layer with weights, its activation, and what follows until the next one.

    kind: maps; neurons, maps of a single place; or labels, of which there is one list for all
    towers. towers: how many the network has. maps: of each tower. side: places of a map's side.
    kernel, stride: in places of what comes in. depth: how many maps, or values, a kernel sees.
    sees: whose. after: what follows. leaves: the shape of what then goes on from each tower.
    """

    name: str
    kind: Literal["maps", "neurons", "labels"]
    towers: int
    maps: int
    side: int
    kernel: int
    stride: int
    input_depth: int
    input_from: Sight
    receptive_field: ReceptiveField | None  # None: a neuron sees everything
    followed_by: tuple[str, ...]
    output: Shape

    @property
    def joins_towers(self) -> bool:
        """Whether the towers meet here: each kernel sees what both have computed before."""
        return self.towers > 1 and self.input_from == "both"


def list_weighted_layers(config: AlexNetConfig) -> list[WeightedLayer]:
    """The stages of a network, from conv1 to the labels."""
    found: list[WeightedLayer] = []
    shape, field = Shape(3, config.crop), ReceptiveField()
    chain = list_layers(config)
    for layer in chain:
        before, shape, field = shape, shape_after(layer, shape, config), field.after(layer)
        if isinstance(layer, WEIGHTED):
            sight = sight_of(layer, first=not found)
            stage = begun(layer, before, shape, sight, config.towers)
            found.append(
                stage if stage.kind == "neurons" else replace(stage, receptive_field=field)
            )
        elif found and (words := said(layer, config)):
            after, leaves = (*found[-1].followed_by, words), own(shape, config.towers)
            found[-1] = replace(found[-1], followed_by=after, output=leaves)
    return [*found[:-1], as_labels(found[-1], config.classes)]


def begun(layer: WEIGHTED, before: Shape, shape: Shape, sees: Sight, towers: int) -> WeightedLayer:
    """A stage of which the layer with weights is known, and no more."""
    dense = isinstance(layer, Dense)
    return WeightedLayer(
        name=layer.name,
        kind="neurons" if dense else "maps",
        towers=towers,
        maps=shape.maps // towers,
        side=shape.side,
        kernel=1 if isinstance(layer, Dense) else layer.kernel,
        stride=layer.stride if isinstance(layer, Conv) else 1,
        input_depth=before.maps // towers if sees == "own" else before.maps,
        input_from=sees,
        receptive_field=None,
        followed_by=(),
        output=own(shape, towers),
    )


def as_labels(stage: WeightedLayer, classes: int) -> WeightedLayer:
    """The same stage as the last one, whose outputs are no longer parted between the towers."""
    return replace(stage, kind="labels", maps=classes, output=Shape(classes, 1))


def own(shape: Shape, towers: int) -> Shape:
    """What of a shape is each tower's."""
    return Shape(shape.maps // towers, shape.side)


def shape_after(layer: Layer, shape: Shape, config: AlexNetConfig) -> Shape:
    """The shape that a layer gives."""
    with torch.device("meta"):
        return layer.build(shape, config.towers)[1]


def sight_of(layer: WEIGHTED, *, first: bool) -> Sight:
    """Whose maps a kernel of the layer sees."""
    if first:
        return "image"
    return "own" if isinstance(layer, Conv) and layer.grouped else "both"


def window(layer: Layer) -> tuple[int, int, int]:
    """Size, stride and padding of what a place of a layer's output sees of its input."""
    if isinstance(layer, Conv):
        return layer.kernel, layer.stride, layer.pad
    if isinstance(layer, Local):
        return layer.kernel, 1, layer.pad
    if isinstance(layer, Pool):
        return layer.size, layer.stride, 0
    return (layer.n, 1, layer.n // 2) if isinstance(layer, MapNorm) else (1, 1, 0)


def said(layer: Layer, config: AlexNetConfig) -> str:
    """What a layer without weights does; nothing of one that changes nothing at test time."""
    if isinstance(layer, Lrn):
        across = layer.across and config.towers > 1
        return "normalised across both towers" if across else "normalised"
    if isinstance(layer, MapNorm):
        return "normalised within each map"
    return "pooled" if isinstance(layer, Pool) else ""
