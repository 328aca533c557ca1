"""What tests of trained networks need."""

from collections.abc import Callable

import pytest
import torch

from model.checkpoint import Weights
from model.config import AlexNetConfig
from model.predict import Predictor


@pytest.fixture(scope="session")
def make_predictor(weights_of: Callable[..., Weights]) -> Callable[[AlexNetConfig], Predictor]:
    """Makes a network of a configuration, its weights drawn, its mean image of any colours."""

    def make(config: AlexNetConfig) -> Predictor:
        mean = torch.rand(3, config.side, config.side, generator=torch.Generator().manual_seed(1))
        return Predictor.from_weights(weights_of(config, mean=200 * mean, seed=11), "cpu")

    return make
