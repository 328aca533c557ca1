"""What tests of trained networks need."""

from collections.abc import Callable

import pytest
import torch

from model.alexnet import AlexNet, AlexNetConfig
from model.checkpoint import Pca, Provenance, Weights
from model.photographs import ClassName
from model.predict import Predictor


@pytest.fixture(scope="session")
def make_predictor() -> Callable[[AlexNetConfig], Predictor]:
    """Makes a network of a configuration, its weights drawn, its mean image of any colours."""

    def make(config: AlexNetConfig) -> Predictor:
        torch.manual_seed(11)
        weights = Weights(
            config=config,
            classes=tuple(ClassName(f"n{i}", f"class {i}") for i in range(config.classes)),
            mean=torch.rand(3, config.side, config.side) * 200,
            pca=Pca(torch.ones(3), torch.eye(3)),
            provenance=Provenance(
                data="",
                images=0,
                epochs=0,
                preset="",
                top1_error=None,
                top5_error=None,
                commit="",
                created="",
            ),
            state=AlexNet(config).state_dict(),
        )
        return Predictor.from_weights(weights, "cpu")

    return make
