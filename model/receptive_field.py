"""A network as Figure 2 draws it: its layers with weights, what each looks at, what follows it."""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch

from model.alexnet import AlexNetConfig, layers
from model.layers import Conv, Dense, Layer, Local, Lrn, MapNorm, Pool, Shape

Sight = Literal["image", "own", "both"]
Weighted = Conv | Local | Dense


class Field(NamedTuple):
    """What a place of a map sees of the network's input, in pixels.

    reach: of a side of the square. step: from one place to the next. centre: of the first place,
    from the input's left or top edge.
    """

    reach: int = 1
    step: int = 1
    centre: float = 0.5

    def through(self, layer: Layer) -> "Field":
        """What a place sees after one more layer; the window of most is their own place."""
        size, stride, pad = window(layer)
        return Field(
            reach=self.reach + (size - 1) * self.step,
            step=self.step * stride,
            centre=self.centre + ((size - 1) / 2 - pad) * self.step,
        )

    def span(self, place: int) -> tuple[float, float]:
        """From where to where a place sees, along one side; beyond the input it sees zeros."""
        middle = self.centre + self.step * place
        return middle - self.reach / 2, middle + self.reach / 2


@dataclass(frozen=True, kw_only=True)
class Stage:
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
    depth: int
    sees: Sight
    field: Field | None  # None: a neuron sees everything
    after: tuple[str, ...]
    leaves: Shape

    @property
    def meets(self) -> bool:
        """Whether the towers meet here: each kernel sees what both have computed before."""
        return self.towers > 1 and self.sees == "both"


def stages(config: AlexNetConfig) -> list[Stage]:
    """The stages of a network, from conv1 to the labels."""
    found: list[Stage] = []
    shape, field = Shape(3, config.crop), Field()
    chain = layers(config)
    for layer in chain:
        before, shape, field = shape, shape_after(layer, shape, config), field.through(layer)
        if isinstance(layer, Weighted):
            sight = sight_of(layer, first=not found)
            stage = begun(layer, before, shape, sight, config.towers)
            found.append(stage if stage.kind == "neurons" else replace(stage, field=field))
        elif found and (words := said(layer, config)):
            after, leaves = (*found[-1].after, words), own(shape, config.towers)
            found[-1] = replace(found[-1], after=after, leaves=leaves)
    return [*found[:-1], as_labels(found[-1], config.classes)]


def begun(layer: Weighted, before: Shape, shape: Shape, sees: Sight, towers: int) -> Stage:
    """A stage of which the layer with weights is known, and no more."""
    dense = isinstance(layer, Dense)
    return Stage(
        name=layer.name,
        kind="neurons" if dense else "maps",
        towers=towers,
        maps=shape.maps // towers,
        side=shape.side,
        kernel=1 if isinstance(layer, Dense) else layer.kernel,
        stride=layer.stride if isinstance(layer, Conv) else 1,
        depth=before.maps // towers if sees == "own" else before.maps,
        sees=sees,
        field=None,
        after=(),
        leaves=own(shape, towers),
    )


def as_labels(stage: Stage, classes: int) -> Stage:
    """The same stage as the last one, whose outputs are no longer parted between the towers."""
    return replace(stage, kind="labels", maps=classes, leaves=Shape(classes, 1))


def own(shape: Shape, towers: int) -> Shape:
    """What of a shape is each tower's."""
    return Shape(shape.maps // towers, shape.side)


def shape_after(layer: Layer, shape: Shape, config: AlexNetConfig) -> Shape:
    """The shape that a layer gives."""
    with torch.device("meta"):
        return layer.build(shape, config.towers)[1]


def sight_of(layer: Weighted, *, first: bool) -> Sight:
    """Whose maps a kernel of the layer sees."""
    if first:
        return "image"
    return layer.sees if isinstance(layer, Conv) else "both"


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
