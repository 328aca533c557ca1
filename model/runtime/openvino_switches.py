"""A network's graph of layers, changed by switches: in place, before it is compiled.

In a graph read from a file the layers have no names. They are found by what they compute: the
nonlinearities are its only Relu or Tanh, response normalisation the only division by something
computed, the crop the first slice.
"""

from collections.abc import Iterable
from typing import Any

import openvino as ov
from openvino import opset13 as op

from model.image.preprocess import CENTRE_CROP, crop_offsets
from model.network.config import AlexNetConfig
from model.network.switches import Switches, make_masks
from model.runtime.openvino_shaping import Output, integers, mirror
from model.runtime.protocol import RuntimeUnavailableError

NONLINEARITIES = ("Relu", "Tanh")


def apply_switches(graph: ov.Model, config: AlexNetConfig, switches: Switches) -> None:
    """Change a graph as `build_layers_graph` makes it. Raises RuntimeUnavailableError."""
    nodes = graph.get_ordered_ops()
    neurons = [node for node in nodes if node.get_type_name() in NONLINEARITIES]
    masks = make_masks(config, switches)
    if len(neurons) != len(masks):
        raise RuntimeUnavailableError("its nonlinearities are not where they are looked for")
    for node, mask in zip(neurons, masks, strict=True):
        readers = node.output(0).get_target_inputs()
        output = exchange_graph_neurons(node, switches.neurons)
        if mask is not None:
            output = op.multiply(output, op.constant(mask)).output(0)
        lead_to(readers, output)
    if not switches.lrn:
        for node in nodes:
            if is_normalisation(node):
                lead_to(node.output(0).get_target_inputs(), node.input_value(0))
    if switches.crop != CENTRE_CROP:
        move_crop(nodes, config, switches.crop)
    graph.validate_nodes_and_infer_types()


def exchange_graph_neurons(node: Any, neurons: str) -> Output:
    """Return the output of a nonlinearity, or of what takes its place."""
    before = node.input_value(0)
    match neurons:
        case "none":
            return before
        case "relu":
            return op.relu(before).output(0)
        case "tanh":
            return op.tanh(before).output(0)
    return node.output(0)


def is_normalisation(node: Any) -> bool:
    """Whether a node divides by something that is computed, as only response normalisation does."""
    if node.get_type_name() != "Divide":
        return False
    return bool(node.input_value(1).get_node().get_type_name() != "Constant")


def move_crop(nodes: list[Any], config: AlexNetConfig, crop: int) -> None:
    """Have the network see another of the ten crops. Raises RuntimeUnavailableError."""
    found = next((node for node in nodes if node.get_type_name() == "Slice"), None)
    if found is None:
        raise RuntimeUnavailableError("its crop is not where it is looked for")
    readers = found.output(0).get_target_inputs()
    offsets = crop_offsets(config.side, config.crop)
    top, left = offsets[crop % len(offsets)]
    ends = [top, left], [top + config.crop, left + config.crop]
    for place, values in enumerate(ends, 1):
        found.input(place).replace_source_output(integers(values).output(0))
    if crop >= len(offsets):
        lead_to(readers, mirror(found.output(0)))


def lead_to(readers: Iterable[Any], output: Output) -> None:
    """Have inputs read another output. They are listed before anything new reads the old one."""
    for reader in readers:
        reader.replace_source_output(output)
