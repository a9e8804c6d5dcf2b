"""What all repairs by fine-tuning share: the optimiser, the stream of trusted images and the loop over the steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated

import torch
from pydantic import Field

from bezoar.errors import SettingError
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.records import Trusted
from bezoar.roles import Repairer
from bezoar.seed import Seed
from bezoar.training.augment import Augmentation
from bezoar.training.batches import Batch, batches
from bezoar.training.steps import Objective, steps

Steps = Annotated[int, Field(ge=1)]
LearningRate = Annotated[float, Field(gt=0)]


def student_of(suspect: Classifier) -> Classifier:
    """A copy of the suspect that a repair may change.

    Raises:
        SettingError: its weights are not all finite, so no step could mend them.
    """
    broken = [name for name, tensor in suspect.state_dict().items() if not tensor.isfinite().all()]
    if broken:
        raise SettingError(
            f"repairer: {broken[0]!r} of the model ({len(broken)} tensors in all) holds values that are no finite "
            "numbers, so there is nothing to repair; was the file damaged, or did the training diverge?"
        )
    return suspect.copy()


class FineTuning(Repairer):
    """A repair that takes gradient steps on trusted images: SGD with Nesterov momentum, constant learning rate."""

    steps: Steps = 1000
    lr: LearningRate = 0.001
    batch_size: Annotated[int, Field(ge=2)] = 128
    augmentation: Augmentation = "crop_flip"

    @property
    def length(self) -> int:
        """One model a step."""
        return self.steps

    def fine_tune(
        self,
        student: Classifier,
        trusted: Trusted,
        objective: Objective[Classifier],
        lab: Lab,
        seed: Seed,
        *,
        weight_decay: float = 0,
        training: bool = True,
        after: Callable[[Classifier, Batch], None] | None = None,
    ) -> Iterator[Classifier]:
        """The student, changed in place, after each of `steps` steps.

        Args:
            student: all of its parameters move.
            trusted: where batches are drawn from, shuffled once an epoch.
            objective: (student, batch) -> loss.
            lab: where.
            seed: of order, augmentation and dropout.
            weight_decay: coupled L2 on all parameters.
            training: whether batch normalisation and dropout are in training mode inside a step.
            after: called after each step, e.g. to put parameters back that must not move.
        """
        student.requires_grad_(True).eval()
        optimizer = torch.optim.SGD(
            student.parameters(), self.lr, momentum=0.9, nesterov=True, weight_decay=weight_decay
        )
        stream = batches(trusted, self.batch_size, seed, device=lab.device, epochs=None, augmentation=self.augmentation)
        walk = steps(student, stream, objective, optimizer, seed=seed / "layers", training=training, after=after)
        for step in walk:
            yield student
            if step.number == self.steps:
                return
