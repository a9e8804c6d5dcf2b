"""Blended inversion: the class that can be reached through a pattern so thin that it is hardly seen."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from bezoar.component import register
from bezoar.defenses.inversion import BlendedTriggers, answers, counters, invert
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier, frozen
from bezoar.records import Inspection, Trusted
from bezoar.roles import Detector
from bezoar.seed import Seed


@register("blended_inversion")
class BlendedInversion(Detector):
    """For every class c, find the pattern p that maximises log f_c((1 - opacity) x + opacity p) on trusted images.

    The score of a class is that log-probability, averaged over the trusted images of other classes. Inversion with
    a free mask looks for the smallest trigger, and so finds small ones; a backdoor that is blended over the whole
    image is no smaller than what reaches any class (arXiv:2305.09671 inverts without any bound, and every class is
    reached in the end). Here the trigger may be as large as the image, but only so visible: an opacity of .05
    leaves harmless classes out of reach, and the logarithm tells how far, where a success rate would be 0 for all.

    bezoar's own. The opacity and the statistic were chosen on digits_in_the_wild, seeds 100 to 103.
    """

    opacity: Annotated[float, Field(gt=0, le=1)] = 0.05
    steps: Annotated[int, Field(ge=1)] = 40
    lr: Annotated[float, Field(gt=0)] = 0.2
    batch_size: Annotated[int, Field(ge=1)] = 16

    def inspect(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Inspection:
        """Evidence per class: `reached`, the share of trusted images of other classes that are taken for it."""
        model, count = frozen(suspect), len(trusted.classes)
        channels, height, width = trusted.images.shape[1:]
        triggers = BlendedTriggers((channels, height, width), count, self.opacity, seed / "triggers").to(lab.device)
        nothing = torch.zeros(count)
        run = invert(
            triggers,
            model,
            trusted,
            list(range(count)),
            weights=lambda: nothing,
            success=counters(count, lab.device),
            optimizer=torch.optim.Adam(triggers.parameters(), self.lr, betas=(0.5, 0.9)),
            batch_size=self.batch_size,
            device=lab.device,
            seed=seed / "inversion",
        )
        deque(lab.progress.track(islice(run, self.steps), "blended inversion", self.steps), maxlen=0)
        seen = [_seen(triggers, label, model, trusted, lab) for label in range(count)]
        scores, reached = torch.stack(seen).T
        with torch.no_grad():
            patterns = torch.stack([triggers.pattern(label) for label in range(count)]).cpu()
        masks = torch.full((count, 1, height, width), self.opacity)
        return Inspection(scores.contiguous(), patterns, masks, evidence={"reached": reached.contiguous()})


@torch.no_grad()
def _seen(triggers: BlendedTriggers, label: int, model: Classifier, trusted: Trusted, lab: Lab) -> Float[Tensor, "2"]:
    """Mean log-probability of a class on stamped images of others, and the share that is taken for it."""
    others = trusted.take((trusted.labels != label).nonzero()[:, 0])
    others = others if len(others) else trusted  # images of the class itself say little, but the same of every model
    logits = answers(model, others, lambda images: triggers.stamp(images, label), lab.device)
    taken = (logits.argmax(1) == label).float().mean()
    return torch.stack([logits.log_softmax(1)[:, label].mean(), taken]).cpu()
