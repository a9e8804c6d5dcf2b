"""bezoar's own networks, narrow ones where the published are wide, and images for them."""

import torch
from torch import Tensor

from bezoar.models.classifier import StagedClassifier
from bezoar.models.convolutional import Convolutional, DeepConvolutional
from bezoar.models.densenet import DenseNet121, SmallDenseNet
from bezoar.models.dpn import DPN92
from bezoar.models.googlenet import GoogLeNet
from bezoar.models.mobilenet_v2 import MobileNetV2, SmallMobileNetV2
from bezoar.models.resnet import ResNet18, ResNet50, SmallResNet
from bezoar.models.resnext import ResNeXt29
from bezoar.models.senet import SENet18, SmallSENet
from bezoar.roles import Architecture
from bezoar.seed import Seed

DIGITS = tuple("0123456789")
SHAPE = (3, 32, 32)
NARROW: list[Architecture] = [
    ResNet18(width=16),
    ResNet50(width=16),
    SENet18(width=16),
    ResNeXt29(width=16),
    DPN92(width=16),
    MobileNetV2(width=16),
    GoogLeNet(width=16),
    DenseNet121(growth=16),
]
SMALL: list[Architecture] = [SmallResNet(), SmallSENet(), SmallDenseNet(), SmallMobileNetV2()]
EVERY = [*NARROW, *SMALL]
PLAIN: list[Architecture] = [Convolutional(), DeepConvolutional()]
"""Without batch normalisation and without a block for each resolution."""


def images(count: int, name: str = "images") -> Tensor:
    return torch.rand(count, *SHAPE, generator=(Seed(3) / name).generator())


def made(architecture: Architecture) -> StagedClassifier:
    model = architecture.build(SHAPE, DIGITS, Seed(1))
    assert isinstance(model, StagedClassifier)
    return model


def settled(architecture: Architecture) -> StagedClassifier:
    """A network whose batch normalisation has seen images, so that evaluation mode is not the initial one."""
    model = made(architecture)
    model(images(8, "settling"))
    return model.eval()
