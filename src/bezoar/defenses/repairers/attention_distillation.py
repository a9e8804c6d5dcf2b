"""Neural Attention Distillation: a fine-tuned copy teaches the suspect where to look (Li et al., ICLR 2021)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from bezoar.component import register
from bezoar.defenses.repairers.fine_tuning import FineTuning, LearningRate, Steps, student_of
from bezoar.errors import SettingError
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier, frozen
from bezoar.records import Trusted, as_float
from bezoar.roles import Range
from bezoar.seed import Seed
from bezoar.training.batches import Batch
from bezoar.training.steps import cross_entropy


@register("attention_distillation", paper="Li et al., ICLR 2021; arXiv:2305.09671, Table V")
class AttentionDistillation(FineTuning):
    """Fine-tune with L = CE + attention_lambda sum_l MSE(A(F_l of the student), A(F_l of the teacher)) (NAD).

    The teacher is a copy of the suspect that was fine-tuned for `teacher_steps` steps and is frozen then; the
    student starts at the suspect. A(F) = sum over channels of |F|^power, divided by its L2 norm over positions
    (spec 3.4). Layers: of the block outputs that have positions at all, the last `layers`, but never the first, which
    is the stem's (A19). Defaults: Table V for CIFAR-10.
    """

    ranges: ClassVar[Mapping[str, Range]] = {
        "lr": Range(0.001, 0.1),
        "attention_lambda": Range(100.0, 10_000.0),
        "power": Range(2.0, 4.0),
    }

    steps: Steps = 2000
    lr: LearningRate = 0.01
    teacher_steps: Annotated[int, Field(ge=1)] = 1000
    attention_lambda: Annotated[float, Field(ge=0)] = 1000.0
    power: Annotated[float, Field(gt=0)] = 2.0
    layers: Annotated[int, Field(ge=1)] = 4

    def repair(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Iterator[Classifier]:
        """The student after each of `steps` steps; the teacher's steps come before the first.

        Raises:
            SettingError: the suspect has no block whose output has positions to attend to.
        """
        student = student_of(suspect)
        self._require_maps(suspect, trusted, lab)
        teacher = self._teacher(suspect, trusted, lab, seed / "teacher")

        def objective(model: Classifier, batch: Batch) -> Tensor:
            with torch.no_grad():
                wanted = self._attention(teacher.stages(batch.images), batch.images)
            blocks, logits = model.trace(batch.images)
            apart = [
                functional.mse_loss(own, other)
                for own, other in zip(self._attention(blocks, batch.images), wanted, strict=True)
            ]
            return functional.cross_entropy(logits, batch.labels) + self.attention_lambda * torch.stack(apart).sum()

        yield from self.fine_tune(student, trusted, objective, lab, seed)

    def _teacher(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Classifier:
        """A fine-tuned copy of the suspect, frozen."""
        apprentice = self.replace(steps=self.teacher_steps)
        lessons = apprentice.fine_tune(suspect.copy(), trusted, cross_entropy, lab, seed)
        return frozen(deque(lab.progress.track(lessons, "teacher", self.teacher_steps), maxlen=1).pop())

    def _attention(self, blocks: list[Tensor], images: Tensor) -> list[Float[Tensor, "n p"]]:
        """The attention maps of the blocks that are compared, over p positions each."""
        maps = [_positions(block, images) for block in blocks]
        maps = [each for each in maps if each.shape[2] > 1]
        compared = maps[-min(self.layers, max(1, len(maps) - 1)) :]
        return [attention_map(each, self.power) for each in compared]

    def _require_maps(self, suspect: Classifier, trusted: Trusted, lab: Lab) -> None:
        with torch.no_grad():
            images = as_float(trusted.images[:1].to(lab.device))
            blocks = frozen(suspect).stages(images)
        if not self._attention(blocks, images):
            raise SettingError(
                "repairer: 'attention_distillation' compares what blocks attend to, and no block of this model gives "
                "feature maps or tokens; use 'weight_decay' or 'pivotal_tuning'"
            )


def _positions(block: Tensor, images: Tensor) -> Float[Tensor, "n c p"]:
    """Feature maps [n, c, h, w] or [n, h, w, c], or tokens [n, p, c], with channels in the middle and positions last.

    Some transformers keep channels last; a map has the images' aspect, which tells its sides from its channels.
    """
    if block.ndim == 3:
        return block.transpose(1, 2)
    height, width = images.shape[2:]
    sides = [block.shape[left] * width == block.shape[left + 1] * height for left in (1, 2)]
    return block.flatten(1, 2).transpose(1, 2) if sides == [True, False] else block.flatten(2)


def attention_map(features: Float[Tensor, "n c p"], power: float) -> Float[Tensor, "n p"]:
    """Where a layer looks: sum over channels of |F|^power, of unit L2 norm over the positions."""
    energy = features.abs().pow(power).sum(1)
    return energy / (energy.norm(dim=1, keepdim=True) + 1e-6)
