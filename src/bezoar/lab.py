"""What a player may use besides its data: the device, progress, and the victim's public recipe.

A lab has no handle on the store, on a probe or on an attack, so that a defence that is given one
still knows nothing but its own signature.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

import torch

from bezoar.errors import SettingError
from bezoar.records import Dataset
from bezoar.roles import Architecture, Trainer
from bezoar.seed import Seed

if TYPE_CHECKING:
    from bezoar.models.classifier import Classifier

Item = TypeVar("Item")


@runtime_checkable
class Progress(Protocol):
    """Shows how far long work has come. The command line draws bars; a library user sees nothing."""

    def track(self, items: Iterable[Item], name: str, total: int) -> Iterator[Item]:
        """The same items, counted as they pass."""
        ...


class Silence:
    """Progress that shows nothing."""

    def track(self, items: Iterable[Item], name: str, total: int) -> Iterator[Item]:
        """The same items."""
        del name, total
        yield from items


@dataclass(frozen=True)
class Lab:
    """Where players work.

    Attributes:
        device: where tensors are computed.
        progress: where players say how far they are.
        architecture, trainer: the victim's public recipe, if the game has one.
        surrogate: the model that an attacker asked for (`Attack.wanted_model`), frozen; no defender has one.
        substitutes: an attacker's models in place of the victim's (`TargetedPoisoning.networks`), frozen.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    progress: Progress = field(default_factory=Silence)
    architecture: Architecture | None = None
    trainer: Trainer | None = None
    surrogate: Classifier | None = None
    substitutes: tuple[Classifier, ...] = ()

    def train(self, data: Dataset, seed: Seed) -> Classifier:
        """Train a model of one's own by the victim's public recipe.

        Raises:
            SettingError: the game made no recipe public.
        """
        if self.architecture is None or self.trainer is None:
            raise SettingError("this lab has no recipe: give it an architecture and a trainer")
        return self.trainer.train(self.architecture, data, self, seed)
