"""GoogLeNet for small images: modules of four branches side by side."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from bezoar.component import register
from bezoar.models.anatomy import Concatenate, Unit
from bezoar.models.classifier import Classifier, StagedClassifier
from bezoar.models.dropout import DropoutRate, dropping
from bezoar.models.resnet import Width
from bezoar.roles import Architecture
from bezoar.seed import Seed


class Branches(NamedTuple):
    """Channels of an Inception module: of the four branches, and of what narrows before the 3x3 convolutions."""

    single: int
    before_one: int
    one: int
    before_two: int
    two: int
    pooled: int

    @property
    def outputs(self) -> int:
        """Channels of all branches together."""
        return self.single + self.one + self.two + self.pooled

    def scaled(self, width: int) -> Branches:
        """In proportion to the width of the whole network, 64 in the paper."""
        return Branches(*(channels * width // 64 for channels in self))


# one line for each resolution: Szegedy et al., table 1
STAGES = (
    (Branches(64, 96, 128, 16, 32, 32), Branches(128, 128, 192, 32, 96, 64)),
    (
        Branches(192, 96, 208, 16, 48, 64),
        Branches(160, 112, 224, 24, 64, 64),
        Branches(128, 128, 256, 24, 64, 64),
        Branches(112, 144, 288, 32, 64, 64),
        Branches(256, 160, 320, 32, 128, 128),
    ),
    (Branches(256, 160, 320, 32, 128, 128), Branches(384, 192, 384, 48, 128, 128)),
)


def layer(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """A convolution with bias, batch normalisation and the activation."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), nn.BatchNorm2d(outputs), nn.ReLU())


def inception(inputs: int, branches: Branches, dropout: float) -> Unit:
    """1x1; 1x1 and 3x3; 1x1 and two 3x3 (for one 5x5); pooling and 1x1: side by side, dropout behind them."""
    return Unit(
        Concatenate(
            layer(inputs, branches.single, 1),
            nn.Sequential(layer(inputs, branches.before_one, 1), layer(branches.before_one, branches.one, 3)),
            nn.Sequential(
                layer(inputs, branches.before_two, 1),
                layer(branches.before_two, branches.two, 3),
                layer(branches.two, branches.two, 3),
            ),
            nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), layer(inputs, branches.pooled, 1)),
        ),
        dropping(dropout),
    )


@register("googlenet", paper="arXiv:1409.4842")
class GoogLeNet(Architecture):
    """GoogLeNet for 32x32 images, with batch normalisation; 6,166,250 parameters at 10 classes and width 64.

    It has neither auxiliary heads nor the max-pooling of the ImageNet stem. With `dropout`, activations are dropped
    from the output of each Inception module.
    """

    width: Width = 64
    dropout: DropoutRate = 0
    mean: tuple[float, ...] = (0.4914, 0.4822, 0.4465)
    std: tuple[float, ...] = (0.2470, 0.2435, 0.2616)

    def build(self, shape: tuple[int, int, int], classes: tuple[str, ...], seed: Seed) -> Classifier:
        """A stem of 3 times the width and a block for each resolution; pooling starts the second and the third."""
        with seed.scoped():
            channels = 3 * self.width
            blocks = [layer(shape[0], channels, 3)]
            for number, modules in enumerate(STAGES):
                parts: list[nn.Module] = [nn.MaxPool2d(3, stride=2, padding=1)] if number else []
                for module in modules:
                    branches = module.scaled(self.width)
                    parts.append(inception(channels, branches, self.dropout))
                    channels = branches.outputs
                blocks.append(nn.Sequential(*parts))
            return StagedClassifier(blocks, channels, classes, self.mean, self.std)
