"""Fine-tuning on trusted images with weight decay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from bezoar.component import register
from bezoar.defenses.repairers.fine_tuning import FineTuning, student_of
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.records import Trusted
from bezoar.roles import Range
from bezoar.seed import Seed
from bezoar.training.steps import cross_entropy


@register("weight_decay", paper="arXiv:2305.09671, Table V")
class WeightDecay(FineTuning):
    """Fine-tune with cross-entropy and coupled L2 weight decay on all parameters (spec 3.2, A17).

    SGD with Nesterov momentum and a constant learning rate. Defaults: Table V for CIFAR-10.
    """

    ranges: ClassVar[Mapping[str, Range]] = {"lr": Range(0.001, 0.1), "weight_decay": Range(1e-5, 0.01)}

    weight_decay: Annotated[float, Field(ge=0)] = 0.01

    def repair(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Iterator[Classifier]:
        """The student after each of `steps` steps."""
        student = student_of(suspect)
        yield from self.fine_tune(student, trusted, cross_entropy, lab, seed, weight_decay=self.weight_decay)
