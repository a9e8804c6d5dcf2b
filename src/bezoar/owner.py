"""What a model's owner asks, with one model, a few trusted images and no population of clean models to compare with."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

from bezoar.defenses.self_poisoning import TAKEN, OwnTrigger, poison_copy
from bezoar.errors import SettingError
from bezoar.games.repairing import Look, blind_step, cross_validated
from bezoar.lab import Lab
from bezoar.measure.estimates import proportion
from bezoar.measure.predictions import predict
from bezoar.measure.verdicts import p_value as p_value_of
from bezoar.measure.verdicts import silence
from bezoar.models.classifier import Classifier
from bezoar.records import Estimate, Inspection, Tier, Trusted
from bezoar.roles import Detector, Repairer
from bezoar.seed import Seed

Verdict = Literal["suspicious", "nothing found", "inconclusive"]

ALPHA = 0.05
"""Family-wise level: of clean models whose classes are exchangeable, one in twenty is called suspicious."""


@dataclass(frozen=True)
class Power:
    """Whether the audit would have found a backdoor that the owner plants in a copy of the model.

    Attributes:
        target: the class to which it leads.
        success: share of trusted images of other classes that it leads there, in the copy; on the half that the
            copy was not taught with.
        suspect: the class that the detector finds most suspicious in the copy.
        p_value: of that class; 1 where an audit of the copy would be inconclusive.
    """

    target: int
    success: Estimate
    suspect: int
    p_value: float

    @property
    def found(self) -> bool:
        """Whether the right class is called suspicious."""
        return self.p_value < ALPHA and self.suspect == self.target

    def sentence(self, classes: tuple[str, ...]) -> str:
        """What it means for the audit, in one sentence."""
        planted = f"a backdoor that was planted in a copy of the model (class {classes[self.target]!r})"
        if self.success.value < TAKEN:
            return f"{planted} did not take (success {self.success}), so what would have been found is unknown"
        if self.found:
            return f"{planted} would have been found (p = {self.p_value:.2g})"
        return f"{planted} would not have been found either (p = {self.p_value:.2g}), so this says little"


@dataclass(frozen=True)
class Audit:
    """The answer to "is my model backdoored?".

    Attributes:
        verdict: suspicious, nothing found, or inconclusive.
        reason: one sentence.
        p_value: of the worst class against the others, corrected for its being the worst of k.
        inspection: scores, evidence and reconstructed triggers per class, and what each tier of a cascade saw.
        accuracy: of the model on the trusted images; low if class names and outputs do not match.
        power: where nothing was found, whether something would have been; None if that was not asked.
    """

    verdict: Verdict
    reason: str
    p_value: float
    inspection: Inspection
    accuracy: Estimate
    power: Power | None = None

    def as_json(self, classes: tuple[str, ...]) -> dict[str, Any]:
        """Plain values, classes by name."""
        seen = self.inspection
        evidence = {name: values.tolist() for name, values in seen.evidence.items()}
        per_class = [
            {"class": name, "score": float(score), **{key: values[row] for key, values in evidence.items()}}
            for row, (name, score) in enumerate(zip(classes, seen.scores, strict=True))
        ]
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "p_value": self.p_value,
            "suspected_class": classes[seen.suspect],
            "accuracy_on_trusted": self.accuracy.as_json(),
            "tiers": [
                {
                    "detector": tier.kind,
                    "suspected_class": classes[tier.suspect],
                    "p_value": tier.p_value,
                    "silence": tier.silence,
                }
                for tier in seen.tiers
            ],
            "power": None
            if self.power is None
            else {
                "planted_class": classes[self.power.target],
                "success": self.power.success.as_json(),
                "suspected_class": classes[self.power.suspect],
                "p_value": self.power.p_value,
                "found": self.power.found,
            },
            "classes": per_class,
        }


def audit(
    model: Classifier, trusted: Trusted, detector: Detector, lab: Lab, seed: Seed, *, power: bool = True
) -> Audit:
    """Inspect one model and test its worst class against the others (Grubbs' test on the detector's scores).

    Where nothing is found, the same is asked of a copy in which a backdoor was planted, unless `power` is false:
    it takes as long again, and without it "nothing found" means little.
    """
    accuracy = proportion(predict(model, trusted.images) == trusted.labels)
    inspection = detector.inspect(model, trusted, lab, seed / "audit")
    p_value = p_value_of(inspection)
    worst = trusted.classes[inspection.suspect]
    reason = silence(detector, inspection)
    if reason:
        reason = reason if detector.normal else f"{detector.kind!r} gives no verdict: {reason}; ask 'cascade'"
        return Audit("inconclusive", reason, p_value, inspection, accuracy)
    if p_value < ALPHA:
        needs_less = inspection.triggers is not None and not inspection.tiers and not inspection.thin
        stands_out = "needs far less of a trigger than" if needs_less else "is quite unlike"
        reason = f"class {worst!r} {stands_out} the others (p = {p_value:.2g})"
        return Audit("suspicious", reason, p_value, inspection, accuracy)
    reason = f"no class stands out; the most suspicious is {worst!r} (p = {p_value:.2g})"
    found = Audit("nothing found", reason, p_value, inspection, accuracy)
    return replace(found, power=power_of(model, trusted, detector, lab, seed / "power")) if power else found


def sees(tier: Tier, classes: tuple[str, ...]) -> str:
    """What one tier of a cascade says, in a few words."""
    worst = f"class {classes[tier.suspect]!r} is the most suspicious"
    if tier.p_value is None:
        return f"{worst}, but that does not count: {tier.silence}"
    return f"{worst} (p = {tier.p_value:.2g})"


def power_of(model: Classifier, trusted: Trusted, detector: Detector, lab: Lab, seed: Seed) -> Power:
    """Plant a backdoor of one's own in a copy of the model, and ask the detector about the copy."""
    channels, height, width = trusted.images.shape[1:]
    own = OwnTrigger.draw((channels, height, width), len(trusted.classes), seed / "trigger")
    rest, held_out = trusted.folds(2, seed / "folds")[0]
    copy = poison_copy(model, rest, own, lab, seed / "copy")
    stamped = own.stamp(held_out)
    inspection = detector.inspect(copy, trusted, lab, seed / "audit")
    success = proportion(predict(copy, stamped.images) == own.target)
    silent = bool(silence(detector, inspection))
    return Power(own.target, success, inspection.suspect, 1.0 if silent else p_value_of(inspection))


@dataclass(frozen=True)
class Repair:
    """A repaired model and how its step was chosen; `step` 0 means that no step was acceptable."""

    model: Classifier
    step: int
    looks: list[Look]


def repair(
    model: Classifier,
    trusted: Trusted,
    repairer: Repairer,
    lab: Lab,
    seed: Seed,
    *,
    budget: float = 0.02,
    every: int = 10,
    folds: int = 5,
) -> Repair:
    """Repair a model up to the step that a cross-validation on the trusted images chooses: the `blind` reading.

    Args:
        model: left as it is.
        trusted: all of them repair the model in the end.
        repairer: who repairs.
        lab: where.
        seed: with which randomness.
        budget: accuracy that may be lost, absolute.
        every: how many steps lie between two looks.
        folds: how many repairs choose the step, each judged by the images that it never saw.

    Raises:
        SettingError: there are fewer trusted images than folds.
    """
    if not 2 <= folds <= len(trusted):
        raise SettingError(f"folds: {folds} is not between 2 and the number of trusted images, {len(trusted)}")
    seed = seed / "repair"
    looks = cross_validated(repairer, model, trusted, every, lab, seed, budget=budget, folds=folds)
    step = blind_step(looks)
    models = repairer.repair(model, trusted, lab, seed / "all")
    repaired = deque(lab.progress.track(islice(models, step), "repair", step), maxlen=1)
    return Repair(repaired[0] if repaired else model, step, looks)
