"""Densely connected networks for small images: every layer sees all that the layers before it made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from bezoar.component import register
from bezoar.models.anatomy import Concatenate, Unit
from bezoar.models.classifier import Classifier, StagedClassifier
from bezoar.models.dropout import DropoutRate, dropping
from bezoar.models.resnet import Width, stem
from bezoar.roles import Architecture
from bezoar.seed import Seed


def dense_layer(inputs: int, growth: int, *, inner: int, dropout: float) -> Unit:
    """Adds `growth` channels, by a 1x1 and a 3x3 convolution, each behind its activation; dropout between them.

    Dropout stands before the second batch normalisation.
    """
    body = nn.Sequential(
        nn.BatchNorm2d(inputs),
        nn.ReLU(),
        nn.Conv2d(inputs, inner, 1, bias=False),
        dropping(dropout),
        nn.BatchNorm2d(inner),
        nn.ReLU(),
        nn.Conv2d(inner, growth, 3, padding=1, bias=False),
    )
    return Unit(Concatenate(nn.Identity(), body))


def transition(inputs: int, outputs: int) -> nn.Sequential:
    """A 1x1 convolution behind its activation, then half the resolution."""
    return nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, outputs, 1, bias=False), nn.AvgPool2d(2))


class Dense(NamedTuple):
    """The blocks of a densely connected network, and the channels of the last."""

    blocks: list[nn.Module]
    channels: int


def dense(channels: int, depths: Sequence[int], growth: int, *, inner: int, dropout: float) -> Dense:
    """A block of dense layers for each depth; a transition to half the channels starts each but the first.

    The activation that closes the network ends the last block.

    Args:
        channels: of the stem.
        depths: layers of each block.
        growth: channels that a layer adds.
        inner: channels between a layer's two convolutions.
        dropout: the rate.
    """
    blocks: list[nn.Module] = []
    for number, depth in enumerate(depths):
        parts: list[nn.Module] = []
        if number:
            parts.append(transition(channels, channels // 2))
            channels //= 2
        for _ in range(depth):
            parts.append(dense_layer(channels, growth, inner=inner, dropout=dropout))
            channels += growth
        if number == len(depths) - 1:
            parts += [nn.BatchNorm2d(channels), nn.ReLU()]
        blocks.append(nn.Sequential(*parts))
    return Dense(blocks, channels)


@register("densenet121", paper="arXiv:1608.06993")
class DenseNet121(Architecture):
    """DenseNet-121 for 32x32 images: a 3x3 stem, no max-pooling; 6,956,298 parameters at 10 classes and growth 32.

    With `dropout`, activations are dropped in each dense layer after its 1x1 convolution.
    """

    growth: Width = 32
    dropout: DropoutRate = 0
    mean: tuple[float, ...] = (0.4914, 0.4822, 0.4465)
    std: tuple[float, ...] = (0.2470, 0.2435, 0.2616)

    def build(self, shape: tuple[int, int, int], classes: tuple[str, ...], seed: Seed) -> Classifier:
        """A bare convolution, and blocks of 6, 12, 24 and 16 dense layers; a transition starts each but the first."""
        growth = self.growth
        with seed.scoped():
            first = nn.Conv2d(shape[0], 2 * growth, 3, padding=1, bias=False)
            blocks, channels = dense(2 * growth, (6, 12, 24, 16), growth, inner=4 * growth, dropout=self.dropout)
            return StagedClassifier([first, *blocks], channels, classes, self.mean, self.std)


@register("small_densenet", paper="arXiv:1608.06993")
class SmallDenseNet(Architecture):
    """A densely connected network for CPUs: a stem at full resolution and three blocks, each halving it.

    At the default growth it has 62,394 parameters at 10 classes and takes 4.0 million multiply-accumulates for an image
    of 32x32; an epoch of training took 0.7 to 0.9 of `small_resnet`'s time on one thread. With `dropout`, activations
    are dropped in each dense layer after its 1x1 convolution.
    """

    growth: Width = 16
    dropout: DropoutRate = 0
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)

    def build(self, shape: tuple[int, int, int], classes: tuple[str, ...], seed: Seed) -> Classifier:
        """A stem that ends at half the resolution, and blocks of 1, 4 and 4 dense layers."""
        growth = self.growth
        with seed.scoped():
            first = nn.Sequential(stem(shape[0], growth), nn.AvgPool2d(2))
            blocks, channels = dense(growth, (1, 4, 4), growth, inner=2 * growth, dropout=self.dropout)
            return StagedClassifier([first, *blocks], channels, classes, self.mean, self.std)
