"""The network's layers as operations of OpenVINO, each with the weights of its module.

The weights are not copied: an operation refers to the memory of its module's tensors, which must
live as long as the graph.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from openvino import opset13 as op
from torch import Tensor, nn

from model.network.lrn import LocalResponseNorm
from model.network.modules import Dropout
from model.runtime.openvino_shaping import Output, integers, pad
from model.runtime.protocol import RuntimeUnavailableError


def apply_layers(modules: Iterable[nn.Module], x: Output) -> Output:
    """Apply modules one after another."""
    for module in modules:
        x = apply_layer(module, x)
    return x


def apply_layer(module: nn.Module, x: Output) -> Output:
    """Apply a module. Raises RuntimeUnavailableError for one that has no counterpart here."""
    match module:
        case nn.Conv2d():
            return apply_conv(module, x)
        case nn.Linear():
            product = op.matmul(x, share(module.weight), False, True)
            return op.add(product, share(module.bias[None])).output(0)
        case nn.ReLU():
            return op.relu(x).output(0)
        case nn.Tanh():
            return op.tanh(x).output(0)
        case LocalResponseNorm():
            return apply_lrn(module, x)
        case nn.MaxPool2d():
            return apply_pool(module, x)
        case Dropout():
            return apply_dropout(module, x)
    return apply_shaping(module, x)


def apply_shaping(module: nn.Module, x: Output) -> Output:
    """Apply a module that only changes the shape. Raises RuntimeUnavailableError for any other."""
    match module:
        case nn.ZeroPad2d():
            left, right, top, bottom = module.padding
            return pad(x, left=left, right=right, top=top, bottom=bottom)
        case nn.Flatten():
            return op.reshape(x, integers([0, -1]), True).output(0)
        case nn.AdaptiveAvgPool2d() if has_side(x, module.output_size):
            return x  # maps of that side stay as they are
    raise RuntimeUnavailableError(f"it has a layer {type(module).__name__}")


def apply_conv(module: nn.Conv2d, x: Output) -> Output:
    """Apply a convolution; with groups where its kernels see only their own tower's maps."""
    if isinstance(module.padding, str) or set(module.dilation) != {1}:
        raise RuntimeUnavailableError("a convolution of its is padded or dilated unusually")
    strides, border = list(module.stride), list(module.padding)
    weight = module.weight
    if module.groups == 1:
        found = op.convolution(x, share(weight), strides, border, border, [1, 1])
    else:
        grouped = torch.unflatten(weight, 0, (module.groups, -1))
        found = op.group_convolution(x, share(grouped), strides, border, border, [1, 1])
    if module.bias is None:
        return found.output(0)
    return op.add(found, share(module.bias[None, :, None, None])).output(0)


def apply_pool(module: nn.MaxPool2d, x: Output) -> Output:
    """Apply max pooling."""
    if module.padding or not isinstance(module.kernel_size, int):
        raise RuntimeUnavailableError("its pooling is padded, or its windows are no squares")
    size, stride, none = ([n] * 2 for n in (module.kernel_size, module.stride, 0))
    rounding = "ceil" if module.ceil_mode else "floor"
    return op.max_pool(x, stride, [1, 1], none, none, size, rounding).output(0)


def has_side(x: Output, side: object) -> bool:
    """Whether [N, C, H, W] has maps of side × side."""
    return all(length.get_length() == side for length in list(x.get_partial_shape())[2:])


def apply_dropout(module: Dropout, x: Output) -> Output:
    """Apply what dropout does at test time."""
    keep = 1.0 if module.inverted else 1 - module.p
    return x if keep == 1 else op.multiply(x, np.float32(keep)).output(0)


def apply_lrn(module: LocalResponseNorm, x: Output) -> Output:
    """Apply response normalisation, the sum as a banded convolution as in model/network/lrn.py.

    Measured faster than OpenVINO's own operation on the two towers' halves, by a quarter of the
    whole network's time in bf16.
    """
    assert isinstance(module.band, Tensor)
    band = torch.unflatten(module.alpha * module.band, 0, (module.towers, -1)).numpy()
    square, none = op.multiply(x, x), [0, 0]
    total = op.group_convolution(square, op.constant(band), [1, 1], none, none, [1, 1])
    t = op.add(total, np.float32(module.k))
    if module.beta == 0.75:
        root = op.sqrt(t)
        return op.divide(x, op.multiply(root, op.sqrt(root))).output(0)
    return op.divide(x, op.power(t, np.float32(module.beta))).output(0)


def share(tensor: Tensor) -> Any:
    """Make a constant that refers to a tensor's memory."""
    return op.constant(np.ascontiguousarray(tensor.detach().numpy()), shared_memory=True)
