"""What a model's owner asks of single answers: which of them no small change of the image alters, provably."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bezoar.data.folder import Pictures
from bezoar.lab import Lab
from bezoar.measure.certificates import Rates, rates, share_within
from bezoar.models.classifier import Classifier
from bezoar.records import Certificates, as_float
from bezoar.roles import Certifier
from bezoar.seed import Seed

PART = 256
"""Images that are decoded and certified at a time."""

READINGS = 20
"""Of the radius curve, beside the one at the demanded radius."""


@dataclass(frozen=True)
class Certification:
    """The answer to "which answers of my model are safe?".

    Attributes:
        certificates: of all images, in order.
        labels: int64 [n] the true ones, or None.
        demanded: the radius from which on an answer counts as certified.
    """

    certificates: Certificates
    labels: Int64[Tensor, "n"] | None
    demanded: float

    @property
    def rates(self) -> Rates:
        """All certificates added up."""
        return rates(self.certificates, self.labels)

    @property
    def radii(self) -> Float[Tensor, "r"]:
        """Where the radius curve is read: evenly from 0 to the largest radius, and at the demanded one."""
        largest = max(self.demanded, float(self.certificates.radius.max()))
        even = torch.linspace(0, largest, READINGS, dtype=torch.float64)
        return torch.cat([even, torch.tensor([self.demanded], dtype=torch.float64)]).unique()

    def as_json(self) -> dict[str, Any]:
        """Plain values, without the images."""
        found, added = self.certificates, self.rates
        known = added.correctness
        right = None if self.labels is None else found.predicted == self.labels
        everyone = share_within(found.radius, self.radii).tolist()
        of_right = [None] * len(everyone) if right is None else share_within(found.radius, self.radii, right).tolist()
        return {
            "count": len(found),
            "norm": found.norm,
            "demanded_radius": self.demanded,
            "certified": added.certified.as_json(),
            "abstained": added.abstained.as_json(),
            "mean_radius": added.mean_radius.as_json(),
            "largest_radius": float(found.radius.max()),
            "labels": None
            if known is None
            else {
                "accuracy": known.accuracy.as_json(),
                "certified_right": known.right.as_json(),
                "certified_wrong": known.wrong.as_json(),
                "average_certified_radius": known.average_radius.as_json(),
            },
            "methods": {name: int((found.method == place).sum()) for place, name in enumerate(found.methods)},
            "curve": [
                {"radius": radius, "certified": share, "certified_right": known_right}
                for radius, share, known_right in zip(self.radii.tolist(), everyone, of_right, strict=True)
            ],
        }


def certify(model: Classifier, pictures: Pictures, certifier: Certifier, lab: Lab, seed: Seed) -> Certification:
    """Certify the answers to all images, part by part, so that the memory does not grow with their number.

    Args:
        model: on the lab's device; it is in evaluation mode.
        pictures: at least one, of the size that the model takes.
        certifier: who vouches.
        lab: where.
        seed: with which randomness.

    Raises:
        SettingError: the certifier cannot reason about this model.
        DataError: an image cannot be read.
    """
    parts = torch.arange(len(pictures)).split(PART)
    named = lab.progress.track(parts, f"parts of {PART} images", len(parts)) if len(parts) > 1 else parts
    found = [
        certifier.certify(model, as_float(pictures.reader(rows)), lab, seed / "certify" / number)
        for number, rows in enumerate(named)
    ]
    return Certification(Certificates.joined(found), pictures.labels, certifier.demanded)
