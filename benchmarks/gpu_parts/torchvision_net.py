"""torchvision's AlexNet, or the same layers where torchvision is not installed."""

from torch import nn


def build_torchvision_net(classes: int = 1000) -> nn.Module:
    """Build torchvision's AlexNet with its initial weights."""
    try:
        from torchvision.models import alexnet
    except ImportError:
        return build_copy(classes)
    network: nn.Module = alexnet(num_classes=classes)
    return network


def build_copy(classes: int) -> nn.Module:
    """Build the layers that torchvision.models.alexnet has, in its order."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.AdaptiveAvgPool2d(6),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(256 * 6 * 6, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(4096, 4096),
        nn.ReLU(inplace=True),
        nn.Linear(4096, classes),
    )
