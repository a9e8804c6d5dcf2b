"""The toy problem on which claims are tested: 4 classes of 16x16 images that a tiny network learns at once."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import cast

import torch
from torch import Tensor, nn

from bezoar.component import build, canonical
from bezoar.lab import Lab
from bezoar.models.anatomy import Unit
from bezoar.models.classifier import Classifier, StagedClassifier, frozen
from bezoar.models.resnet import SmallResNet
from bezoar.records import Dataset, Trusted
from bezoar.roles import Architecture, Attack, TargetedPoisoning, Trigger
from bezoar.seed import Seed
from bezoar.training.sgd import Sgd

CLASSES = ("north", "east", "south", "west")
SHAPE = (3, 16, 16)
TRUSTED = 24
SEED = Seed(7)


def dataset(count: int = 64, name: str = "train") -> Dataset:
    """Noise with one bright edge, which tells the class; classes in turn, in memory."""
    labels = torch.arange(count) % len(CLASSES)
    noise = torch.randint(90, (count, *SHAPE), generator=(Seed(0) / "toy" / name).generator(), dtype=torch.uint8)
    images = noise + _edges()[labels][:, None]
    return Dataset.in_memory(images, labels, CLASSES)


def _edges() -> Tensor:
    edge = torch.zeros(SHAPE[1:], dtype=torch.uint8)
    edge[:5] = 150
    return torch.stack([edge.rot90(turns) for turns in range(len(CLASSES))])


def unseen() -> Dataset:
    """32 more images of the same kind."""
    return dataset(32, "test")


def trusted() -> Trusted:
    """24 more images, which a defender holds."""
    return Trusted.of(dataset(TRUSTED, "trusted"))


def architecture() -> Architecture:
    """A small network of two blocks."""
    return SmallResNet(width=16)


def lab() -> Lab:
    """A lab on the CPU with a public recipe that takes no time."""
    return Lab(architecture=architecture(), trainer=_recipe(1))


def armed(attacker: Attack | Trigger) -> Lab:
    """The lab of an attacker, with the surrogate or the substitutes that it asks for."""
    if isinstance(attacker, TargetedPoisoning):
        return replace(lab(), substitutes=tuple(_substitute(canonical(one.describe())) for one in attacker.networks))
    wanted = attacker.wanted_model
    return lab() if wanted is None else replace(lab(), surrogate=wanted.obtain(SHAPE, _trained))


def suspect() -> Classifier:
    """A trained model, a fresh copy each time, whose layers differ in mode and in whether they want gradients.

    So a player that sets all modes or flags alike instead of giving them back is found out.
    """
    model = _trained().copy()
    next(model.children()).train()
    next(iter(model.parameters())).requires_grad_(False)
    return model


@cache
def _trained() -> Classifier:
    return _recipe(6).train(architecture(), dataset(), Lab(), SEED / "suspect")


def robust() -> Classifier:
    """A frozen model that knows the toy's classes by construction and is hard to move: there is something to certify.

    Each class has a channel, which says how much brighter than grey its edge is on average, and 0 if it is not.
    """
    with torch.no_grad(), SEED.scoped():
        unit = Unit(nn.Conv2d(SHAPE[0], 16, SHAPE[1]), nn.ReLU())
        model = StagedClassifier([unit], 16, CLASSES, (0.5,), (0.25,))
        for parameter in model.parameters():
            parameter.zero_()
        edges = (_edges() > 0).float()
        cast(Tensor, unit[0].weight)[: len(CLASSES)] = (edges / edges[0].sum() / SHAPE[0])[:, None]
        model.linear.weight[:, : len(CLASSES)] = torch.eye(len(CLASSES))
    return frozen(model)


@cache
def _substitute(described: str) -> Classifier:
    network = build(Architecture, json.loads(described))
    return frozen(_recipe(2).train(network, dataset(), Lab(), SEED / "substitute"))


def _recipe(epochs: int) -> Sgd:
    return Sgd(epochs=epochs, batch_size=16, lr=0.05, augmentation="none", schedule="one_cycle", nesterov=True)


def network(num_classes: int) -> nn.Module:
    """A network as a user's own function makes one, to be named as ``bezoar.testing.toy:network``."""
    return nn.Sequential(
        nn.Conv2d(SHAPE[0], 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, num_classes),
    )


def photographs(count: int = 6) -> Tensor:
    """Float images in [0, 1] to be stamped; the first is black and the second white."""
    images = torch.rand(count, *SHAPE, generator=(Seed(0) / "toy" / "photographs").generator())
    images[0], images[1] = 0, 1
    return images
