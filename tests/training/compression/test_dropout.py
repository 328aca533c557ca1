"""A pruned network is trained with less dropout, which changes nothing of what it computes."""

from dataclasses import replace

import pytest
import torch

from model.network.alexnet import AlexNet
from model.network.architectures import VARIANTS
from model.network.config import AlexNetConfig
from model.network.modules import Dropout
from training.compression.finetune import reduce_dropout, scale_after_dropout


def test_fewer_connections_need_less_dropout() -> None:
    config = AlexNetConfig()
    assert reduce_dropout(config, 1.0) == 0.5
    assert reduce_dropout(config, 0.25) == pytest.approx(0.25)
    assert reduce_dropout(replace(config, dropout=0.0), 0.16) == 0.0


@pytest.mark.parametrize("variant", ["paper", "torchvision", "cifar"])
def test_with_another_dropout_the_outputs_are_the_same(variant: str) -> None:
    config = replace(VARIANTS[variant].config, classes=3)
    torch.manual_seed(0)
    network = AlexNet(config).eval()
    x = 50 * torch.randn(2, 3, config.crop, config.crop)
    with torch.no_grad():
        before = network(x).logits
        for name, factor in scale_after_dropout(config, 0.2).items():
            network.get_parameter(name).mul_(factor)
        for module in network.modules():
            if isinstance(module, Dropout):
                module.p = 0.2
        after = network(x).logits
    assert before.std() > 0
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4 * float(before.abs().max()))
