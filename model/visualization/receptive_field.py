"""A network as Figure 2 draws it: its weighted layers, their receptive fields and operations."""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from model.network.config import AlexNetConfig
from model.network.layers import Conv, Dense, Layer, Local, Lrn, MapNorm, Pool, Shape
from model.network.paper_layers import list_layers

InputFrom = Literal["image", "own", "both"]


class ReceptiveField(NamedTuple):
    """What one position of a map sees of the network's input, in pixels along one side.

    size:   how many pixels one position sees.
    stride: from one position to the next.
    start:  the centre of the first position's field, from the input's left or top edge.
    """

    size: int = 1
    stride: int = 1
    start: float = 0.5

    def after(self, layer: Layer) -> "ReceptiveField":
        """Return the receptive field after one more layer."""
        size, stride, pad = find_layer_window(layer)
        return ReceptiveField(
            size=self.size + (size - 1) * self.stride,
            stride=self.stride * stride,
            start=self.start + ((size - 1) / 2 - pad) * self.stride,
        )

    def extent(self, position: int) -> tuple[float, float]:
        """Return the first and last edge, in pixels, of what a position sees; outside are zeros."""
        centre = self.start + self.stride * position
        return centre - self.size / 2, centre + self.size / 2


@dataclass(frozen=True, kw_only=True)
class WeightedLayer:
    """A layer with weights, its activation, and what follows until the next such layer.

    kind:            "maps"; "neurons", which are maps of a single position; or "labels", a single
                     list for all towers.
    towers:          how many the network has.
    maps:            maps, neurons or labels of each tower.
    side:            positions along a map's side.
    kernel, stride:  in positions of the input.
    input_depth:     how many maps, or values, one kernel sees.
    input_from:      whose maps those are: the image's, its own tower's, or both towers'.
    receptive_field: None for neurons, which see the whole image.
    followed_by:     what is done to the result before the next layer with weights.
    output:          the shape, for each tower, that the next layer receives.
    """

    name: str
    kind: Literal["maps", "neurons", "labels"]
    towers: int
    maps: int
    side: int
    kernel: int
    stride: int
    input_depth: int
    input_from: InputFrom
    receptive_field: ReceptiveField | None
    followed_by: tuple[str, ...]
    output: Shape

    @property
    def joins_towers(self) -> bool:
        """Whether the towers exchange their maps here: each kernel sees those of both."""
        return self.towers > 1 and self.input_from == "both"


def list_weighted_layers(config: AlexNetConfig) -> list[WeightedLayer]:
    """List the layers with weights of a network, from conv1 to the labels."""
    result: list[WeightedLayer] = []
    shape, field = Shape(3, config.crop), ReceptiveField()
    for layer in list_layers(config):
        before, shape, field = shape, layer.output_shape(shape), field.after(layer)
        if isinstance(layer, Conv | Local | Dense):
            result.append(describe_layer(layer, before, shape, field, config.towers))
        elif result and (operation := name_operation(layer, config)):
            result[-1] = replace(
                result[-1],
                followed_by=(*result[-1].followed_by, operation),
                output=divide_among_towers(shape, config.towers),
            )
    result[0] = replace(result[0], input_from="image")
    # The outputs of the last layer are not divided between the towers.
    classes = config.classes
    result[-1] = replace(result[-1], kind="labels", maps=classes, output=Shape(classes, 1))
    return result


def describe_layer(
    layer: Conv | Local | Dense, before: Shape, shape: Shape, field: ReceptiveField, towers: int
) -> WeightedLayer:
    """Describe a layer by its input and output shapes, without the operations after it."""
    dense = isinstance(layer, Dense)
    grouped = isinstance(layer, Conv) and layer.grouped
    return WeightedLayer(
        name=layer.name,
        kind="neurons" if dense else "maps",
        towers=towers,
        maps=shape.maps // towers,
        side=shape.side,
        kernel=1 if isinstance(layer, Dense) else layer.kernel,
        stride=layer.stride if isinstance(layer, Conv) else 1,
        input_depth=before.maps // towers if grouped else before.maps,
        input_from="own" if grouped else "both",
        receptive_field=None if dense else field,
        followed_by=(),
        output=divide_among_towers(shape, towers),
    )


def divide_among_towers(shape: Shape, towers: int) -> Shape:
    """Return the part of a shape that each tower has."""
    return Shape(shape.maps // towers, shape.side)


def find_layer_window(layer: Layer) -> tuple[int, int, int]:
    """Return size, stride and padding of the input window that one position of a layer sees."""
    if isinstance(layer, Conv):
        return layer.kernel, layer.stride, layer.pad
    if isinstance(layer, Local):
        return layer.kernel, 1, layer.pad
    if isinstance(layer, Pool):
        return layer.size, layer.stride, 0
    return (layer.n, 1, layer.n // 2) if isinstance(layer, MapNorm) else (1, 1, 0)


def name_operation(layer: Layer, config: AlexNetConfig) -> str:
    """Name what a layer without weights does; empty if it does nothing at test time."""
    if isinstance(layer, Lrn):
        across = layer.across and config.towers > 1
        return "normalised across both towers" if across else "normalised"
    if isinstance(layer, MapNorm):
        return "normalised within each map"
    return "pooled" if isinstance(layer, Pool) else ""
