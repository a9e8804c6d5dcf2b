"""Neural Cleanse: the backdoored class is the one that needs the smallest trigger (Wang et al., S&P 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from bezoar.component import register
from bezoar.defenses.inversion import AdditiveTriggers, MaskedTriggers, Triggers, counters, invert
from bezoar.lab import Lab
from bezoar.measure.outliers import anomaly_index
from bezoar.models.classifier import Classifier, frozen
from bezoar.records import Inspection, Trusted
from bezoar.roles import Detector
from bezoar.seed import Seed


@register("neural_cleanse", paper="Wang et al., S&P 2019; arXiv:2305.09671, Algorithm 6")
class NeuralCleanse(Detector):
    """Reverse-engineer the smallest trigger of every class; score = -log of its L1 norm.

    ``form: masked`` is the original: mask and pattern, Adam with learning rate .1 and betas (.5, .9), and a
    penalty weight for each class that starts at 0, is set to `cost` once the trigger works, and then
    doubles or falls by 2^1.5 as the trigger keeps working or not. A trigger counts only while its
    success over one round is at least `threshold`; the smallest one that ever did is kept. A class
    without one gets the size of the whole image.

    ``form: additive`` is the paper's Algorithm 6 with Table V's norm_lambda: x' = clamp(x + T), Adam
    with learning rate .01, a constant weight `norm_lambda`, the trigger of the last step.

    All classes are optimised for the same number of steps, and the scores are compared at that
    point. Only then is the most suspicious class alone refined for `refine` more steps, because
    that trigger is what one looks at and unlearns; the score does not move any more.
    """

    form: Literal["masked", "additive"] = "masked"
    steps: Annotated[int, Field(ge=1)] = 100
    refine: Annotated[int, Field(ge=0)] = 0
    batch_size: Annotated[int, Field(ge=1)] = 32
    round: Annotated[int, Field(ge=1)] = 5
    patience: Annotated[int, Field(ge=1)] = 2
    cost: Annotated[float, Field(gt=0)] = 1e-3
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.99
    norm_lambda: Annotated[float, Field(ge=0)] = 2e-2

    def inspect(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Inspection:
        """Evidence per class: `norm` (L1), `success` on the trusted images it was made from, `anomaly_index` (MAD)."""
        model = frozen(suspect)
        count = len(trusted.classes)
        channels, height, width = trusted.images.shape[1:]
        made = MaskedTriggers if self.form == "masked" else AdditiveTriggers
        triggers = made((channels, height, width), count, seed / "triggers").to(lab.device)
        best = _Best(triggers, float(height * width * (1 if self.form == "masked" else channels)), lab.device)
        self._run(triggers, model, trusted, list(range(count)), best, self.steps, lab, seed / "all")
        norms = best.norms.clone()
        scores = -norms.clamp_min(1e-3).log()
        if self.refine:
            self._run(triggers, model, trusted, [int(scores.argmax())], best, self.refine, lab, seed / "refine")
        evidence = {"norm": norms.cpu(), "success": best.success.cpu(), "anomaly_index": anomaly_index(norms.cpu())}
        return Inspection(scores.cpu(), best.triggers.cpu(), None if best.masks is None else best.masks.cpu(), evidence)

    def _run(
        self,
        triggers: Triggers,
        model: Classifier,
        trusted: Trusted,
        labels: list[int],
        best: _Best,
        count: int,
        lab: Lab,
        seed: Seed,
    ) -> None:
        masked = self.form == "masked"
        constant = torch.full_like(best.norms, self.norm_lambda)
        success = counters(triggers.count, lab.device)
        moving = [parameter for label in labels for parameter in triggers.parameters_of(label)]
        run = invert(
            triggers,
            model,
            trusted,
            labels,
            weights=lambda: best.cost if masked else constant,
            success=success,
            optimizer=torch.optim.Adam(moving, 0.1 if masked else 0.01, betas=(0.5, 0.9)),
            batch_size=self.batch_size,
            device=lab.device,
            seed=seed,
        )
        for number in lab.progress.track(islice(run, count), "trigger inversion", count):
            if masked and number % self.round == 0:
                rate = success.rate()
                best.keep_smallest(triggers, labels, rate, self.threshold)
                best.adjust(labels, rate >= self.threshold, self.cost, self.patience)
                success.reset()
        if not masked:
            best.keep_last(triggers, labels, trusted, success.rate())


@dataclass
class _Best:
    """The best trigger of each class so far, and the state of its penalty weight."""

    norms: Float[Tensor, "k"]
    success: Float[Tensor, "k"]
    triggers: Float[Tensor, "k c h w"]
    masks: Float[Tensor, "k 1 h w"] | None
    cost: Float[Tensor, "k"]
    streak: Float[Tensor, "k"]

    def __init__(self, bank: Triggers, whole: float, device: torch.device) -> None:
        zeros = torch.zeros(bank.count, device=device)
        self.norms = zeros + whole
        self.success, self.cost, self.streak = zeros.clone(), zeros.clone(), zeros.clone()
        if isinstance(bank, MaskedTriggers):
            self.triggers = torch.stack([bank.pattern(label).detach() for label in range(bank.count)])
            self.masks = torch.stack([bank.mask(label).detach() for label in range(bank.count)])
        else:
            self.triggers = torch.stack([bank.parameters_of(label)[0].detach() for label in range(bank.count)])
            self.masks = None

    def keep_smallest(self, bank: Triggers, labels: list[int], rate: Tensor, threshold: float) -> None:
        """Keep each trigger that works and is smaller than any before."""
        assert isinstance(bank, MaskedTriggers)
        assert self.masks is not None
        for label in labels:
            norm = bank.mask(label).detach().sum()
            if rate[label] >= threshold and norm < self.norms[label]:
                self.norms[label], self.success[label] = norm, rate[label]
                self.triggers[label], self.masks[label] = bank.pattern(label).detach(), bank.mask(label).detach()

    def keep_last(self, bank: Triggers, labels: list[int], trusted: Trusted, rate: Tensor) -> None:
        """Keep the triggers as they are now."""
        pixels = trusted.images.to(self.norms.device).float() / 255
        for label in labels:
            others = pixels[trusted.labels.to(pixels.device) != label]
            if not len(others):
                continue  # no image to stamp, so no trigger: the size of the whole image stays
            self.norms[label] = bank.size(others, label).detach()
            self.success[label] = rate[label]
            self.triggers[label] = bank.parameters_of(label)[0].detach()

    def adjust(self, labels: list[int], works: Tensor, initial: float, patience: int) -> None:
        """Raise the weight of triggers that keep working and lower that of those that keep failing."""
        for label in labels:
            good = bool(works[label])
            streak = float(self.streak[label])
            streak = (max(streak, 0) + 1) if good else (min(streak, 0) - 1)
            if self.cost[label] == 0:
                if good:
                    self.cost[label], streak = initial, 0
            elif streak >= patience:
                self.cost[label], streak = self.cost[label] * 2, 0
            elif streak <= -patience:
                self.cost[label], streak = self.cost[label] / 2**1.5, 0
            self.streak[label] = streak
