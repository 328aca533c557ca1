"""Small networks with every kind of layer."""

import pytest

from model.network.config import AlexNetConfig
from model.network.layers import (
    Activation,
    AveragePool,
    Border,
    Conv,
    Dense,
    Drop,
    Flatten,
    Layer,
    Local,
    Lrn,
    MapNorm,
    Pool,
)


@pytest.fixture(scope="session")
def two_towers() -> AlexNetConfig:
    """The paper's layers in small: two towers, which meet at conv3, fc6, fc7 and fc8."""
    return define(
        Border("border", 3),
        Conv("conv1", 16, 5, stride=2),
        Activation("relu1"),
        Lrn("lrn1", 2, 5, 1.0, 0.75),
        Pool("pool1"),
        Conv("conv2", 24, 5, pad=2, grouped=True),
        Activation("relu2"),
        Lrn("lrn2", 2, 5, 1.0, 0.75),
        Pool("pool2"),
        Conv("conv3", 24, 3, pad=1),
        Activation("relu3"),
        Conv("conv5", 16, 3, pad=1, grouped=True),
        Activation("relu5"),
        Pool("pool5"),
        Flatten("flatten"),
        Dense("fc6", 64),
        Activation("relu6"),
        Drop("drop6", 0.5),
        Dense("fc7", 64),
        Activation("relu7"),
        Drop("drop7", 0.5),
        Dense("fc8", 5),
    )


@pytest.fixture(scope="session")
def every_kind() -> AlexNetConfig:
    """The kinds of layer that the paper's network does not have."""
    return define(
        Conv("conv1", 8, 5, stride=2),
        Pool("pool1", ceil=True),
        Activation("tanh1", "tanh"),
        Lrn("lrn1", 2, 5, 1.0, 0.6, across=True),
        Conv("conv2", 8, 3, grouped=True),
        MapNorm("norm2", 1, 5, 1.0, 0.75),
        Pool("pool2", ceil=True, kind="average"),
        Local("local3", 6, 3, pad=1, sigma=0.1),
        Activation("relu3"),
        AveragePool("average", 4),
        Flatten("flatten"),
        Dense("fc6", 20),
        Drop("drop6", 0.5, inverted=True),
        Dense("fc8", 5),
    )


def define(*layers: Layer) -> AlexNetConfig:
    """A network of these layers, with He's weights."""
    return AlexNetConfig(
        net="defined",
        classes=5,
        init="he",
        input_scale=60,
        side=72,
        crop=60,
        channel_scales=(0.9, 1.0, 1.1),
        layers=layers,
    )
