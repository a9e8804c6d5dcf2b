"""Who makes models: networks before training, and the recipes that train them."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from bezoar.component import Component
from bezoar.records import Dataset
from bezoar.seed import Seed

if TYPE_CHECKING:
    from bezoar.lab import Lab
    from bezoar.models.classifier import Classifier


class Architecture(Component):
    """A network before training."""

    family: ClassVar[str] = "architectures"

    @abstractmethod
    def build(self, shape: tuple[int, int, int], classes: tuple[str, ...], seed: Seed) -> Classifier:
        """A freshly initialised classifier for images of that shape (c, h, w)."""


class Trainer(Component):
    """A recipe that turns labelled images into a model."""

    family: ClassVar[str] = "trainers"

    @abstractmethod
    def train(self, architecture: Architecture, data: Dataset, lab: Lab, seed: Seed) -> Classifier:
        """A trained classifier in evaluation mode, on the lab's device."""

    def makes(self, architecture: Architecture) -> Architecture:
        """The architecture of the model that `train` returns, so that it can be built again from its weights."""
        return architecture
