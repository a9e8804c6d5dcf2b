"""Maximum margin: how far any input at all can push a class above the others (Wang et al., S&P 2024)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from bezoar.component import register
from bezoar.lab import Lab
from bezoar.measure.outliers import gamma_p_value, robust_z
from bezoar.models.classifier import Classifier, frozen
from bezoar.records import Inspection, Trusted
from bezoar.roles import Detector
from bezoar.seed import Seed
from bezoar.training.batches import Batch
from bezoar.training.steps import steps

AT_ONCE = 128
"""So many images climb together: a large network's activations for all classes do not fit into memory."""


@register("maximum_margin", paper="arXiv:2205.06900")
class MaximumMargin(Detector):
    """Maximise f_c(x) - max_k f_k(x), k != c, over all images x in [0, 1], from `starts` random ones for each class.

    A backdoor drives its target's logit far up and all others down, so its largest margin stands out. No clean
    image is used: of the trusted ones only the size matters. Projected gradient ascent with momentum, `AT_ONCE`
    starts in one batch. The score of a class is how many robust standard deviations its margin lies above the
    median of all classes', which has no unit. Evidence holds the margins, and for the class with the largest
    the paper's p-value: a Gamma distribution fitted to the other margins predicts the largest of as many draws.
    """

    starts: Annotated[int, Field(ge=1)] = 30
    steps: Annotated[int, Field(ge=1)] = 300
    lr: Annotated[float, Field(gt=0)] = 0.2
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.2

    def inspect(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Inspection:
        """Evidence per class: `margin`, and `p_value` (1 for all classes but the one with the largest margin)."""
        model, count = frozen(suspect), len(trusted.classes)
        channels, height, width = trusted.images.shape[1:]
        shape = (count * self.starts, channels, height, width)
        images = torch.rand(shape, generator=(seed / "starts").generator())
        wanted = torch.arange(count).repeat_interleave(self.starts)
        parts = list(zip(images.split(AT_ONCE), wanted.split(AT_ONCE), strict=True))
        ascents = (each for part, labels in parts for each in self._ascend(model, part, labels, lab, seed))
        tracked = lab.progress.track(ascents, "maximum margin", len(parts) * self.steps)
        reached = torch.cat([each for each in tracked if each is not None]).view(count, self.starts).amax(1)
        p_values = torch.ones(count)
        p_values[reached.argmax()] = gamma_p_value(reached)
        return Inspection(robust_z(reached), evidence={"margin": reached, "p_value": p_values})

    def _ascend(
        self, model: Classifier, images: Tensor, labels: Tensor, lab: Lab, seed: Seed
    ) -> Iterator[Float[Tensor, "n"] | None]:
        """One step at a time from some starts: nothing after each but the last, then the margins that were reached."""
        inputs, wanted = Inputs(images).to(lab.device), labels.to(lab.device)
        nothing = torch.zeros(0, dtype=torch.int64, device=lab.device)
        empty = Batch(inputs.images.detach()[:0], nothing, nothing.cpu())

        def objective(inputs: Inputs, _: Batch) -> Tensor:
            return -margins(model(inputs.images), wanted).sum()

        optimizer = torch.optim.SGD(inputs.parameters(), self.lr, momentum=self.momentum)
        walk = steps(
            inputs,
            repeat(empty, self.steps),
            objective,
            optimizer,
            seed=seed / "layers",
            after=lambda inputs, _: inputs.project(),
        )
        for step in walk:
            if step.number < self.steps:
                yield None
        with torch.no_grad():
            yield margins(model(inputs.images), wanted).cpu()


class Inputs(nn.Module):
    """Images in [0, 1] as parameters."""

    def __init__(self, images: Float[Tensor, "n c h w"]) -> None:
        super().__init__()
        self.images = nn.Parameter(images.contiguous(memory_format=torch.channels_last))

    @torch.no_grad()
    def project(self) -> None:
        """Put every pixel back into [0, 1]."""
        self.images.clamp_(0, 1)


def margins(logits: Float[Tensor, "n k"], wanted: Tensor) -> Float[Tensor, "n"]:
    """The wanted class's logit minus the largest of the others."""
    own = logits.gather(1, wanted[:, None])[:, 0]
    others = logits.scatter(1, wanted[:, None], -torch.inf).amax(1)
    return own - others
