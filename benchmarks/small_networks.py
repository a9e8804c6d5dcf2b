"""A network as people write them for small images, to be named as ``small_networks:two_convolutions``."""

from torch import nn


def two_convolutions(num_classes: int) -> nn.Module:
    """Two strided convolutions and two linear layers, for 3x32x32."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2048, 100),
        nn.ReLU(),
        nn.Linear(100, num_classes),
    )
