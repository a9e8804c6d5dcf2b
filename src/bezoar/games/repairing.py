"""The one loop around every repair: when to look, what to record and when a model is good enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from bezoar.lab import Lab
from bezoar.measure.estimates import paired_loss, proportion
from bezoar.measure.predictions import Measurement, measure, predict
from bezoar.models.classifier import Classifier
from bezoar.records import Dataset, Estimate, Probe, Trusted
from bezoar.roles import Repairer
from bezoar.seed import Seed

ONE_SIDED = 1.645
"""Standard errors of a one-sided test at 5 %."""


@dataclass(frozen=True)
class Point:
    """One reading along a repair.

    Attributes:
        step: how many models the repair had yielded; 0 is the suspect itself.
        clean_accuracy, attack_success: on the referee's test set and probe.
        lost: clean accuracy lost against the suspect, on the same images.
    """

    step: int
    clean_accuracy: Estimate
    attack_success: Estimate
    lost: Estimate

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        estimates = {name: getattr(self, name).as_json() for name in ("clean_accuracy", "attack_success", "lost")}
        return {"step": self.step, **estimates}

    @staticmethod
    def from_json(fields: dict[str, Any]) -> Point:
        """The inverse of `as_json`."""
        names = ("clean_accuracy", "attack_success", "lost")
        return Point(fields["step"], *(Estimate.from_json(fields[name]) for name in names))


def watched(
    repairer: Repairer,
    suspect: Classifier,
    trusted: Trusted,
    every: int,
    lab: Lab,
    seed: Seed,
    *,
    name: str = "repair",
) -> Iterator[tuple[int, Classifier]]:
    """The models at which one looks: every `every`-th, the last, and the one after surgery, each with its step."""
    models = lab.progress.track(repairer.repair(suspect, trusted, lab, seed), name, repairer.length)
    for step, student in enumerate(models, start=1):
        if step % every == 0 or step in (repairer.surgery, repairer.length):
            yield step, student


def curve(
    repairer: Repairer,
    suspect: Classifier,
    trusted: Trusted,
    every: int,
    lab: Lab,
    seed: Seed,
    look: Callable[[int, Classifier], Point],
) -> list[Point]:
    """A reading of the suspect and one at every look."""
    return [
        look(0, suspect),
        *(look(step, student) for step, student in watched(repairer, suspect, trusted, every, lab, seed)),
    ]


def looker(suspect: Classifier, test: Dataset, probe: Probe) -> Callable[[int, Classifier], Point]:
    """How the referee reads one model: against the suspect, on the test set and the probe."""
    before: Measurement = measure(suspect, test, probe)

    def look(step: int, model: Classifier) -> Point:
        now = before if model is suspect else measure(model, test, probe)
        return Point(step, now.clean_accuracy, now.attack_success, paired_loss(before.right, now.right, test.groups))

    return look


def admissible(points: list[Point], budget: float) -> list[Point]:
    """The points that lost at most the budget of clean accuracy (absolute, spec A29); step 0 always is one."""
    return [point for point in points if point.lost.value <= budget + 1e-9]


def oracle(points: list[Point], budget: float) -> Point:
    """The lowest attack success within the budget: the paper's reading, which no defender could make."""
    return min(admissible(points, budget), key=lambda point: point.attack_success.value)


def final(points: list[Point], budget: float) -> Point:
    """The last point within the budget."""
    return admissible(points, budget)[-1]


def acceptable(before: Bool[Tensor, "n"], after: Bool[Tensor, "n"], budget: float) -> bool:
    """Whether held-out images give no reason to think that more than the budget was lost.

    One-sided test at 5 %: the paired loss (right before, wrong now, less the reverse) may exceed the
    budget by 1.645 standard errors, each the square root of the number of images whose verdict changed.
    """
    lost, won = int((before & ~after).sum()), int((~before & after).sum())
    return (lost - won) - budget * len(before) <= ONE_SIDED * math.sqrt(lost + won)


@dataclass(frozen=True)
class Look:
    """One step of a repair as its defender sees it, on trusted images alone.

    Attributes:
        step: how many models the repair had yielded.
        accuracy: of the models of this step, each on the trusted images that its own repair never saw.
        lost: against the suspect, on the same images.
        accepted: whether these images accept the step.
    """

    step: int
    accuracy: Estimate
    lost: Estimate
    accepted: bool

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "step": self.step,
            "accuracy": self.accuracy.as_json(),
            "lost": self.lost.as_json(),
            "accepted": self.accepted,
        }


def cross_validated(
    repairer: Repairer,
    suspect: Classifier,
    trusted: Trusted,
    every: int,
    lab: Lab,
    seed: Seed,
    *,
    budget: float,
    folds: int,
) -> list[Look]:
    """Look at a repair as a defender must, who has no other images than those to repair with.

    The repair runs once for each fold, on the trusted images outside of it, and the images of the fold
    judge its models. Every trusted image thus gives one verdict on every step: with 500 images a fifth
    of them could not resolve two points of accuracy, all of them nearly can.
    """
    before: list[Tensor] = []
    after: dict[int, list[Tensor]] = {}
    for number, (rest, fold) in enumerate(trusted.folds(folds, seed / "folds"), start=1):
        before.append(predict(suspect, fold.images) == fold.labels)
        name = f"fold {number} of {folds}"
        for step, student in watched(repairer, suspect, rest, every, lab, seed / "fold" / number, name=name):
            after.setdefault(step, []).append(predict(student, fold.images) == fold.labels)
    was = torch.cat(before)
    verdicts = ((step, torch.cat(parts)) for step, parts in sorted(after.items()))
    return [Look(step, proportion(now), paired_loss(was, now), acceptable(was, now, budget)) for step, now in verdicts]


def blind_step(looks: Iterable[Look]) -> int:
    """Where a defender stops the repair on all trusted images: at the last accepted step; 0 keeps the suspect."""
    return max((look.step for look in looks if look.accepted), default=0)
