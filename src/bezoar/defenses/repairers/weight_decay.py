"""Fine-tuning on trusted images with weight decay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field

from bezoar.component import register
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.records import Trusted
from bezoar.roles import Repairer
from bezoar.seed import Seed
from bezoar.training.augment import Augmentation
from bezoar.training.batches import batches
from bezoar.training.steps import cross_entropy, steps


@register("weight_decay", paper="arXiv:2305.09671, Table V")
class WeightDecay(Repairer):
    """Fine-tune with cross-entropy and coupled L2 weight decay on all parameters (spec 3.2, A17).

    SGD with Nesterov momentum and a constant learning rate. Defaults: Table V for CIFAR-10.
    """

    steps: Annotated[int, Field(ge=1)] = 1000
    lr: Annotated[float, Field(gt=0)] = 0.001
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    batch_size: Annotated[int, Field(ge=2)] = 128
    augmentation: Augmentation = "crop_flip"

    def repair(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Iterator[Classifier]:
        """The student after each of `steps` steps."""
        student = suspect.copy().requires_grad_(True).eval()
        optimizer = torch.optim.SGD(
            student.parameters(), self.lr, momentum=0.9, nesterov=True, weight_decay=self.weight_decay
        )
        stream = batches(trusted, self.batch_size, seed, device=lab.device, epochs=None, augmentation=self.augmentation)
        for step in steps(student, stream, cross_entropy, optimizer, seed=seed / "layers"):
            yield student
            if step.number == self.steps:
                return

    @property
    def length(self) -> int:
        """One model a step."""
        return self.steps
