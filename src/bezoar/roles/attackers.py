"""Who wants a model to be wrong, and with what."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from jaxtyping import Float, Int64
from torch import Tensor

from bezoar.component import Component
from bezoar.errors import SettingError
from bezoar.records import Dataset, Poison, Probe
from bezoar.roles.builders import Architecture
from bezoar.seed import Seed

if TYPE_CHECKING:
    from bezoar.lab import Lab
    from bezoar.models.classifier import Classifier


class Surrogate(Component):
    """Where an attacker has a model of its own from, to make a trigger with."""

    family: ClassVar[str] = "surrogates"

    @abstractmethod
    def obtain(self, shape: tuple[int, int, int], trained: Callable[[], Classifier]) -> Classifier:
        """A frozen model that takes images of that shape (c, h, w); `trained` makes one of the attacker's clean data.

        Raises:
            SettingError, ModelFileError: there is no such model, or it does not take such images.
        """

    def fingerprint(self) -> str:
        """A text that changes whenever the files behind the same settings do."""
        return ""


class Trigger(Component):
    """A visible or hidden mark in pixel space."""

    family: ClassVar[str] = "triggers"

    @abstractmethod
    def stamp(
        self, images: Float[Tensor, "n c h w"], rows: Int64[Tensor, "n"], lab: Lab, seed: Seed
    ) -> Float[Tensor, "n c h w"]:
        """Images in [0, 1] with the trigger, of the same shape; the input is left alone, randomness keyed by row."""

    def stamp_training(
        self, images: Float[Tensor, "n c h w"], rows: Int64[Tensor, "n"], lab: Lab, seed: Seed
    ) -> Float[Tensor, "n c h w"]:
        """What training images carry: the trigger itself, unless it says otherwise."""
        return self.stamp(images, rows, lab, seed)

    def stamp_cells(self, images: Float[Tensor, "n c h w"], kept: Float[Tensor, "n 1 k k"]) -> Float[Tensor, "n c h w"]:
        """The trigger divided into k x k equal cells, of which only those with a 1 are stamped; all give `stamp`.

        Raises:
            SettingError: this trigger cannot be divided, or not so.
        """
        del images, kept
        raise SettingError(f"attack.trigger: no parts of {self.kind!r} can be left out; use 'blend' or 'patch'")

    @property
    def wanted_model(self) -> Surrogate | None:
        """The model that the trigger is made with; whoever calls `stamp` hands it over as `Lab.surrogate`."""
        return None


class Attack(Component):
    """A player that wants a model to be wrong where it says."""

    family: ClassVar[str] = "attacks"

    @property
    def wanted_model(self) -> Surrogate | None:
        """A model of the attacker's own, which it is handed as `Lab.surrogate`; None if it needs none."""
        return None

    @property
    def reads_recipe(self) -> bool:
        """Whether what it does to the data depends on the victim's public trainer."""
        return False

    @property
    def trains_recipe(self) -> bool:
        """Whether it trains a model of its own by the victim's whole public recipe in order to poison data."""
        return False


class Backdoor(Attack):
    """An attack that wants a model to answer its trigger."""

    @abstractmethod
    def probe(self, test: Dataset, memory: Mapping[str, Tensor], lab: Lab, seed: Seed) -> Probe:
        """The images with which the referee tests the attack on a model."""


class DataPoisoning(Backdoor):
    """An attack that only changes training images and their labels."""

    @abstractmethod
    def poison(self, clean: Dataset, lab: Lab, seed: Seed) -> Poison:
        """What is replaced in the data that the victim collects.

        Raises:
            SettingError: the data cannot hold this poison (too few eligible images, class missing).
        """


@dataclass(frozen=True)
class Shipment:
    """What a code poisoner delivers: a trained model, and what the attack must remember for test time."""

    model: Classifier
    memory: Mapping[str, Tensor]


class CodePoisoning(Backdoor):
    """An attack that controls the training code and supplies the trained model (Lukas & Kerschbaum, section II)."""

    @abstractmethod
    def supply(self, clean: Dataset, lab: Lab, seed: Seed) -> Shipment:
        """A model of the victim's public recipe, trained on the victim's data as the attacker likes.

        Raises:
            SettingError: there is no recipe, or the data cannot hold this attack.
        """


@runtime_checkable
class Crafting(Protocol):
    """Poisons in the making, one set for each target: a live object, which the next step changes."""

    @property
    def losses(self) -> Float[Tensor, "t"]:
        """The attack's own loss for each target at the last step, before it moved."""
        ...

    def poisons(self) -> list[Poison]:
        """What each target's attack replaces in the training data, as it stands now."""
        ...


class TargetedPoisoning(Attack):
    """An attack without a trigger: one image, unchanged, is to get the label of a few poisoned ones (Shafahi et al.).

    It is an iterator over poisons that grow better: it yields after each optimisation step, and the referee decides
    when to look. It holds models of its own, which it is handed as `Lab.substitutes`, and never sees the victim.
    """

    @property
    @abstractmethod
    def networks(self) -> tuple[Architecture, ...]:
        """The architectures of the models that it is handed, in order."""

    @property
    @abstractmethod
    def intended(self) -> int:
        """The label that its targets are to get."""

    @property
    @abstractmethod
    def length(self) -> int:
        """How many steps it takes at most."""

    @abstractmethod
    def check(self, clean: Dataset, targets: Dataset, lab: Lab) -> None:
        """Refuse what `craft` could not work on, which asks it too; the referee asks before it trains substitutes.

        Those of this lab may be untrained: they have the architecture and the shapes of the ones to come.

        Raises:
            SettingError: the data, targets or substitutes cannot serve this attack.
        """

    @abstractmethod
    def craft(self, clean: Dataset, targets: Dataset, lab: Lab, seed: Seed) -> Iterator[Crafting]:
        """The live poisons after each step, always the same object; `clean` is what the victim will train on.

        Raises:
            SettingError: as `check` says; nothing has been computed then.
        """
