"""Unlearning: fine-tune on the trigger that a detector reconstructed, with the true labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import cycle
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from bezoar.component import register
from bezoar.defenses.detectors.neural_cleanse import NeuralCleanse
from bezoar.defenses.repairers.fine_tuning import FineTuning, student_of
from bezoar.errors import SettingError
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.records import Trusted
from bezoar.roles import Detector, Range
from bezoar.seed import Seed
from bezoar.training.batches import Batch


@register("unlearning", paper="Wang et al., S&P 2019; arXiv:2305.09671, Algorithm 6")
class Unlearning(FineTuning):
    """Ask a detector for the trigger of the most suspicious class and teach the model the true labels under it.

    ``form: mixed`` stamps a share of every batch, as Wang et al. do (a fifth of the images).
    ``form: alternating`` is the paper's Algorithm 6: even steps stamp the whole batch, odd steps none. Labels
    are always true. In training mode the alternating form gives stamped and clean batches batch statistics of
    their own, and the backdoor survives at deployment (docs/decisions/0004).

    SGD with Nesterov momentum at a constant learning rate; defaults: Table V's. Where the detector
    abstains there is no trigger, and all steps are clean.
    """

    ranges: ClassVar[Mapping[str, Range]] = {"lr": Range(0.001, 0.1), "stamped": Range(0.05, 0.5)}

    detector: Detector = NeuralCleanse()
    form: Literal["mixed", "alternating"] = "mixed"
    stamped: Annotated[float, Field(gt=0, le=1)] = 0.2

    def repair(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Iterator[Classifier]:
        """The student after each of `steps` steps.

        Raises:
            SettingError: the detector is one that reconstructs no triggers.
        """
        student = student_of(suspect)
        found = self.detector.inspect(suspect, trusted, lab, seed / "detector")
        if found.triggers is None and not found.abstained:
            raise SettingError(
                f"repairer.detector: {self.detector.kind!r} reconstructs no trigger that could be unlearnt; "
                "use 'neural_cleanse'"
            )
        draws = (seed / "stamped").generator()
        even = cycle((True, False))

        def stamped(batch: Batch) -> Tensor:
            """Which images of this batch carry the trigger, bool [b]."""
            if found.abstained:
                return torch.zeros(len(batch.labels), dtype=torch.bool)
            if self.form == "alternating":
                return torch.full((len(batch.labels),), next(even))
            return torch.rand(len(batch.labels), generator=draws) < self.stamped

        def objective(model: Classifier, batch: Batch) -> Tensor:
            carries = stamped(batch).to(lab.device)[:, None, None, None]
            images = torch.where(carries, found.stamp(batch.images, found.suspect), batch.images)
            return functional.cross_entropy(model(images), batch.labels)

        yield from self.fine_tune(student, trusted, objective, lab, seed)
