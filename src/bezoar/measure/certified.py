"""What certificates are worth: how often they are given, rightly or wrongly, at which radius; what refusals cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from bezoar.measure.certificates import rates, share_within
from bezoar.measure.estimates import mean, paired_loss, proportion
from bezoar.records import Certificates, Estimate

POINTS = 41
"""Of a radius curve, both ends included."""


@dataclass(frozen=True)
class Reading:
    """The referee's reading of some certificates beside the true labels.

    Attributes:
        certificates: of n images.
        labels: int64 [n].
        groups: int64 [n] or None, which images are not independent.
    """

    certificates: Certificates
    labels: Int64[Tensor, "n"]
    groups: Int64[Tensor, "n"] | None = None

    @property
    def right(self) -> Bool[Tensor, "n"]:
        """Which answers are the true class; an abstention is none."""
        return self.certificates.predicted == self.labels

    @property
    def certified(self) -> Bool[Tensor, "n"]:
        """Which answers are certified."""
        return self.certificates.certified

    @property
    def certified_correct(self) -> Bool[Tensor, "n"]:
        """Which answers are certified and right."""
        return self.certified & self.right

    def share(self, hits: Bool[Tensor, "n"]) -> Estimate:
        """A share of the images, with Wilson's interval."""
        return proportion(hits, self.groups)

    def as_json(self, largest: float) -> dict[str, Any]:
        """All rates as plain values, and the radius curve from 0 to `largest`.

        `certified` = `certified_correct` + `certified_wrong`; the rest falls back. `average_certified_radius` counts a
        wrong answer's radius as 0 (Zhai et al., arXiv:2001.02378), `mean_radius` any answer's.
        """
        found = self.certificates
        added = rates(found, self.labels, self.groups)
        known = added.correctness
        assert known is not None
        return {
            "accuracy": known.accuracy.as_json(),
            "certified": added.certified.as_json(),
            "certified_correct": known.right.as_json(),
            "certified_wrong": known.wrong.as_json(),
            "fallback": self.share(~self.certified).as_json(),
            "abstained": added.abstained.as_json(),
            "average_certified_radius": known.average_radius.as_json(),
            "mean_radius": added.mean_radius.as_json(),
            "methods": {name: int((found.method == place).sum()) for place, name in enumerate(found.methods)},
            "curve": self.curve(largest),
        }

    def curve(self, largest: float) -> dict[str, list[float]]:
        """The shares of all images that are certified, and certified and right, at every radius of a grid."""
        radii = torch.linspace(0, largest, POINTS, dtype=torch.float64)
        own = self.certificates.radius
        return {
            "radius": radii.tolist(),
            "certified": share_within(own, radii).tolist(),
            "certified_correct": share_within(own, radii, self.right).tolist(),
        }


def lost(before: Reading, after: Reading) -> dict[str, Any]:
    """What is lost from one reading to another of the same images, paired: answers certified, and rightly so."""
    return {
        name: paired_loss(getattr(before, name), getattr(after, name), before.groups).as_json()
        for name in ("certified", "certified_correct", "right")
    }


def systems(
    reading: Reading, twin: Reading, accuracies: Sequence[float], capacities: Sequence[float | None]
) -> list[dict[str, Any]]:
    """A system that answers where it is certified and else asks a fallback, where all queries are as in `reading`.

    The fallback is right in a share `accuracy` of the images that it gets, whichever these are, and has time for a
    share `capacity` of all queries (None: for all); those beyond get no answer.

    Returns:
        For every accuracy and capacity: `served`, the share of queries that get an answer, and `accuracy`, the share
        that get a right one. Beside them `load`, how many times as many queries fall back as with the twin; its
        interval joins those of the two rates at their far ends, which is wide. None where the twin's reaches 0.
    """
    return [
        {
            "fallback_accuracy": accuracy,
            "capacity": capacity,
            "served": _served(reading, capacity).as_json(),
            "accuracy": _accuracy(reading, accuracy, capacity).as_json(),
            "twin_served": _served(twin, capacity).as_json(),
            "twin_accuracy": _accuracy(twin, accuracy, capacity).as_json(),
            "load": _load(reading.share(~reading.certified), twin.share(~twin.certified)),
        }
        for accuracy in accuracies
        for capacity in capacities
    ]


def _served(reading: Reading, capacity: float | None) -> Estimate:
    """CR + min(FR, k) = min(1, CR + k)."""
    rate = reading.share(reading.certified)
    room = 1.0 if capacity is None else capacity
    value, low, high = (min(1.0, end + room) for end in (rate.value, rate.low, rate.high))
    return Estimate(value, low, high, rate.n, rate.unit)


def _accuracy(reading: Reading, accuracy: float, capacity: float | None) -> Estimate:
    """CA + q min(FR, k); what the fallback adds is known but for how many queries it gets."""
    correct, rate = reading.share(reading.certified_correct), reading.share(~reading.certified)
    if capacity is not None and rate.value > capacity:
        more = accuracy * capacity
        return Estimate(
            correct.value + more, correct.low + more, min(1.0, correct.high + more), correct.n, correct.unit
        )
    each = reading.certified_correct.double() + accuracy * (~reading.certified).double()
    found = mean(each.tolist(), "images")
    return Estimate(found.value, max(0.0, found.low), min(1.0, found.high), found.n, found.unit)


def _load(rate: Estimate, twin: Estimate) -> dict[str, Any] | None:
    if twin.low <= 0:
        return None
    return Estimate(rate.value / twin.value, rate.low / twin.high, rate.high / twin.low, rate.n, rate.unit).as_json()
