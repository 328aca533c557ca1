"""What is read out of a network's graph of all layers, and added to it."""

from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as op

from model.runtime.protocol import Floats, RuntimeUnavailableError


def add_gains(graph: ov.Model) -> ov.Model:
    """Multiply the output of each layer but the last by an input of its own, float32 [1, maps, …].

    graph: that of all layers, an output a layer; it is changed. Returns a graph with these inputs
    after the pixels.
    """
    results = graph.get_results()
    gains: list[Any] = []
    for result in results[:-1]:
        output = result.input_value(0)
        _, maps, *place = list(output.get_partial_shape())
        shape = [1, maps.get_length(), *(1 for _ in place)]
        gain = op.parameter(shape, np.float32, name=f"gains {len(gains) + 1}")
        readers = list(output.get_target_inputs())
        product = op.multiply(output, gain).output(0)
        for reader in readers:
            reader.replace_source_output(product)
        gains.append(gain)
    return ov.Model(results, [*graph.get_parameters(), *gains], "layers with gains")


def find_all_weights(graph: ov.Model) -> list[Floats]:
    """Find the weights of each layer in the graph of all layers, in torch's arrangement.

    Raises RuntimeUnavailableError for a graph that is arranged otherwise.
    """
    return [find_layer_weights(result.input_value(0).get_node()) for result in graph.get_results()]


def find_layer_weights(node: Any) -> Floats:
    """Find the weights of a layer, given the last of its operations: a product, or plus biases."""
    if node.get_type_name() == "Add":
        node = node.input_value(0).get_node()
    if node.get_type_name() not in ("Convolution", "GroupConvolution", "MatMul"):
        raise RuntimeUnavailableError(f"a layer ends with a {node.get_type_name()}")
    weights = read_constant(node.input_value(1).get_node())
    if node.get_type_name() == "GroupConvolution":
        return weights.reshape(-1, *weights.shape[2:])
    return weights


def find_mean(graph: ov.Model) -> Floats:
    """Find the mean image, float32 [3, side, side], in a graph that begins with the pixels.

    Raises RuntimeUnavailableError if nothing is subtracted from them.
    """
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "Subtract":
            mean: Floats = read_constant(node.input_value(1).get_node())[0]
            return mean
    raise RuntimeUnavailableError("the graph subtracts no mean image")


def read_constant(node: Any) -> Floats:
    """Return a constant's values. Raises RuntimeUnavailableError for another operation."""
    if node.get_type_name() != "Constant":
        raise RuntimeUnavailableError(f"weights come from a {node.get_type_name()}")
    values: Floats = node.data
    return values
