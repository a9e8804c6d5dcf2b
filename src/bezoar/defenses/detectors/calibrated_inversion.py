"""Calibrated Trigger Inversion: invert triggers that a repair removes (Lukas & Kerschbaum, Algorithm 4)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from bezoar.component import register
from bezoar.defenses.inversion import AdditiveTriggers, answers, counters, invert
from bezoar.defenses.repairers.pivotal_tuning import PivotalTuning
from bezoar.errors import SettingError
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier, frozen
from bezoar.records import Inspection, Trusted
from bezoar.roles import Detector, Repairer
from bezoar.seed import Seed

FOLDS = 2
"""Every trusted image is held out once, and half of them are enough for a trigger."""


@register("calibrated_inversion", paper="arXiv:2305.09671, Algorithm 4")
class CalibratedInversion(Detector):
    """Repair a copy of the suspect, then look for triggers that fool the suspect but not the repaired copy.

    For every class c, T_c minimises CE(f(x + T), c) + weight CE(f*(x + T), y), with f the suspect and f* the
    reference. The score is S_c = ASR_c(f) - ASR_c(f*) in [-1, 1] (spec A23: the sign that Figure 9
    uses), measured on trusted images that neither the repair nor the inversion has seen: two folds,
    each scored with what was made from the other, because a defender has no test set.

    It abstains when the reference repair changed nothing that the inversion could use: no held-out
    image, stamped with any trigger, gets another answer from the reference than from the suspect.
    """

    reference: Repairer = PivotalTuning()
    steps: Annotated[int, Field(ge=1)] = 100
    lr: Annotated[float, Field(gt=0)] = 0.01
    weight: Annotated[float, Field(ge=0)] = 1.0
    batch_size: Annotated[int, Field(ge=1)] = 128

    def inspect(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Inspection:
        """Evidence per class: `success` on the suspect, `success_after` on the reference, `accuracy_after`.

        The triggers are those of the fold with the higher score, class by class.

        Raises:
            SettingError: there is one trusted image, which cannot both make a trigger and judge it.
        """
        if len(trusted) < FOLDS:
            raise SettingError(
                f"detector: {self.kind!r} judges on trusted images that it did not repair with, so it needs at least "
                f"{FOLDS}, and there is {len(trusted)}; use 'neural_cleanse'"
            )
        folds = [
            self._fold(suspect, rest, held_out, lab, seed / number)
            for number, (rest, held_out) in enumerate(trusted.folds(FOLDS, seed / "folds"))
        ]
        scores = torch.stack([fold.success - fold.success_after for fold in folds])
        evidence = {
            "success": torch.stack([fold.success for fold in folds]).mean(0),
            "success_after": torch.stack([fold.success_after for fold in folds]).mean(0),
            "accuracy_after": torch.stack([fold.accuracy_after for fold in folds]).mean(0),
        }
        better = scores.argmax(0)
        triggers = torch.stack([folds[int(fold)].triggers[label] for label, fold in enumerate(better)])
        unchanged = not any(fold.changed for fold in folds)
        abstained = "its reference repair changed no answer" if unchanged else ""
        return Inspection(scores.mean(0), triggers, evidence=evidence, abstained=abstained)

    def _fold(self, suspect: Classifier, rest: Trusted, held_out: Trusted, lab: Lab, seed: Seed) -> _Fold:
        model = frozen(suspect)
        repairs = self.reference.repair(suspect, rest, lab, seed / "reference")
        last = deque(lab.progress.track(repairs, "reference repair", self.reference.length), maxlen=1)
        reference = frozen(last.pop())
        channels, height, width = rest.images.shape[1:]
        count = len(rest.classes)
        triggers = AdditiveTriggers((channels, height, width), count, seed / "triggers").to(lab.device)

        def penalty(stamped: Tensor, labels: Tensor, label: int) -> Tensor:
            del label
            return self.weight * functional.cross_entropy(reference(stamped), labels)

        run = invert(
            triggers,
            model,
            rest,
            list(range(count)),
            weights=lambda: torch.zeros(count),
            success=counters(count, lab.device),
            penalty=penalty,
            optimizer=torch.optim.Adam(triggers.parameters(), self.lr, betas=(0.5, 0.9)),
            batch_size=self.batch_size,
            device=lab.device,
            seed=seed / "inversion",
        )
        deque(lab.progress.track(islice(run, self.steps), "trigger inversion", self.steps), maxlen=0)
        return _score(triggers, model, reference, held_out, lab)


@dataclass(frozen=True)
class _Fold:
    success: Float[Tensor, "k"]
    success_after: Float[Tensor, "k"]
    accuracy_after: Float[Tensor, "k"]
    triggers: Float[Tensor, "k c h w"]
    changed: bool


@torch.no_grad()
def _score(triggers: AdditiveTriggers, model: Classifier, reference: Classifier, held_out: Trusted, lab: Lab) -> _Fold:
    """Success rates of every trigger on held-out images of the other classes."""
    before, after, right = (torch.zeros(triggers.count) for _ in range(3))
    changed = False
    for label in range(triggers.count):
        others = held_out.take((held_out.labels != label).nonzero()[:, 0])
        if not len(others):
            continue
        first, second = (
            answers(one, others, lambda images, label=label: triggers.stamp(images, label), lab.device).argmax(1).cpu()
            for one in (model, reference)
        )
        changed = changed or bool((first != second).any())
        before[label] = (first == label).float().mean()
        after[label] = (second == label).float().mean()
        right[label] = (second == others.labels).float().mean()
    return _Fold(before, after, right, torch.stack([raw.detach().cpu() for raw in triggers.raw]), changed)
