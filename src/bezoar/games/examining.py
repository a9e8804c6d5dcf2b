"""What a defender does to the victims of triggerless poisons: repair them, or tell them from one without poisons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from bezoar.component import Component, Settings
from bezoar.games.repairing import Point, curve, final, oracle
from bezoar.games.victims import Scene
from bezoar.lab import Lab
from bezoar.measure.estimates import auc, mean, paired_loss, proportion
from bezoar.measure.predictions import predict
from bezoar.measure.verdicts import p_value
from bezoar.models.classifier import Classifier
from bezoar.records import Estimate, Trusted
from bezoar.roles import Detector, Repairer
from bezoar.seed import Seed


@dataclass(frozen=True)
class Defence:
    """Who examines victims, and by which rules.

    Attributes:
        repairer, detector: the players; either may be missing.
        trusted: their clean images.
        count: how many targets' victims they are given, the first ones; and the one without poisons.
        budget: of clean accuracy that a repair may cost, absolute.
        every: at every so many steps of a repair the referee looks.
    """

    repairer: Repairer | None
    detector: Detector | None
    trusted: Trusted
    count: int
    budget: float
    every: int

    def players(self) -> dict[str, Component]:
        """By role."""
        both: dict[str, Component | None] = {"repairer": self.repairer, "detector": self.detector}
        return {role: player for role, player in both.items() if player is not None}

    def plain(self) -> Settings:
        """The rules."""
        return {"examined": self.count, "budget": self.budget, "repair_every": self.every}


class Examined:
    """Repairs and inspects victims as it is shown them; they are left as they were.

    A repair of a victim is read as the robustness game reads one: at the last point within the accuracy budget
    (`final`), and at the first one within it that spares the target (`oracle`, which no defender could choose). The
    attack has survived if the repaired victim still gives its target the poisons' label. The victim without poisons is
    repaired as well and asked for the same targets: the base rate of that. All victims share one pre-trained network
    and there is one without poisons, so the ROC AUC of the detector over models says something of this network alone;
    over several seeds models are to be pooled.

    Args:
        scene: what the victims are fine-tuned on.
        defence: who examines them.
        lab: where.
        seed: of repairs and inspections.
    """

    def __init__(self, scene: Scene, defence: Defence, lab: Lab, seed: Seed) -> None:
        self._scene, self._defence, self._lab, self._seed = scene, defence, lab, seed
        self._count = min(defence.count, len(scene.poisons))
        self._repairs: list[dict[str, Any]] = []
        self._natural: dict[str, Any] = {}
        self._seen: list[dict[str, Any]] = []

    def __call__(self, number: int, victim: Classifier) -> None:
        """Examine one victim; the last has no poisons."""
        alone = number == len(self._scene.poisons)
        if number >= self._count and not alone:
            return
        defence, seed = self._defence, self._seed / number
        if defence.repairer is not None:
            asked = range(self._count) if alone else range(number, number + 1)
            points = self._curve(defence.repairer, victim, asked, seed / "repair")
            readings = {"final": final(points, defence.budget), "oracle": oracle(points, defence.budget)}
            told = {
                "target": None if alone else number,
                "before": points[0].as_json(),
                **{name: point.as_json() for name, point in readings.items()},
            }
            if alone:
                self._natural = told
            else:
                self._repairs.append(told)
        if defence.detector is not None:
            inspection = defence.detector.inspect(victim, defence.trusted, self._lab, seed / "inspect")
            self._seen.append(
                {
                    "target": None if alone else number,
                    "score": inspection.score,
                    "suspected_class": inspection.suspect,
                    "p_value": p_value(inspection),
                    "abstained": inspection.abstained,
                }
            )

    def _curve(self, repairer: Repairer, victim: Classifier, targets: range, seed: Seed) -> list[Point]:
        """A repair, read on clean test images and on some of the targets."""
        defence, test = self._defence, self._scene.test
        images = self._scene.targets.batch(torch.tensor(targets))
        before = predict(victim, test) == test.labels

        def look(step: int, model: Classifier) -> Point:
            right = predict(model, test) == test.labels
            hits = predict(model, images) == self._scene.intended
            lost = paired_loss(before, right, test.groups)
            return Point(step, proportion(right, test.groups), proportion(hits, unit="targets"), lost)

        return curve(repairer, victim, defence.trusted, defence.every, self._lab, seed, look)

    def facts(self) -> dict[str, Any]:
        """`repaired` and `inspected`, plain values, as far as somebody did so."""
        found: dict[str, Any] = {}
        if self._defence.repairer is not None:
            found["repaired"] = {
                **{reading: self._left(reading) for reading in ("before", "final", "oracle")},
                "base_rate": {reading: self._natural[reading]["attack_success"] for reading in ("before", "final")},
                "targets": self._repairs,
                "without_poisons": self._natural,
            }
        if self._defence.detector is not None:
            *poisoned, clean = self._seen
            area = auc([one["score"] for one in poisoned], [clean["score"]])
            found["inspected"] = {"auc": area.as_json(), "poisoned": poisoned, "clean": [clean]}
        return found

    def _left(self, reading: str) -> dict[str, Any]:
        """One reading over targets: how many still get the poisons' label, and what the victims are worth."""
        points = [Point.from_json(one[reading]) for one in self._repairs]
        hits = torch.tensor([one.attack_success.value > 0 for one in points])
        return {
            "attack_success": proportion(hits, unit="targets").as_json(),
            "clean_accuracy": _mean([one.clean_accuracy for one in points]),
            "lost": _mean([one.lost for one in points]),
        }


def _mean(estimates: list[Estimate]) -> dict[str, Any]:
    return mean([one.value for one in estimates], "targets").as_json()
