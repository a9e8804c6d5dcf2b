"""Squeeze-and-excitation networks for small images: pre-activation residual units that weigh their channels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from bezoar.component import register
from bezoar.models.anatomy import Unit
from bezoar.models.classifier import Classifier, StagedClassifier
from bezoar.models.dropout import DropoutRate, dropping
from bezoar.models.resnet import Residual, Width, stem
from bezoar.roles import Architecture
from bezoar.seed import Seed


class SqueezeExcite(nn.Module):
    """``x * gate(x)``, with one factor in (0, 1) for each channel of an image (Hu et al., arXiv:1709.01507).

    Args:
        channels: of the feature map.
        reduction: how many times fewer the hidden layer of the gate has.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // reduction, 1),
            nn.ReLU(),
            nn.Conv2d(channels // reduction, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """A feature map of the same shape."""
        return inputs * self.gate(inputs)


def se_unit(inputs: int, outputs: int, stride: int, *, reduction: int, dropout: float) -> Unit:
    """A pre-activation unit: where it changes the shape, its shortcut starts behind the first activation.

    Dropout stands between the first convolution and the batch normalisation that follows.
    """
    before = (nn.BatchNorm2d(inputs), nn.ReLU())
    body = (
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        dropping(dropout),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        SqueezeExcite(outputs, reduction),
    )
    if stride == 1 and inputs == outputs:
        return Unit(Residual(nn.Sequential(*before, *body), nn.Identity()))
    return Unit(*before, Residual(nn.Sequential(*body), nn.Conv2d(inputs, outputs, 1, stride, bias=False)))


def se_stages(
    inputs: int, width: int, *, depths: Sequence[int], strides: Sequence[int], reduction: int, dropout: float
) -> list[nn.Sequential]:
    """A stem and a block of units for each depth, 1, 2, 4 ... times the width; its first unit has the stride."""
    blocks = [stem(inputs, width)]
    channels = width
    for number, (depth, first) in enumerate(zip(depths, strides, strict=True)):
        units: list[nn.Module] = []
        for place in range(depth):
            stride, outputs = 1 if place else first, width * 2**number
            units.append(se_unit(channels, outputs, stride, reduction=reduction, dropout=dropout))
            channels = outputs
        blocks.append(nn.Sequential(*units))
    return blocks


@register("senet18", paper="arXiv:1709.01507")
class SENet18(Architecture):
    """SENet-18 for 32x32 images, of pre-activation units; 11,260,354 parameters at 10 classes and width 64.

    As in the networks that Zhu et al. (arXiv:1905.05897) attack, no normalisation follows the last unit. With
    `dropout`, activations are dropped in each unit after its first convolution.
    """

    width: Width = 64
    dropout: DropoutRate = 0
    mean: tuple[float, ...] = (0.4914, 0.4822, 0.4465)
    std: tuple[float, ...] = (0.2470, 0.2435, 0.2616)

    def build(self, shape: tuple[int, int, int], classes: tuple[str, ...], seed: Seed) -> Classifier:
        """A stem and four stages of two units, 1, 2, 4 and 8 times the width; each is a block."""
        depths, strides = (2, 2, 2, 2), (1, 2, 2, 2)
        with seed.scoped():
            blocks = se_stages(shape[0], self.width, depths=depths, strides=strides, reduction=16, dropout=self.dropout)
            return StagedClassifier(blocks, 8 * self.width, classes, self.mean, self.std)


@register("small_senet", paper="arXiv:1709.01507")
class SmallSENet(Architecture):
    """A squeeze-and-excitation network for CPUs: a stem at full resolution and three stages, each halving it.

    At the default width it has 156,950 parameters at 10 classes and takes 4.7 million multiply-accumulates for an image
    of 32x32; an epoch of training took 0.6 to 0.7 of `small_resnet`'s time on one thread. Its gates have a quarter of
    the channels in their hidden layer: of a sixteenth, one unit would be left, and often dead. With `dropout`,
    activations are dropped in each unit after its first convolution.
    """

    width: Width = 16
    dropout: DropoutRate = 0
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)

    def build(self, shape: tuple[int, int, int], classes: tuple[str, ...], seed: Seed) -> Classifier:
        """A stem and stages of one, one and two units, 1, 2 and 4 times the width; each is a block."""
        depths, strides = (1, 1, 2), (2, 2, 2)
        with seed.scoped():
            blocks = se_stages(shape[0], self.width, depths=depths, strides=strides, reduction=4, dropout=self.dropout)
            return StagedClassifier(blocks, 4 * self.width, classes, self.mean, self.std)
