"""Whether a reconstructed trigger is the planted one: detecting a backdoor is not reconstructing it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from bezoar.measure.estimates import proportion
from bezoar.measure.predictions import predict
from bezoar.models.classifier import Classifier
from bezoar.records import Dataset, Estimate, Inspection, Probe, as_float, as_stored


@dataclass(frozen=True)
class Fidelity:
    """How the trigger that a detector reconstructed for the attacked class compares with the attacker's.

    Attributes:
        success: share of the attacked test images that it leads to that class, in place of the attacker's trigger.
        twin_success: the same on the clean twin; a trigger that works there as well is no backdoor's.
        overlap: of where the two change images, in [0, 1] (see `overlap`).
    """

    success: Estimate
    twin_success: Estimate
    overlap: float

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "success": self.success.as_json(),
            "twin_success": self.twin_success.as_json(),
            "overlap": self.overlap,
        }


def fidelity(
    inspection: Inspection, target: int, suspect: Classifier, twin: Classifier, test: Dataset, probe: Probe
) -> Fidelity | None:
    """Compare the reconstructed trigger of the attacked class with the attacker's own; None if there is none."""
    if inspection.triggers is None:
        return None
    rows = probe.rows[test.labels[probe.rows] != target]
    attacked = probe.images[test.labels[probe.rows] != target]
    clean = test.batch(rows)
    stamped = as_stored(inspection.stamp(as_float(clean), target))
    groups = None if test.groups is None else test.groups[rows]
    success, elsewhere = (proportion(predict(model, stamped) == target, groups) for model in (suspect, twin))
    return Fidelity(success, elsewhere, overlap(change(clean, attacked), change(clean, stamped)))


def change(before: UInt8[Tensor, "n c h w"], after: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "h w"]:
    """How far each pixel moves on average over images and channels, in [0, 1]."""
    return (as_float(after) - as_float(before)).abs().mean((0, 1))


def overlap(first: Float[Tensor, "h w"], second: Float[Tensor, "h w"]) -> float:
    """How much two changes lie in the same places: sum of min(a, b), both scaled to sum 1; 0 if either is nothing.

    It is 1 minus the total variation distance, so no threshold decides what belongs to a mask: 1 for equal maps,
    0 for disjoint ones, and for a map that lies within an even one the share of pixels that it covers.
    """
    if not first.any() or not second.any():
        return 0.0
    return float(torch.minimum(first / first.sum(), second / second.sum()).sum())
