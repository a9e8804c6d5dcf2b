"""ResNeXt for small images: bottleneck units whose middle convolution works in groups."""

from __future__ import annotations

from torch import nn

from bezoar.component import register
from bezoar.models.classifier import Classifier, StagedClassifier
from bezoar.models.dropout import DropoutRate
from bezoar.models.resnet import Width, bottleneck, stem
from bezoar.roles import Architecture
from bezoar.seed import Seed

GROUPS = 2


@register("resnext29_2x64d", paper="arXiv:1611.05431")
class ResNeXt29(Architecture):
    """ResNeXt-29 with 2 groups of 64 channels, for 32x32 images; 9,128,778 parameters at 10 classes and width 64.

    It ends at a quarter of the images' resolution. With `dropout`, activations are dropped in each unit after its
    second rectifier.
    """

    width: Width = 64
    dropout: DropoutRate = 0
    mean: tuple[float, ...] = (0.4914, 0.4822, 0.4465)
    std: tuple[float, ...] = (0.2470, 0.2435, 0.2616)

    def build(self, shape: tuple[int, int, int], classes: tuple[str, ...], seed: Seed) -> Classifier:
        """A 1x1 stem and three stages of three bottlenecks, 4, 8 and 16 times the width; each is a block."""
        with seed.scoped():
            blocks = [stem(shape[0], self.width, kernel=1)]
            channels = self.width
            for number in range(3):
                inner = GROUPS * self.width * 2**number
                units: list[nn.Module] = []
                for place in range(3):
                    stride = 2 if number and not place else 1
                    units.append(bottleneck(channels, inner, 2 * inner, stride, groups=GROUPS, dropout=self.dropout))
                    channels = 2 * inner
                blocks.append(nn.Sequential(*units))
            return StagedClassifier(blocks, channels, classes, self.mean, self.std)
