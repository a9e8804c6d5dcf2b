"""Dual path networks for small images: the first channels are added up as in ResNet, the others are collected."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bezoar.component import register
from bezoar.models.anatomy import Unit
from bezoar.models.classifier import Classifier, StagedClassifier
from bezoar.models.dropout import DropoutRate
from bezoar.models.resnet import Width, bottleneck_body, convolution, stem
from bezoar.roles import Architecture
from bezoar.seed import Seed


class DualPath(nn.Module):
    """Adds the first channels of both branches and puts the others of both behind them (arXiv:1707.01629).

    Args:
        body, shortcut: the branches, both with more than `residual` channels.
        residual: how many channels are added.
    """

    def __init__(self, body: nn.Module, shortcut: nn.Module, *, residual: int) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut
        self.residual = residual

    def forward(self, inputs: Tensor) -> Tensor:
        """The sums, then what the shortcut collected, then what the body adds to it."""
        old, new = self.shortcut(inputs), self.body(inputs)
        here = self.residual
        return torch.cat([old[:, :here] + new[:, :here], old[:, here:], new[:, here:]], dim=1)


@register("dpn92", paper="arXiv:1707.01629")
class DPN92(Architecture):
    """DPN-92 for 32x32 images: a 3x3 stem, no max-pooling; 34,236,634 parameters at 10 classes and width 64.

    All numbers of channels, and that of the groups (32), are in proportion to the width, so that a group always has
    3, 6, 12 or 24 channels. With `dropout`, activations are dropped in each unit after its second rectifier.
    """

    width: Width = 64
    dropout: DropoutRate = 0
    mean: tuple[float, ...] = (0.4914, 0.4822, 0.4465)
    std: tuple[float, ...] = (0.2470, 0.2435, 0.2616)

    def build(self, shape: tuple[int, int, int], classes: tuple[str, ...], seed: Seed) -> Classifier:
        """A stem and four stages of 3, 4, 20 and 3 units; each is a block."""
        with seed.scoped():
            blocks = [stem(shape[0], self.width)]
            channels = self.width
            for number, (depth, dense) in enumerate(zip((3, 4, 20, 3), (16, 32, 24, 128), strict=True)):
                residual, collected = 4 * self.width * 2**number, dense * self.width // 64
                units: list[nn.Module] = []
                for place in range(depth):
                    stride = 2 if number and not place else 1
                    units.append(self._unit(channels, residual, collected, stride=stride, first=not place))
                    channels = residual + (place + 2) * collected
                blocks.append(nn.Sequential(*units))
            return StagedClassifier(blocks, channels, classes, self.mean, self.std)

    def _unit(self, inputs: int, residual: int, collected: int, *, stride: int, first: bool) -> Unit:
        """A unit that adds to `residual` channels and collects some more; a stage's first projects its shortcut."""
        groups = self.width // 2
        inner = 3 * groups * residual // (4 * self.width)
        outputs = residual + collected
        body = bottleneck_body(inputs, inner, outputs, stride, groups=groups, dropout=self.dropout)
        shortcut = convolution(inputs, outputs, stride, kernel=1) if first else nn.Identity()
        return Unit(DualPath(body, shortcut, residual=residual), nn.ReLU())
