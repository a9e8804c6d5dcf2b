"""MobileNetV2 for small images: residual units that widen, filter each channel by itself, and narrow again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from bezoar.component import register
from bezoar.models.anatomy import Unit
from bezoar.models.classifier import Classifier, StagedClassifier
from bezoar.models.dropout import DropoutRate
from bezoar.models.resnet import Residual, Width, activation, convolution, stem
from bezoar.roles import Architecture
from bezoar.seed import Seed


class Row(NamedTuple):
    """Units in a row: by which factor they widen, their channels at width 32, how many, and the stride of the first."""

    expansion: int
    channels: int
    depth: int
    stride: int


# one line for each resolution
STAGES = (
    (Row(1, 16, 1, 1), Row(6, 24, 2, 1)),
    (Row(6, 32, 3, 2),),
    (Row(6, 64, 4, 2), Row(6, 96, 3, 1)),
    (Row(6, 160, 3, 2), Row(6, 320, 1, 1)),
)
SMALL_STAGES = ((Row(1, 32, 1, 2),), (Row(4, 64, 2, 2),), (Row(4, 128, 2, 2),))


def inverted_residual(inputs: int, outputs: int, stride: int, *, expansion: int, dropout: float) -> Unit:
    """A 1x1, a depthwise 3x3 and a 1x1 convolution, the last without activation; dropout before it.

    The shortcut of a unit that changes only the number of channels is a 1x1 convolution; one with a stride has none.
    """
    inner = expansion * inputs
    body = nn.Sequential(
        convolution(inputs, inner, kernel=1),
        nn.ReLU(),
        convolution(inner, inner, stride, groups=inner),
        activation(dropout),
        convolution(inner, outputs, kernel=1),
    )
    if stride != 1:
        return Unit(*body)
    return Unit(Residual(body, nn.Identity() if inputs == outputs else convolution(inputs, outputs, kernel=1)))


def inverted_blocks(
    inputs: int, stages: Sequence[Sequence[Row]], width: int, *, last: int, dropout: float
) -> list[nn.Sequential]:
    """A stem and a block of units for each stage, the last of which ends in a 1x1 convolution to `last` channels.

    No unit is thinner than 16 channels, whatever the width.
    """
    blocks = [stem(inputs, width)]
    channels = width
    for stage in stages:
        units: list[nn.Module] = []
        for row in stage:
            outputs = max(16, row.channels * width // 32)
            for place in range(row.depth):
                stride = 1 if place else row.stride
                units.append(inverted_residual(channels, outputs, stride, expansion=row.expansion, dropout=dropout))
                channels = outputs
        blocks.append(nn.Sequential(*units))
    blocks[-1].append(stem(channels, last, kernel=1))
    return blocks


@register("mobilenet_v2", paper="arXiv:1801.04381")
class MobileNetV2(Architecture):
    """MobileNetV2 for 32x32 images: three of its five strides; 2,296,922 parameters at 10 classes and width 32.

    A 1x1 convolution to 40 times the width follows the last unit, in the last block. With `dropout`, activations are
    dropped in each unit after its second rectifier.
    """

    width: Width = 32
    dropout: DropoutRate = 0
    mean: tuple[float, ...] = (0.4914, 0.4822, 0.4465)
    std: tuple[float, ...] = (0.2470, 0.2435, 0.2616)

    def build(self, shape: tuple[int, int, int], classes: tuple[str, ...], seed: Seed) -> Classifier:
        """A stem and a block of units for each of four resolutions."""
        with seed.scoped():
            blocks = inverted_blocks(shape[0], STAGES, self.width, last=40 * self.width, dropout=self.dropout)
            return StagedClassifier(blocks, 40 * self.width, classes, self.mean, self.std)


@register("small_mobilenet_v2", paper="arXiv:1801.04381")
class SmallMobileNetV2(Architecture):
    """MobileNetV2 for CPUs: a stem at full resolution and three blocks, each halving it.

    At the default width it has 84,874 parameters at 10 classes and takes 3.1 million multiply-accumulates for an image
    of 32x32; an epoch of training took 0.9 to 1.2 of `small_resnet`'s time on one thread, since depthwise convolutions
    are slow there. With `dropout`, activations are dropped in each unit after its second rectifier.
    """

    width: Width = 16
    dropout: DropoutRate = 0
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)

    def build(self, shape: tuple[int, int, int], classes: tuple[str, ...], seed: Seed) -> Classifier:
        """A stem and blocks of one, two and two units, 1, 2 and 4 times the width, widening by 1, 4 and 4."""
        with seed.scoped():
            blocks = inverted_blocks(shape[0], SMALL_STAGES, self.width, last=16 * self.width, dropout=self.dropout)
            return StagedClassifier(blocks, 16 * self.width, classes, self.mean, self.std)
