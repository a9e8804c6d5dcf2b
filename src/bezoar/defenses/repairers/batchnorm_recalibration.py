"""The baseline that shows what mere statistics do: only the running averages of batch normalisation move."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field

from bezoar.component import register
from bezoar.defenses.repairers.fine_tuning import student_of
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier, mode
from bezoar.records import Trusted
from bezoar.roles import Repairer
from bezoar.seed import Seed
from bezoar.training.augment import Augmentation
from bezoar.training.batches import batches


@register("batchnorm_recalibration")
class BatchNormRecalibration(Repairer):
    """Re-estimate the statistics of batch normalisation on trusted images; no weight is trained (spec 6.4).

    Every repair that trains in training mode does this on the way, so a repair is worth only what it
    achieves beyond this baseline.
    """

    steps: Annotated[int, Field(ge=1)] = 100
    batch_size: Annotated[int, Field(ge=2)] = 128
    augmentation: Augmentation = "crop_flip"

    def repair(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Iterator[Classifier]:
        """The student after each batch has moved its running averages."""
        student = student_of(suspect).eval()
        stream = batches(trusted, self.batch_size, seed, device=lab.device, epochs=None, augmentation=self.augmentation)
        for number, batch in zip(range(self.steps), stream, strict=False):
            with mode(student, training=True), (seed / "layers" / number).scoped(), torch.no_grad():
                student(batch.images)
            yield student

    @property
    def length(self) -> int:
        """One model a batch."""
        return self.steps
