"""Plain convolutional networks without batch normalisation: those on which certified training is studied."""

from __future__ import annotations

from torch import nn

from bezoar.component import register
from bezoar.errors import SettingError
from bezoar.models.anatomy import Unit
from bezoar.models.classifier import Classifier, StagedClassifier
from bezoar.models.dropout import DropoutRate, dropping
from bezoar.models.resnet import Width
from bezoar.roles import Architecture
from bezoar.seed import Seed

LEAST = 4
"""The shortest side of an image of which something is left behind two strides."""


def rectified(inputs: int, outputs: int, *, kernel: int, stride: int) -> Unit:
    """A convolution with bias, padded by 1, and a rectifier."""
    return Unit(nn.Conv2d(inputs, outputs, kernel, stride, padding=1), nn.ReLU())


def fully_connected(inputs: int, outputs: int, dropout: float) -> Unit:
    """A linear layer on all of a feature map, a rectifier, and the features as a map of one pixel."""
    return Unit(
        nn.Flatten(), nn.Linear(inputs, outputs), nn.ReLU(), dropping(dropout), nn.Unflatten(1, (outputs, 1, 1))
    )


def _require_size(kind: str, shape: tuple[int, int, int]) -> None:
    if min(shape[1:]) < LEAST:
        raise SettingError(f"{kind} takes images of at least {LEAST}x{LEAST}, not {shape[1]}x{shape[2]}")


@register("convolutional", paper="arXiv:1810.12715")
class Convolutional(Architecture):
    """Two convolutions, a hidden layer and the head: the small network of Gowal et al.'s and Wong & Kolter's kind.

    4x4 kernels of stride 2, `width` and twice as many, then `hidden` units, whose outputs are the features: 166,406
    parameters at 10 classes on grey 28x28 images. It takes images of 4x4 and more.
    """

    width: Width = 16
    hidden: Width = 100
    dropout: DropoutRate = 0
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)

    def build(self, shape: tuple[int, int, int], classes: tuple[str, ...], seed: Seed) -> Classifier:
        """Each convolution halves the sides.

        Raises:
            SettingError: the images are smaller than 4x4.
        """
        _require_size(self.kind, shape)
        channels, height, width = shape
        with seed.scoped():
            blocks = [
                rectified(channels, self.width, kernel=4, stride=2),
                rectified(self.width, 2 * self.width, kernel=4, stride=2),
                fully_connected(2 * self.width * (height // 4) * (width // 4), self.hidden, self.dropout),
            ]
            return StagedClassifier(blocks, self.hidden, classes, self.mean, self.std)


@register("deep_convolutional", paper="arXiv:1810.12715")
class DeepConvolutional(Architecture):
    """Five convolutions, a hidden layer and the head: at width 64 the large network of Gowal et al.; 16 is for CPUs.

    3x3 kernels, two of `width` channels and three of twice as many, the first of which has stride 2; then 8 times
    `width` hidden units, whose outputs are the features.
    """

    width: Width = 16
    dropout: DropoutRate = 0
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)

    def build(self, shape: tuple[int, int, int], classes: tuple[str, ...], seed: Seed) -> Classifier:
        """The third convolution halves the sides.

        Raises:
            SettingError: the images are smaller than 4x4.
        """
        _require_size(self.kind, shape)
        channels, height, width = shape
        wide, hidden = 2 * self.width, 8 * self.width
        with seed.scoped():
            blocks = [
                rectified(channels, self.width, kernel=3, stride=1),
                rectified(self.width, self.width, kernel=3, stride=1),
                rectified(self.width, wide, kernel=3, stride=2),
                rectified(wide, wide, kernel=3, stride=1),
                rectified(wide, wide, kernel=3, stride=1),
                fully_connected(wide * ((height + 1) // 2) * ((width + 1) // 2), hidden, self.dropout),
            ]
            return StagedClassifier(blocks, hidden, classes, self.mean, self.std)
