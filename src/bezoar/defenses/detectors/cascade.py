"""The cascade: several detectors from cheap to thorough, and one p-value from all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field

from bezoar.component import register
from bezoar.defenses.detectors.blended_inversion import BlendedInversion
from bezoar.defenses.detectors.last_layer import LastLayer
from bezoar.defenses.detectors.maximum_margin import MaximumMargin
from bezoar.defenses.detectors.neural_cleanse import NeuralCleanse
from bezoar.lab import Lab
from bezoar.measure.outliers import class_p_values, joined_p_values, outlier_p_value
from bezoar.measure.verdicts import silence
from bezoar.models.classifier import Classifier
from bezoar.records import Inspection, Tier, Trusted
from bezoar.roles import Detector
from bezoar.seed import Seed


@register("cascade")
class Cascade(Detector):
    """Ask every tier, compare each class with the others in each, and combine what the tiers say of it.

    Attacks hide from one statistic at a time, a blend from a search for small masks and a patch from one for thin
    patterns, so a class is suspicious if any tier finds it far from the others, and more so if several do. Each
    tier gives each class a p-value against the others (`class_p_values`, so no threshold and no population of clean
    models is needed), and the harmonic mean p-value joins the tiers; the score is -log10 of it. Tiers whose scores
    are not near enough to normal (`last_layer`) or that abstain are shown but do not count.

    The trigger is that of the tier that, among those that reconstruct one, is surest of the suspected class.
    bezoar's own; designed on digits_in_the_wild, seeds 100 to 107.
    """

    tiers: Annotated[tuple[Detector, ...], Field(min_length=1)] = (
        LastLayer(),
        MaximumMargin(),
        BlendedInversion(),
        NeuralCleanse(),
    )

    def inspect(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Inspection:
        """Evidence per class: the score that each tier gives it, under the tier's name.

        Every tier sees the seed itself, so it says here what it says alone.
        """
        seen = [tier.inspect(suspect, trusted, lab, seed) for tier in self.tiers]
        silences = [silence(tier, one) for tier, one in zip(self.tiers, seen, strict=True)]
        names = _unique([tier.kind for tier in self.tiers])
        count, counted = len(trusted.classes), [one for one, reason in zip(seen, silences, strict=True) if not reason]
        joined = joined_p_values(torch.stack([one.scores for one in counted])) if counted else torch.ones(count)
        worst = int(joined.argmin())
        shown = _surest(counted or seen, worst)
        return Inspection(
            (-joined.log10()).float(),
            None if shown is None else shown.triggers,
            None if shown is None else shown.masks,
            {name: one.scores for name, one in zip(names, seen, strict=True)},
            "" if counted else f"no tier says anything; {names[-1]}: {silences[-1]}",
            min(1.0, count * float(joined[worst])),
            tuple(
                Tier(name, one.suspect, None if reason else outlier_p_value(one.scores), reason)
                for name, one, reason in zip(names, seen, silences, strict=True)
            ),
        )


def _unique(kinds: list[str]) -> list[str]:
    """Names of the tiers: their kinds, numbered where one occurs again."""
    return [kind if kind not in kinds[:place] else f"{kind} {place + 1}" for place, kind in enumerate(kinds)]


def _surest(seen: Sequence[Inspection], worst: int) -> Inspection | None:
    """Of the inspections that reconstruct triggers, the one that finds the suspected class least like the others."""
    reconstructing = [one for one in seen if one.triggers is not None]
    return min(reconstructing, key=lambda one: float(class_p_values(one.scores)[worst]), default=None)
