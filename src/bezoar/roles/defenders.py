"""Who looks for poison, undoes it, or vouches for an answer: none is handed the attack."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from jaxtyping import Float
from torch import Tensor

from bezoar.component import Component
from bezoar.records import Certificates, Dataset, Inspection, Norm, Trusted
from bezoar.seed import Seed

if TYPE_CHECKING:
    from bezoar.lab import Lab
    from bezoar.models.classifier import Classifier


class Sanitizer(Component):
    """A player that says of every row of a data set how suspicious it is, before anybody trusts a model of it.

    It is handed a model of the data as they are (the undefended victim), so that all sanitizers of a game look at the
    same features. It sees neither the poison nor its rate nor its target, and it removes nothing: how many of the most
    suspicious rows go is the referee's or the owner's to say.
    """

    family: ClassVar[str] = "sanitizers"

    @abstractmethod
    def suspicion(self, victim: Classifier, data: Dataset, lab: Lab, seed: Seed) -> Float[Tensor, "n"]:
        """One finite score a row, on the CPU, higher is more suspicious; comparable across classes.

        Args:
            victim: trained on all of `data`, on the lab's device; it is left as it was.
            data: with the labels on which the victim was trained.
            lab: where.
            seed: with which randomness.
        """


@dataclass(frozen=True)
class Range:
    """Which values of a setting a search tries, from `low` to `high`, evenly on a logarithmic scale."""

    low: float
    high: float


class Repairer(Component):
    """A player that undoes a backdoor with a few trusted images.

    It is an iterator over progressively repaired models: it yields the live student after each
    optimisation step, and once after any one-off surgery. It measures nothing and never changes
    its input; the referee decides when to look, what to record and when to stop.
    """

    family: ClassVar[str] = "repairers"
    ranges: ClassVar[Mapping[str, Range]] = {}
    """The settings worth searching, as the method's paper or "Pick your Poison" (appendix A-E) does."""

    @abstractmethod
    def repair(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Iterator[Classifier]:
        """The student after each step, always the same object, in evaluation mode while one looks."""

    @property
    @abstractmethod
    def length(self) -> int:
        """How many models a full repair yields."""

    @property
    def surgery(self) -> int:
        """How many of the first models come from one-off changes rather than steps; the referee looks after them."""
        return 0


class Detector(Component):
    """A player that says how suspicious each class of a model is."""

    family: ClassVar[str] = "detectors"
    normal: ClassVar[bool] = True
    """Whether the scores of harmless classes are near enough to normal for the outlier test of an audit."""

    @abstractmethod
    def inspect(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Inspection:
        """Scores per class, with the triggers it reconstructed; the suspect is left as it was."""


class Guard(Component):
    """A player that says of every query of a deployed model how suspicious it is.

    It holds a few trusted images, and sees neither the trigger nor the share of attacked queries.
    """

    family: ClassVar[str] = "guards"

    @abstractmethod
    def suspicion(
        self, model: Classifier, images: Float[Tensor, "n c h w"], trusted: Trusted, lab: Lab, seed: Seed
    ) -> Float[Tensor, "n"]:
        """One finite score a query, on the CPU, higher is more suspicious, whatever the other queries are."""


class Certifier(Component):
    """A player that proves of single answers of a model that no small change of the image alters them.

    Attributes of an answer are those of `Certificates`; what is certified is the class that the model predicts.
    """

    family: ClassVar[str] = "certifiers"
    deterministic: ClassVar[bool] = False
    """Whether its certificates hold for sure, not only with a probability, for the answers of the model itself: then
    no point of a certified ball has another answer."""

    @property
    @abstractmethod
    def norm(self) -> Norm:
        """In which radii are measured."""

    @property
    @abstractmethod
    def demanded(self) -> float:
        """The radius that an answer needs to count as certified."""

    def require(self, model: Classifier, shape: tuple[int, int, int]) -> None:
        """Refuse, before any work, a model that it cannot reason about whatever the weights; by default none.

        Args:
            model: trained or not.
            shape: of the images (c, h, w).

        Raises:
            SettingError: what is in the way, and what would do.
        """
        del model, shape

    @abstractmethod
    def certify(self, model: Classifier, images: Float[Tensor, "n c h w"], lab: Lab, seed: Seed) -> Certificates:
        """What it vouches for, on the CPU; the model is left as it was.

        Args:
            model: in evaluation mode, on the lab's device.
            images: in [0, 1], on any device.
            lab: where.
            seed: of what is drawn, keyed by the image's place.

        Raises:
            DataError: an image has values outside [0, 1].
            SettingError: the model is in training mode, or has layers that this certifier cannot reason about.
        """
