"""Residual networks for small images, made of modules only, so that bounds can be propagated through them."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field
from torch import Tensor, nn

from bezoar.component import register
from bezoar.models.anatomy import Unit
from bezoar.models.classifier import Classifier, StagedClassifier
from bezoar.models.dropout import DropoutRate, dropping
from bezoar.roles import Architecture
from bezoar.seed import Seed


def _wide_enough(width: int) -> int:
    if width < 16:
        raise ValueError(
            f"{width} is too narrow: torch corrupts memory on some CPUs below 16 channels (oneDNN issue 6035); "
            "use at least 16"
        )
    return width


Width = Annotated[int, AfterValidator(_wide_enough)]
"""Channels. With fewer than 16, torch corrupts memory on CPUs with AVX-512: oneDNN's gradient of a strided 1x1
convolution writes past its buffer where an image holds fewer channels than a vector register (uxlfoundation/oneDNN
issue 6035, open; seen with torch 2.14 and 2.15)."""


class Residual(nn.Module):
    """``body(x) + shortcut(x)``; the activation follows as a module of its own."""

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut

    def forward(self, inputs: Tensor) -> Tensor:
        """The sum of both branches; the body runs last, so the last layer that runs is the body's."""
        return self.shortcut(inputs) + self.body(inputs)


def convolution(inputs: int, outputs: int, stride: int = 1, kernel: int = 3, *, groups: int = 1) -> nn.Sequential:
    """A convolution without bias, followed by batch normalisation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    )


def stem(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    """The first block of most networks: a convolution at full resolution and a rectifier."""
    return nn.Sequential(convolution(inputs, outputs, kernel=kernel), nn.ReLU())


def activation(dropout: float) -> nn.Module:
    """A rectifier, and dropout behind it."""
    return nn.Sequential(nn.ReLU(), dropping(dropout))


def basic_block(inputs: int, outputs: int, stride: int, dropout: float = 0.0) -> Unit:
    """He et al.'s basic block: two 3x3 convolutions, dropout between them, beside a shortcut; then the activation."""
    body = nn.Sequential(convolution(inputs, outputs, stride), activation(dropout), convolution(outputs, outputs))
    same = stride == 1 and inputs == outputs
    shortcut = nn.Identity() if same else convolution(inputs, outputs, stride, kernel=1)
    return Unit(Residual(body, shortcut), nn.ReLU())


def bottleneck(inputs: int, inner: int, outputs: int, stride: int, *, groups: int = 1, dropout: float = 0.0) -> Unit:
    """He et al.'s bottleneck block, or with groups Xie et al.'s (arXiv:1611.05431)."""
    body = bottleneck_body(inputs, inner, outputs, stride, groups=groups, dropout=dropout)
    same = stride == 1 and inputs == outputs
    shortcut = nn.Identity() if same else convolution(inputs, outputs, stride, kernel=1)
    return Unit(Residual(body, shortcut), nn.ReLU())


def bottleneck_body(
    inputs: int, inner: int, outputs: int, stride: int, *, groups: int, dropout: float
) -> nn.Sequential:
    """1x1, 3x3 (with the stride, in groups) and 1x1 convolutions; dropout before the last."""
    return nn.Sequential(
        convolution(inputs, inner, kernel=1),
        nn.ReLU(),
        convolution(inner, inner, stride, groups=groups),
        activation(dropout),
        convolution(inner, outputs, kernel=1),
    )


def stage(inputs: int, outputs: int, stride: int, depth: int, *, dropout: float = 0.0) -> nn.Sequential:
    """`depth` basic blocks, the first of which changes width and resolution."""
    first = basic_block(inputs, outputs, stride, dropout)
    return nn.Sequential(first, *(basic_block(outputs, outputs, 1, dropout) for _ in range(depth - 1)))


@register("resnet18", paper="arXiv:1512.03385")
class ResNet18(Architecture):
    """ResNet-18 for 32x32 images: a 3x3 stem, no max-pooling; 11,173,962 parameters at 10 classes and width 64.

    With `dropout`, activations are dropped in each basic block after its first rectifier.
    """

    added = frozenset({"dropout"})

    width: Width = 64
    dropout: DropoutRate = 0
    mean: tuple[float, ...] = (0.4914, 0.4822, 0.4465)
    std: tuple[float, ...] = (0.2470, 0.2435, 0.2616)

    def build(self, shape: tuple[int, int, int], classes: tuple[str, ...], seed: Seed) -> Classifier:
        """Four stages of two basic blocks, 1, 2, 4 and 8 times the width."""
        width = self.width
        with seed.scoped():
            blocks = [
                stem(shape[0], width),
                stage(width, width, 1, 2, dropout=self.dropout),
                stage(width, 2 * width, 2, 2, dropout=self.dropout),
                stage(2 * width, 4 * width, 2, 2, dropout=self.dropout),
                stage(4 * width, 8 * width, 2, 2, dropout=self.dropout),
            ]
            return StagedClassifier(blocks, 8 * width, classes, self.mean, self.std)


@register("resnet50", paper="arXiv:1512.03385")
class ResNet50(Architecture):
    """ResNet-50 for 32x32 images: a 3x3 stem, no max-pooling; 23,520,842 parameters at 10 classes and width 64.

    The stride is that of the 3x3 convolution. With `dropout`, activations are dropped in each bottleneck after its
    second rectifier.
    """

    width: Width = 64
    dropout: DropoutRate = 0
    mean: tuple[float, ...] = (0.4914, 0.4822, 0.4465)
    std: tuple[float, ...] = (0.2470, 0.2435, 0.2616)

    def build(self, shape: tuple[int, int, int], classes: tuple[str, ...], seed: Seed) -> Classifier:
        """Four stages of 3, 4, 6 and 3 bottlenecks, 4, 8, 16 and 32 times the width."""
        with seed.scoped():
            blocks = [stem(shape[0], self.width)]
            channels = self.width
            for number, depth in enumerate((3, 4, 6, 3)):
                inner = self.width * 2**number
                units: list[nn.Module] = []
                for place in range(depth):
                    stride = 2 if number and not place else 1
                    units.append(bottleneck(channels, inner, 4 * inner, stride, dropout=self.dropout))
                    channels = 4 * inner
                blocks.append(nn.Sequential(*units))
            return StagedClassifier(blocks, channels, classes, self.mean, self.std)


@register("small_resnet", paper="arXiv:1512.03385")
class SmallResNet(Architecture):
    """A residual network for CPUs: a stem at full resolution and stages of one basic block, each halving it.

    At the default width it has 73,370 parameters at 10 classes and takes about half the time of the
    thinnest CIFAR ResNet-8, most of whose work is its first stage at full resolution. With `dropout`,
    activations are dropped in each basic block after its first rectifier.
    """

    added = frozenset({"dropout"})

    width: Width = 16
    stages: Annotated[int, Field(ge=1, le=4)] = 2
    dropout: DropoutRate = 0
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)

    def build(self, shape: tuple[int, int, int], classes: tuple[str, ...], seed: Seed) -> Classifier:
        """Stem of `width` channels, then `stages` blocks of 2, 4, 8 ... times as many."""
        with seed.scoped():
            blocks: list[nn.Module] = [stem(shape[0], self.width)]
            channels = self.width
            for _ in range(self.stages):
                blocks.append(basic_block(channels, 2 * channels, 2, self.dropout))
                channels *= 2
            return StagedClassifier(blocks, channels, classes, self.mean, self.std)
